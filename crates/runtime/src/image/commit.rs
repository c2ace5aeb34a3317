//! What a builder puts into the store and takes from it: layers by their content, configurations as bytes,
//! and images of another store on the same machine.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::layer::{Hashing, RECIPE, decompressed};
use super::tarball::{Times, write_layer};
use super::{ImageStore, Reference, StoredImage, digest_text, hex, sha256, unpack};
use crate::error::{Error, IoContext, Result};

/// Counts nothing, keeps nothing: the digest of what is written.
struct HashOnly(Sha256);

impl Write for HashOnly {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The digest of a directory as a layer; `None` when it is empty.
pub fn layer_digest(dir: &Path, times: Times) -> Result<Option<String>> {
    let mut hash = HashOnly(Sha256::new());
    let any = write_layer(dir, &mut hash, times).at("read", dir)?;
    Ok(any.then(|| digest_text(&hash.0.finalize())))
}

/// Unpacks an archive, compressed or not, as plain files: names with `.wh.` are names like others.
pub fn extract(stream: impl Read, dir: &Path) -> Result<()> {
    let mut stream = decompressed(stream).doing("read the archive")?;
    unpack::unpack_plain(&mut stream, dir).at("unpack to", dir)?;
    // What comes behind the archive's end belongs to it, too: its packer's checksums.
    io::copy(&mut stream, &mut io::sink()).doing("read the archive's end").map(drop)
}

impl ImageStore {
    /// Puts a directory, in overlayfs' form, into the store as a layer; returns its diff id.
    pub fn commit_layer(&self, dir: &Path, times: Times) -> Result<String> {
        let digest = layer_digest(dir, times)?;
        let digest = match digest {
            Some(digest) => digest,
            None => return Err(Error::Invalid(format!("{} has no files", dir.display()))),
        };
        if !self.has_layer(&digest) {
            self.add_directory(&digest, dir, times)?;
        }
        Ok(digest)
    }

