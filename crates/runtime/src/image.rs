//! The image store: what images there are, and their layers as directories.
//!
//! `images/<id>.json` describes an image (id: the digest of its configuration), `blobs/` keeps its
//! configuration, `layers/<diff id>/fs` its layers, unpacked once and shared, each with
//! the recipe of the stream it came in. A file appears under its final name only when it is whole.

mod archive;
mod budget;
mod build;
mod commit;
mod export;
mod layer;
pub(crate) mod lookup;
mod recipe;
mod reference;
mod tarball;
mod unpack;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext, Result};
use crate::plan::ImageProcess;

pub(crate) use archive::{Descriptor, Manifest};
pub use build::StaticImage;
pub use commit::{extract, layer_digest};
pub(crate) use export::{MANIFEST_TYPE, PackedLayer};
pub use reference::Reference;
pub(crate) use reference::is_digest;
pub use tarball::{Times, write_layer};

/// One image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredImage {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Names with a tag.
    pub tags: BTreeSet<String>,
    /// Names with a manifest digest.
    pub digests: BTreeSet<String>,
    /// Diff ids, lowest first.
    pub layers: Vec<String>,
    /// Bytes of the unpacked layers.
    pub size: u64,
    /// Kept by garbage collection.
    pub pinned: bool,
    #[serde(rename = "config")]
    pub(crate) process: ImageProcess,
}

/// An image configuration, as far as it matters here.
#[derive(Deserialize)]
struct ImageConfig {
    #[serde(default)]
    config: Option<ImageProcess>,
    rootfs: RootFs,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

pub struct ImageStore {
    root: PathBuf,
    images: Mutex<BTreeMap<String, StoredImage>>,
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest_text(&Sha256::digest(bytes))
}

fn digest_text(hash: &[u8]) -> String {
    hash.iter().fold("sha256:".to_owned(), |text, b| format!("{text}{b:02x}"))
}

/// A digest as a file name.
fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// What this machine's images call its architecture.
pub(crate) const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Writes a file so that it is there whole or not at all, also after a loss of power.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = path.with_extension(format!("part-{}", uuid::Uuid::new_v4().simple()));
    let write = || {
        let mut file = fs::File::create_new(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        path.parent().map_or(Ok(()), settle)
    };
    write().at("write", path)
}

/// What was written to a file, or which names a directory has, outlives a loss of power from now on.
fn settle(path: &Path) -> std::io::Result<()> {
    fs::File::open(path)?.sync_all()
}

impl ImageStore {
    /// Opens the store below `root`; makes it when it is not there, and clears what a crash left half done.
    /// An image whose record is damaged, or whose layers are not all here, is forgotten: it can be had again.
    pub fn open(root: impl Into<PathBuf>) -> Result<ImageStore> {
        let root = root.into();
        for dir in ["images", "blobs", "layers", "tmp"] {
            let path = root.join(dir);
            fs::create_dir_all(&path).at("make", &path)?;
        }
        let tmp = root.join("tmp");
        for entry in fs::read_dir(&tmp).at("list", &tmp)? {
            let entry = entry.at("list", &tmp)?;
            crate::tree::remove(&entry.path()).at("remove", entry.path())?;
        }
        let store = ImageStore { root, images: Mutex::default() };
        store.put_damaged_layers_aside()?;
        let dir = store.root.join("images");
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let path = entry.at("list", &dir)?.path();
            let bytes = fs::read(&path).at("read", &path)?;
            match store.stored(&path, &bytes) {
                Ok(image) => drop(store.images().insert(image.id.clone(), image)),
                Err(why) => {
                    tracing::warn!(file = %path.display(), why, "image forgotten");
                    fs::remove_file(&path).at("remove", &path)?;
                }
            }
        }
        Ok(store)
    }

