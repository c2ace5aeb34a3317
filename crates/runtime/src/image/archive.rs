//! Importing docker-archive and OCI-archive files, plain or compressed.
//!
//! An archive's members come in any order, so the file is indexed first; its layers are then read
//! straight out of it. A compressed archive is decompressed to a temporary file before.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

use super::layer::decompressed;
use super::reference::is_digest;
use super::{ARCHITECTURE, ImageStore, Reference, StoredImage, parse_config, sha256};
use crate::error::{Error, IoContext, Result};

/// Bytes of a manifest or configuration: a larger one is no such thing.
const MAX_DOCUMENT: u64 = 4 << 20;

/// Members by name: offset and length.
struct Members {
    file: File,
    index: HashMap<String, (u64, u64)>,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Platform {
    architecture: String,
    os: String,
}

/// A manifest or an index: they share the media type field only by custom.
#[derive(Deserialize)]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
}

impl Manifest {
    /// The entry of an index for this machine; one that names no platform fits any.
    pub(crate) fn choose(&self) -> Option<&Descriptor> {
        let fits = |p: &Platform| p.os == "linux" && p.architecture == ARCHITECTURE;
        let exact = self.manifests.iter().find(|d| d.platform.as_ref().is_some_and(fits));
        exact.or_else(|| self.manifests.iter().find(|d| d.platform.is_none()))
    }
}

impl ImageStore {
    /// Imports every image of an archive and pins it. `names` are added to a sole image.
    pub fn import(&self, path: &Path, names: &[String]) -> Result<Vec<StoredImage>> {
        let mut members = Members::open(path, &self.root.join("tmp"))?;
        let names =
            names.iter().map(|n| Ok(Reference::parse(n)?.name())).collect::<Result<Vec<_>>>()?;
        if members.index.contains_key("index.json") {
            self.import_oci(&mut members, &names)
        } else if members.index.contains_key("manifest.json") {
            self.import_docker(&mut members, &names)
        } else {
            Err(members
                .bad("it has neither index.json nor manifest.json: no image archive".to_owned()))
        }
    }

    fn import_docker(&self, members: &mut Members, names: &[String]) -> Result<Vec<StoredImage>> {
        let list: Vec<DockerManifest> = members.json("manifest.json")?;
        let mut images = Vec::new();
        for manifest in &list {
            let config = members.document(&manifest.config)?;
            let layers: Vec<&str> = manifest.layers.iter().map(String::as_str).collect();
            self.import_layers(members, &config, &layers, None)?;
            let tags = manifest.repo_tags.iter().flatten();
            let mut tags =
                tags.map(|t| Ok(Reference::parse(t)?.name())).collect::<Result<Vec<_>>>()?;
            if list.len() == 1 {
                tags.extend(names.iter().cloned());
            }
            images.push(self.add(&config, &tags, &[], true)?);
        }
        Ok(images)
    }

    fn import_oci(&self, members: &mut Members, names: &[String]) -> Result<Vec<StoredImage>> {
        let index: Manifest = members.json("index.json")?;
        let mut images = Vec::new();
        for entry in &index.manifests {
            let mut tags = names.to_vec();
            let named = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
            if let Some(name) = named.iter().find_map(|k| entry.annotations.get(*k)) {
                // A bare tag is no name: `skopeo copy … oci-archive:x.tar:latest` writes such.
                if name.contains(['/', ':']) || names.is_empty() {
                    tags.extend(Reference::parse(name).map(|r| r.name()));
                }
            }
            images.push(self.import_manifest(members, entry, &tags)?);
        }
        Ok(images)
    }

    fn import_manifest(
        &self,
        members: &mut Members,
        entry: &Descriptor,
        tags: &[String],
    ) -> Result<StoredImage> {
        let mut manifest: Manifest = members.blob_json(&entry.digest)?;
        let mut digest = entry.digest.clone();
        if manifest.config.is_none() {
            let chosen = manifest.choose().cloned();
            let chosen =
                chosen.ok_or_else(|| members.bad(format!("no image for linux/{ARCHITECTURE}")))?;
            digest = chosen.digest;
            manifest = members.blob_json(&digest)?;
        }
        let config = manifest
            .config
            .ok_or_else(|| members.bad("manifest without configuration".to_owned()))?;
        let config = members.blob(&config.digest)?;
        let layers: Vec<String> = manifest.layers.iter().map(|l| blob_path(&l.digest)).collect();
        let paths: Vec<&str> = layers.iter().map(String::as_str).collect();
        let digests: Vec<String> = manifest.layers.iter().map(|l| l.digest.clone()).collect();
        self.import_layers(members, &config, &paths, Some(&digests))?;
        let names = tags.iter().filter_map(|t| Reference::parse(t).ok());
        let digests: Vec<String> = names.map(|r| format!("{}@{digest}", r.repository())).collect();
        self.add(&config, tags, &digests, true)
    }