    /// A directory's files under a layer's name. The stream goes through the same doors as a pulled layer.
    fn add_directory(&self, diff_id: &str, dir: &Path, times: Times) -> Result<()> {
        let (reader, writer) = io::pipe().doing("make a pipe")?;
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| write_layer(dir, io::BufWriter::new(writer), times));
            let added = self.add_layer(diff_id, reader);
            let written = writing.join().expect("the writer does not panic");
            // A reader that has failed breaks the writer's pipe: its own error is the one to tell.
            added?;
            written.at("read", dir).map(drop)
        })
    }

    /// Makes an image of layers that are here.
    pub fn commit_image(
        &self,
        config: &[u8],
        names: &[String],
        pinned: bool,
    ) -> Result<StoredImage> {
        let names =
            names.iter().map(|n| Ok(Reference::parse(n)?.name())).collect::<Result<Vec<_>>>()?;
        self.add(config, &names, &[], pinned)
    }

    /// An image's configuration, as it was given.
    pub fn config(&self, id: &str) -> Result<Vec<u8>> {
        config_of(&self.root, id)
    }

    /// Whether a layer is here.
    pub fn holds_layer(&self, diff_id: &str) -> bool {
        self.has_layer(diff_id)
    }

    /// Bytes of a layer's files.
    ///
    /// # Errors
    /// It is not here.
    pub fn layer_bytes(&self, diff_id: &str) -> Result<u64> {
        self.layer_size(diff_id)
    }

    /// Bytes of all layers that are here, whether an image has them or not.
    pub fn all_layers_bytes(&self) -> Result<u64> {
        let dir = self.root.join("layers");
        let mut sum = 0;
        for entry in fs::read_dir(&dir).at("list", &dir)? {
            let name = entry.at("list", &dir)?.file_name();
            sum += self.layer_size(&name.to_string_lossy()).unwrap_or(0);
        }
        Ok(sum)
    }

    /// Takes an image out of the index and leaves its layers.
    pub fn forget(&self, id: &str) -> Result<()> {
        if self.images().remove(id).is_none() {
            return Ok(());
        }
        for path in [self.record(id), self.root.join("blobs").join(hex(id))] {
            fs::remove_file(&path).at("remove", &path)?;
        }
        Ok(())
    }

    /// A directory for work that is removed when the store is opened next.
    pub fn scratch(&self) -> Result<PathBuf> {
        let path = self.root.join("tmp").join(uuid::Uuid::new_v4().simple().to_string());
        fs::create_dir(&path).at("make", &path)?;
        Ok(path)
    }

    /// Takes an image of the store at `other` (which another process may have open) with these names, or its
    /// own when there are none. `None` when it is not there.
    pub fn adopt(&self, other: &Path, name: &str, names: &[String]) -> Result<Option<StoredImage>> {
        let Some(image) = find_in(other, name)? else { return Ok(None) };
        let config = config_of(other, &image.id)?;
        for diff_id in &image.layers {
            if self.has_layer(diff_id) {
                continue;
            }
            let dir = other.join("layers").join(hex(diff_id)).join("fs");
            self.copy_layer(diff_id, &dir)?;
        }
        let names: Vec<String> = match names {
            [] => image.tags.iter().cloned().collect(),
            names => {
                names.iter().map(|n| Ok(Reference::parse(n)?.name())).collect::<Result<_>>()?
            }
        };
        let digests: Vec<String> = image.digests.into_iter().collect();
        self.add(&config, &names, &digests, image.pinned).map(Some)
    }

    /// The layer's digest is that of the stream it once came in, which is not kept: the other store has
    /// checked it.
    fn copy_layer(&self, diff_id: &str, dir: &Path) -> Result<()> {
        let tmp = self.scratch()?;
        let files = tmp.join("fs");
        fs::create_dir(&files).at("make", &files)?;
        let recipe = dir.with_file_name(RECIPE);
        let copy = |bytes| match fs::copy(&recipe, tmp.join(RECIPE)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("copy", &recipe),
            _ => Ok(bytes),
        };
        let done = self.copy_files(dir, &files).and_then(copy).and_then(|bytes| {
            let held = fs::File::open(&tmp).at("open", &tmp)?;
            rustix::fs::syncfs(&held).at("sync", &tmp)?;
            self.place_layer(&tmp, diff_id, bytes)
        });
        if done.is_err() {
            // The first error is the one to tell.
            let _ = crate::tree::remove(&tmp);
        }
        done
    }

    fn copy_files(&self, from: &Path, to: &Path) -> Result<u64> {
        let (reader, writer) = io::pipe().doing("make a pipe")?;
        std::thread::scope(|scope| {
            let writer = io::BufWriter::new(writer);
            let writing = scope.spawn(|| write_layer(from, writer, Times::AsTheyAre));
            let mut tar = Hashing::new(reader);
            let bytes = unpack::unpack(&mut tar, to).at("unpack the layer to", to);
            let rest = io::copy(&mut tar, &mut io::sink());
            drop(tar);
            writing.join().expect("the writer does not panic").at("read", from)?;
            rest.doing("read the layer's end")?;
            bytes
        })
    }
}

/// A record in a store that is not open here.
fn find_in(root: &Path, name: &str) -> Result<Option<StoredImage>> {
    let dir = root.join("images");
    let entries = match fs::read_dir(&dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.at("list", &dir)?,
    };
    let wanted = Reference::parse(name).map(|r| r.name()).ok();
    for entry in entries {
        let path = entry.at("list", &dir)?.path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let bytes = match fs::read(&path) {
            // Removed meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.at("read", &path)?,
        };
        // One that cannot be read is not the one that was asked for.
        let Ok(image) = serde_json::from_slice::<StoredImage>(&bytes) else { continue };
        let named = |n: &String| image.tags.contains(n) || image.digests.contains(n);
        if image.id == name || wanted.as_ref().is_some_and(named) {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

fn config_of(root: &Path, id: &str) -> Result<Vec<u8>> {
    let path = root.join("blobs").join(hex(id));
    let bytes = fs::read(&path).at("read", &path)?;
    if sha256(&bytes) != id {
        let message = "it has another digest than its name".to_owned();
        return Err(Error::Damaged { what: "image configuration", path, message });
    }
    Ok(bytes)
}