    /// A layer that was not put in place to its end is none: it is fetched again. It is removed at the next
    /// opening, because a container of a former process may still run on it.
    fn put_damaged_layers_aside(&self) -> Result<()> {
        let dir = self.root.join("layers");
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let entry = entry.at("list", &dir)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Err(why) = self.layer_size(&name) else { continue };
            let path = entry.path();
            tracing::error!(layer = %path.display(), "damaged layer put aside: {}", why.chain());
            self.put_aside(&path)?;
        }
        Ok(())
    }

    fn put_aside(&self, path: &Path) -> Result<()> {
        let aside = self.root.join("tmp").join(uuid::Uuid::new_v4().simple().to_string());
        fs::rename(path, aside).at("put aside", path)
    }

    /// An image's record, if it can be trusted.
    fn stored(&self, path: &Path, bytes: &[u8]) -> std::result::Result<StoredImage, String> {
        let image: StoredImage = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if path.file_name() != self.record(&image.id).file_name() {
            return Err("the record is another image's".into());
        }
        // The configuration has its digest for a name: what the record has of it must be in there.
        let config = self.config(&image.id).map_err(|e| e.chain())?;
        let config = parse_config(&config).map_err(|e| e.chain())?;
        if config.rootfs.diff_ids != image.layers {
            return Err("the record has other layers than the configuration".into());
        }
        for layer in &image.layers {
            self.layer_size(layer).map_err(|e| e.chain())?;
        }
        Ok(image)
    }

    fn record(&self, id: &str) -> PathBuf {
        self.root.join("images").join(format!("{}.json", hex(id)))
    }

    fn images(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, StoredImage>> {
        self.images.lock().expect("no holder panics")
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn list(&self) -> Vec<StoredImage> {
        self.images().values().cloned().collect()
    }

    /// Finds an image by name, by id (with or without `sha256:`), or by the start of its id.
    pub fn find(&self, text: &str) -> Option<StoredImage> {
        let images = self.images();
        if let Some(image) = images.get(text) {
            return Some(image.clone());
        }
        if let Ok(reference) = Reference::parse(text) {
            let name = reference.name();
            let named = |i: &&StoredImage| i.tags.contains(&name) || i.digests.contains(&name);
            if let Some(image) = images.values().find(named) {
                return Some(image.clone());
            }
        }
        /// Hex digits that count as the start of an id and not as a name.
        const SHORT_ID: usize = 12;
        let start = hex(text);
        let mut found =
            images.values().filter(|i| start.len() >= SHORT_ID && hex(&i.id).starts_with(start));
        found.next().filter(|_| found.next().is_none()).cloned()
    }

    /// Where a layer's files are.
    pub fn layer_dir(&self, diff_id: &str) -> PathBuf {
        self.root.join("layers").join(hex(diff_id)).join("fs")
    }

    /// The layers of an image as overlay wants them: topmost first.
    pub fn layer_dirs(&self, image: &StoredImage) -> Vec<PathBuf> {
        image.layers.iter().rev().map(|l| self.layer_dir(l)).collect()
    }

    fn has_layer(&self, diff_id: &str) -> bool {
        self.layer_dir(diff_id).is_dir() && self.layer_size(diff_id).is_ok()
    }

    /// Takes an image whose layers are all here into the index; names move from other images to it.
    fn add(
        &self,
        config: &[u8],
        tags: &[String],
        digests: &[String],
        pinned: bool,
    ) -> Result<StoredImage> {
        let id = sha256(config);
        let parsed = parse_config(config)?;
        let mut size = 0;
        for layer in &parsed.rootfs.diff_ids {
            size += self.layer_size(layer)?;
        }
        write_whole(&self.root.join("blobs").join(hex(&id)), config)?;
        let mut images = self.images();
        for other in images.values_mut().filter(|i| i.id != id) {
            let before = other.tags.len();
            other.tags.retain(|t| !tags.contains(t));
            if other.tags.len() != before {
                self.save(other)?;
            }
        }
        let image = images.entry(id.clone()).or_insert_with(|| StoredImage {
            id,
            tags: BTreeSet::new(),
            digests: BTreeSet::new(),
            layers: parsed.rootfs.diff_ids,
            size,
            pinned: false,
            process: parsed.config.unwrap_or_default(),
        });
        image.tags.extend(tags.iter().cloned());
        image.digests.extend(digests.iter().cloned());
        image.pinned |= pinned;
        self.save(image)?;
        Ok(image.clone())
    }

    fn save(&self, image: &StoredImage) -> Result<()> {
        let path = self.record(&image.id);
        let bytes = serde_json::to_vec(image).expect("strings and numbers only");
        write_whole(&path, &bytes)
    }

    /// Pins or unpins an image against garbage collection.
    pub fn pin(&self, text: &str, pinned: bool) -> Result<()> {
        let found = self.find(text).ok_or_else(|| Error::not_found("image", text))?;
        let mut images = self.images();
        let image = images.get_mut(&found.id).ok_or_else(|| Error::not_found("image", text))?;
        image.pinned = pinned;
        self.save(image)
    }

    /// Removes an image with all its names; an unknown one is no error. `in_use` are layers that stay.
    pub fn remove(&self, text: &str, in_use: &HashSet<String>) -> Result<()> {
        let Some(found) = self.find(text) else { return Ok(()) };
        {
            let mut images = self.images();
            if images.remove(&found.id).is_none() {
                // Another caller removed it meanwhile.
                return Ok(());
            }
            let path = self.record(&found.id);
            fs::remove_file(&path).at("remove", &path)?;
            let blob = self.root.join("blobs").join(hex(&found.id));
            fs::remove_file(&blob).at("remove", &blob)?;
        }
        self.collect(in_use)
    }

    /// Removes layers that no image and no container uses.
    pub fn collect(&self, in_use: &HashSet<String>) -> Result<()> {
        let used: HashSet<String> = {
            let images = self.images();
            let layers = images.values().flat_map(|i| &i.layers).chain(in_use);
            layers.map(|l| hex(l).to_owned()).collect()
        };
        let dir = self.root.join("layers");
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let entry = entry.at("list", &dir)?;
            if !used.contains(&*entry.file_name().to_string_lossy()) {
                // Renamed first: a half-removed layer must not look like one.
                let aside = self.root.join("tmp").join(uuid::Uuid::new_v4().simple().to_string());
                match fs::rename(entry.path(), &aside) {
                    // Another collection took it.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    renamed => renamed.at("remove", entry.path())?,
                }
                crate::tree::remove(&aside).at("remove", &aside)?;
            }
        }
        Ok(())
    }

    /// Bytes of all layers.
    pub fn used_bytes(&self) -> u64 {
        let layers: BTreeSet<String> =
            self.images().values().flat_map(|i| i.layers.clone()).collect();
        layers.iter().filter_map(|l| self.layer_size(l).ok()).sum()
    }
}

fn parse_config(bytes: &[u8]) -> Result<ImageConfig> {
    let bad = |message: String| Error::Image { image: sha256(bytes), message };
    let config: ImageConfig =
        serde_json::from_slice(bytes).map_err(|e| bad(format!("configuration: {e}")))?;
    if config.rootfs.diff_ids.len() > budget::MAX_LAYERS {
        return Err(bad(format!("it has more than {} layers", budget::MAX_LAYERS)));
    }
    if !config.rootfs.diff_ids.iter().all(|d| is_digest(d)) {
        return Err(bad("a layer's diff id is not sha256".to_owned()));
    }
    let fits = |has: &str, want: &str| has.is_empty() || has == want;
    if !fits(&config.os, "linux") || !fits(&config.architecture, ARCHITECTURE) {
        return Err(bad(format!("it is for {}/{}", config.os, config.architecture)));
    }
    Ok(config)
}

#[cfg(test)]
#[path = "image/tests.rs"]
mod tests;
