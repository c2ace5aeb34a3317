//! The static token file (`--token-auth-file`): CSV of token, user, uid and quoted groups.

use std::path::Path;

use crate::user::User;

/// A token file's line is malformed.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("read token file {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{path}:{line}: expected `token,user,uid[,\"group,group\"]`")]
    Malformed { path: String, line: usize },
}

/// Tokens and whose they are. A blank token is nobody's.
pub(super) fn read(path: &Path) -> Result<Vec<(String, User)>, TokenFileError> {
    let shown = || path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|source| TokenFileError::Read { path: shown(), source })?;
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let fields = csv_fields(line);
        let [token, name, uid, rest @ ..] = fields.as_slice() else {
            return Err(TokenFileError::Malformed { path: shown(), line: at + 1 });
        };
        let groups = rest.first().map_or("", String::as_str).split(',');
        let mut user = User::new(name, &[]);
        user.uid = uid.clone();
        user.groups = groups.filter(|g| !g.is_empty()).map(|g| g.trim().to_owned()).collect();
        if !token.is_empty() {
            found.push((token.clone(), user));
        }
    }
    Ok(found)
}

/// Fields of one CSV line; quoted fields may hold commas.
fn csv_fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}
