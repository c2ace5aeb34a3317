//! Docker's layout of a registry's folder: `*.crt` are authorities, `*.cert` with `*.key` is who we are.

use std::path::Path;

use crate::{Error, KeyPair, Tls};

/// The content of the folder's files; `None` when there are none.
pub(crate) fn tls(dir: &Path) -> Result<Option<Tls>, Error> {
    let failed = |e: std::io::Error| Error::new(dir, "", e.to_string());
    let mut names: Vec<_> = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        names.push(entry.map_err(failed)?.path());
    }
    names.sort();
    let ends = |path: &Path, end: &str| path.extension().is_some_and(|e| e == end);
    let mut tls = Tls::default();
    for path in names.into_iter().filter(|path| path.is_file()) {
        if ends(&path, "crt") {
            tls.authorities.push(path);
        } else if ends(&path, "cert") {
            if tls.client.is_some() {
                let why = "more than one client certificate is not supported";
                return Err(Error::new(&path, "", why));
            }
            let key = path.with_extension("key");
            let key = if key.is_file() { key } else { path.clone() };
            tls.client = Some(KeyPair { certificate: path, key });
        }
    }
    Ok((tls != Tls::default()).then_some(tls))
}