    fn import_layers(
        &self,
        members: &mut Members,
        config: &[u8],
        paths: &[&str],
        digests: Option<&[String]>,
    ) -> Result<()> {
        let wanted = parse_config(config)?.rootfs.diff_ids;
        if wanted.len() != paths.len() {
            let message =
                format!("{} layers, but the configuration lists {}", paths.len(), wanted.len());
            return Err(members.bad(message));
        }
        for (at, (diff_id, path)) in wanted.iter().zip(paths).enumerate() {
            if self.has_layer(diff_id) {
                continue;
            }
            let member = members.open_member(path)?;
            match digests {
                Some(digests) => self.add_pulled_layer(diff_id, &digests[at], member)?,
                None => self.add_layer(diff_id, member)?,
            }
        }
        Ok(())
    }
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

impl Members {
    fn open(path: &Path, tmp: &Path) -> Result<Members> {
        let mut file = File::open(path).at("open", path)?;
        let mut start = [0u8; 4];
        let count = file.read(&mut start).at("read", path)?;
        file.seek(SeekFrom::Start(0)).at("read", path)?;
        let packed = start[..count].starts_with(&[0x1f, 0x8b]) || start == [0x28, 0xb5, 0x2f, 0xfd];
        if packed {
            let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
            let fd = rustix::fs::open(tmp, flags, rustix::fs::Mode::from_raw_mode(0o600))
                .at("make a file in", tmp)?;
            let mut plain = File::from(fd);
            let mut stream = decompressed(file).at("decompress", path)?;
            io::copy(&mut stream, &mut plain).at("decompress", path)?;
            drop(stream);
            file = plain;
        }
        file.seek(SeekFrom::Start(0)).at("read", path)?;
        let index = index(&file).at("read the archive", path)?;
        Ok(Members { file, index, name: path.display().to_string() })
    }

    fn bad(&self, message: String) -> Error {
        Error::Image { image: self.name.clone(), message }
    }

    fn open_member(&mut self, name: &str) -> Result<io::Take<&mut File>> {
        let found = self.index.get(name.trim_start_matches("./")).copied();
        let (offset, length) = found.ok_or_else(|| self.bad(format!("{name} is missing")))?;
        self.file.seek(SeekFrom::Start(offset)).doing("seek in the archive")?;
        Ok((&mut self.file).take(length))
    }

    fn document(&mut self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_member(name)?
            .take(MAX_DOCUMENT)
            .read_to_end(&mut bytes)
            .doing("read the archive")?;
        Ok(bytes)
    }

    fn json<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Result<T> {
        let bytes = self.document(name)?;
        serde_json::from_slice(&bytes).map_err(|e| self.bad(format!("{name}: {e}")))
    }

    /// A blob by its digest, which is checked.
    fn blob(&mut self, digest: &str) -> Result<Vec<u8>> {
        if !is_digest(digest) {
            return Err(self.bad(format!("digest {digest:?} is not sha256")));
        }
        let bytes = self.document(&blob_path(digest))?;
        if sha256(&bytes) != digest {
            return Err(self.bad(format!("blob {digest} has another digest")));
        }
        Ok(bytes)
    }

    fn blob_json<T: serde::de::DeserializeOwned>(&mut self, digest: &str) -> Result<T> {
        let bytes = self.blob(digest)?;
        serde_json::from_slice(&bytes).map_err(|e| self.bad(format!("{digest}: {e}")))
    }
}

/// Where each member's content lies; a link (docker writes some) lies where its target does.
fn index(file: &File) -> io::Result<HashMap<String, (u64, u64)>> {
    let mut members = HashMap::new();
    let mut links = Vec::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        if let Some(target) = entry.link_name()? {
            let base = Path::new(&name).parent().unwrap_or(Path::new(""));
            let target = normal(&base.join(target)).unwrap_or_default();
            links.push((name, target));
        } else {
            members.insert(name, (entry.raw_file_position(), entry.size()));
        }
    }
    for (name, target) in links {
        if let Some(place) = members.get(&target).copied() {
            members.insert(name, place);
        }
    }
    Ok(members)
}

fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str()?.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}
