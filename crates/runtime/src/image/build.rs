//! Small images made on the spot out of one static file: nothing to download, nothing to build.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{ARCHITECTURE, ImageStore, Reference, StoredImage, digest_text, settle};
use crate::error::{IoContext, Result};

/// What to make.
#[derive(Clone, Debug, Default)]
pub struct StaticImage {
    /// The file on this machine.
    pub file: PathBuf,
    /// Where it goes in the image, e.g. `/trireme`.
    pub path: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// e.g. `8080/tcp`.
    pub ports: Vec<String>,
    pub working_dir: String,
    pub user: String,
    /// Symbolic links to make: path and target. A busybox becomes a system this way.
    pub links: Vec<(String, String)>,
    /// Small text files to add: path and content.
    pub files: Vec<(String, String)>,
    /// Names, e.g. `trireme.local/demo:v1`.
    pub names: Vec<String>,
}

impl ImageStore {
    /// Makes the image, pins it, and returns it. Images of the same file, links and files share one layer.
    pub fn build_static(&self, wanted: &StaticImage) -> Result<StoredImage> {
        let names = wanted
            .names
            .iter()
            .map(|n| Ok(Reference::parse(n)?.name()))
            .collect::<Result<Vec<_>>>()?;
        let diff_id = layer_digest(wanted)?;
        if !self.has_layer(&diff_id) {
            let tmp = self.root.join("tmp").join(uuid::Uuid::new_v4().simple().to_string());
            let bytes = fill(&tmp.join("fs"), wanted)?;
            self.place_layer(&tmp, &diff_id, bytes)?;
        }
        let ports: BTreeMap<&str, serde_json::Value> =
            wanted.ports.iter().map(|p| (p.as_str(), json!({}))).collect();
        let config = json!({
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {
                "Entrypoint": wanted.entrypoint,
                "Cmd": wanted.cmd,
                "Env": wanted.env,
                "Labels": wanted.labels,
                "ExposedPorts": ports,
                "WorkingDir": wanted.working_dir,
                "User": wanted.user,
            },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let bytes = serde_json::to_vec(&config).expect("plain values");
        self.add(&bytes, &names, &[], true)
    }
}

/// What the layer holds decides its name. It is no digest of a tar, because there never is one.
fn layer_digest(wanted: &StaticImage) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(&wanted.file).at("open", &wanted.file)?;
    let mut buffer = vec![0u8; 1 << 17];
    loop {
        let count = file.read(&mut buffer).at("read", &wanted.file)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    let rest = json!([wanted.path, wanted.links, wanted.files]);
    hash.update(rest.to_string().as_bytes());
    Ok(digest_text(&hash.finalize()))
}

fn fill(root: &Path, wanted: &StaticImage) -> Result<u64> {
    let place = |path: &str| root.join(path.trim_start_matches('/'));
    let parent = |path: &Path| {
        let dir = path.parent().unwrap_or(root);
        fs::create_dir_all(dir).at("make", dir)
    };
    let target = place(&wanted.path);
    parent(&target)?;
    copy(&wanted.file, &target).and_then(|()| settle(&target)).at("copy to", &target)?;
    let mut bytes = fs::metadata(&target).at("inspect", &target)?.size();
    for (path, to) in &wanted.links {
        parent(&place(path))?;
        std::os::unix::fs::symlink(to, place(path)).at("make link", place(path))?;
    }
    for (path, text) in &wanted.files {
        parent(&place(path))?;
        let file = place(path);
        fs::write(&file, text).and_then(|()| settle(&file)).at("write", &file)?;
        bytes += text.len() as u64;
    }
    let tmp = place("/tmp");
    fs::create_dir_all(&tmp).at("make", &tmp)?;
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)).at("open", &tmp)?;
    Ok(bytes)
}

/// A copy with its own inode (the file may be replaced, or be a running program): shared blocks where
/// the file system can, which `copy_file_range` under `fs::copy` does by itself.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))
}
