//! `--chown` and `--chmod`.

use std::io;

use super::root::Root;
use crate::error::{Error, IoContext, Result};

/// Numbers for `user[:group]`; names are looked up in the image.
pub(crate) fn owner(root: &Root, text: &str) -> Result<Option<(u32, u32)>> {
    if text.is_empty() {
        return Ok(None);
    }
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let read = |path: &str| -> Result<String> {
        let text: io::Result<String> = root.text(path);
        text.at("read the image's", path)
    };
    let number = |text: &str| text.parse::<u32>().ok();
    let unknown = |kind: &str, name: &str, file: &str| {
        Error::refused(format!("--chown={text}: the image has no {kind} {name:?}"))
            .with_fix(format!("use a number, or add the {kind} to {file} before"))
    };
    let (uid, own_group) = match number(user) {
        Some(uid) => (uid, uid),
        None if user.is_empty() => (0, 0),
        None => {
            let passwd = read("/etc/passwd")?;
            let found = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>()).find_map(|f| {
                let same = f.first() == Some(&user);
                same.then(|| Some((number(f.get(2)?)?, number(f.get(3)?)?))).flatten()
            });
            found.ok_or_else(|| unknown("user", user, "/etc/passwd"))?
        }
    };
    let gid = match group {
        None => own_group,
        Some(group) => match number(group) {
            Some(gid) => gid,
            None => {
                let groups = read("/etc/group")?;
                let found = groups.lines().map(|l| l.split(':').collect::<Vec<_>>());
                let mut found = found.filter(|f| f.first() == Some(&group));
                let gid = found.find_map(|f| number(f.get(2)?));
                gid.ok_or_else(|| unknown("group", group, "/etc/group"))?
            }
        },
    };
    Ok(Some((uid, gid)))
}

/// A change of permissions: a number, or `u+x,go=rX` and the like.
#[derive(Clone, Debug)]
pub(crate) enum ModeChange {
    Set(u32),
    Symbolic(Vec<(u32, char, String)>),
}

impl ModeChange {
    pub(crate) fn parse(text: &str) -> Result<Option<ModeChange>> {
        if text.is_empty() {
            return Ok(None);
        }
        let bad = || {
            Error::refused(format!("invalid chmod parameter: '{text}'"))
                .with_fix("write an octal number up to 7777, or e.g. u=rwX,go=rX")
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode =
                u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777).ok_or_else(bad)?;
            return Ok(Some(ModeChange::Set(mode)));
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            let at = clause.find(['+', '-', '=']).ok_or_else(bad)?;
            let mut who = 0;
            for c in clause[..at].chars() {
                who |= match c {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o1007,
                    'a' => 0o7777,
                    _ => return Err(bad()),
                };
            }
            let who = if who == 0 { 0o7777 } else { who };
            let mut rest = &clause[at..];
            while let Some(sign) = rest.chars().next() {
                let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |e| e + 1);
                let letters = rest[1..end].to_owned();
                if !letters.chars().all(|c| "rwxXst".contains(c)) {
                    return Err(bad());
                }
                clauses.push((who, sign, letters));
                rest = &rest[end..];
            }
        }
        Ok(Some(ModeChange::Symbolic(clauses)))
    }

    pub(crate) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let clauses = match self {
            ModeChange::Set(mode) => return *mode,
            ModeChange::Symbolic(clauses) => clauses,
        };
        let mut mode = mode & 0o7777;
        for (who, sign, letters) in clauses {
            let bits = letters.chars().fold(0, |bits, c| {
                bits | match c {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if is_dir || mode & 0o111 != 0 => 0o111,
                    's' => 0o6000,
                    't' => 0o1000,
                    _ => 0,
                }
            }) & who;
            mode = match sign {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => (mode & !(who & 0o777)) | bits,
            };
        }
        mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_change_as_chmod_changes_them() {
        for (text, from, is_dir, want) in [
            ("755", 0o600, false, 0o755),
            ("4755", 0o600, false, 0o4755),
            ("u+x", 0o644, false, 0o744),
            ("go-r", 0o644, false, 0o600),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a=r", 0o777, false, 0o444),
            ("+x", 0o644, false, 0o755),
            ("u+s", 0o755, false, 0o4755),
            ("u-w+x", 0o644, false, 0o544),
        ] {
            let change = ModeChange::parse(text).unwrap().unwrap();
            assert_eq!(change.apply(from, is_dir), want, "{text}");
        }
        for bad in ["8", "77777", "u", "z+x", "u+q", "rwx"] {
            assert!(ModeChange::parse(bad).is_err(), "{bad}");
        }
    }
}
