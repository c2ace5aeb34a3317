//! Where configurations lie, and which one counts for a registry.

use std::path::{Path, PathBuf};

use crate::endpoint::Endpoint;
use crate::error::{Error, read};
use crate::mirrors::Mirrors;
use crate::{certs, hosts};

const HOSTS: &str = "hosts.toml";
/// The folder for registries that have none of their own.
const ANY: &str = "_default";

/// The configurations of registries.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    /// Folders with one folder for each registry (containerd's `config_path`); the first that has one counts.
    pub dirs: Vec<PathBuf>,
    /// k3s' `registries.yaml`, for registries without a folder.
    pub file: Option<PathBuf>,
}

impl Registries {
    /// The hosts to ask for images of `registry` (`host[:port]`), in this order; the last is mostly the registry.
    ///
    /// # Errors
    /// A file that cannot be read or used, with the field.
    pub fn endpoints(&self, registry: &str) -> Result<Vec<Endpoint>, Error> {
        for dir in &self.dirs {
            if let Some(found) = folder(dir, registry)? {
                return in_folder(&found, registry);
            }
        }
        match self.mirrors()? {
            Some(mirrors) => Ok(mirrors.endpoints(registry)),
            None => Ok(vec![Endpoint::standard(registry)]),
        }
    }

    /// Reads everything once.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn check(&self) -> Result<(), Error> {
        self.mirrors()?;
        for dir in &self.dirs {
            let failed = |e: std::io::Error| Error::new(dir, "", e.to_string());
            let list = match std::fs::read_dir(dir) {
                Ok(list) => list,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            for entry in list {
                let path = entry.map_err(failed)?.path();
                if path.is_dir() {
                    in_folder(&path, "registry.invalid")?;
                }
            }
        }
        Ok(())
    }

    fn mirrors(&self) -> Result<Option<Mirrors>, Error> {
        let Some(path) = &self.file else { return Ok(None) };
        read(path)?.map(|text| Mirrors::read(path, &text)).transpose()
    }
}

/// A registry's folder: its name with `_port_`, with `:port`, or the one for all.
fn folder(root: &Path, registry: &str) -> Result<Option<PathBuf>, Error> {
    let port = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    for name in port.iter().map(String::as_str).chain([registry, ANY]) {
        let path = root.join(name);
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Ok(Some(path)),
            Ok(_) => return Err(Error::new(&path, "", "it is no folder")),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::new(&path, "", e.to_string())),
        }
    }
    Ok(None)
}

fn in_folder(dir: &Path, registry: &str) -> Result<Vec<Endpoint>, Error> {
    let file = dir.join(HOSTS);
    if let Some(text) = read(&file)?.filter(|text| !text.is_empty()) {
        return hosts::endpoints(&file, &text, registry);
    }
    let mut own = Endpoint::standard(registry);
    if let Some(tls) = certs::tls(dir)? {
        own.tls = tls;
    }
    Ok(vec![own])
}
