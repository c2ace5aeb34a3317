//! One layer on its way in: hashed, decompressed and unpacked in one pass, then put in place.

use std::collections::HashSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::recipe::{self, Recorder};
use super::tarball::{Times, write_layer};
use super::{Descriptor, ImageStore, StoredImage, digest_text, hex, parse_config, sha256, unpack};
use crate::error::{Error, IoContext, Result};

/// Bytes a decompressor is fed with: large reads, few calls.
const READ_BYTES: usize = 128 << 10;
/// A layer's recipe, beside its files.
pub(super) const RECIPE: &str = "recipe.zst";

/// Passes bytes on and hashes them.
pub(super) struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Hashing { inner, hash: Sha256::new() }
    }

    pub(super) fn digest(self) -> String {
        self.ended().1
    }

    /// What was read from, and the digest of what was read.
    pub(super) fn ended(self) -> (R, String) {
        (self.inner, digest_text(&self.hash.finalize()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Whatever a tar may be wrapped in, told by its first bytes.
pub(super) fn decompressed<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut buffered = BufReader::with_capacity(READ_BYTES, stream);
    let start = buffered.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(buffered)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
        decoder.window_log_max(super::budget::MAX_WINDOW_LOG)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(buffered))
}

/// The file of a layer's size, beside its files.
const SIZE: &str = "size";

/// A number that tells of itself whether all of it is there.
fn sealed_size(bytes: u64) -> String {
    let number = bytes.to_string();
    format!("{number} {}\n", sha256(number.as_bytes()))
}

impl ImageStore {
    /// Unpacks a layer, compressed or not, unless it is here. Its digest must be what was announced:
    /// otherwise nothing of it stays.
    pub(super) fn add_layer(&self, diff_id: &str, stream: impl Read) -> Result<()> {
        self.add_checked(diff_id, stream, |_| Ok(()))
    }

    /// A layer from a registry: its compressed form has a digest of its own.
    pub(crate) fn add_pulled_layer(
        &self,
        diff_id: &str,
        digest: &str,
        stream: impl Read,
    ) -> Result<()> {
        self.add_checked(diff_id, Hashing::new(stream), |mut blob| {
            io::copy(&mut blob, &mut io::sink()).doing("read the layer's end")?;
            let found = blob.digest();
            if found == digest {
                return Ok(());
            }
            let message = format!("layer {digest} has the digest {found}");
            Err(Error::Image { image: diff_id.to_owned(), message })
        })
    }

    /// `check` sees the stream behind the layer's end before anything is put in place.
    fn add_checked<R: Read>(
        &self,
        diff_id: &str,
        mut stream: R,
        check: impl FnOnce(R) -> Result<()>,
    ) -> Result<()> {
        if self.has_layer(diff_id) {
            return Ok(());
        }
        let tmp = self.root.join("tmp").join(uuid::Uuid::new_v4().simple().to_string());
        let unpacked = self.unpack_to(&tmp, diff_id, &mut stream);
        let done = unpacked.and_then(|bytes| {
            check(stream)?;
            // A layer that is in its place is trusted for ever: it must be on the disk before.
            let dir = fs::File::open(&tmp).at("open", &tmp)?;
            rustix::fs::syncfs(&dir).at("sync", &tmp)?;
            self.place_layer(&tmp, diff_id, bytes)
        });
        if done.is_err() {
            // The first error is the one to tell.
            let _ = crate::tree::remove(&tmp);
        }
        done
    }

    fn unpack_to(&self, tmp: &Path, diff_id: &str, stream: impl Read) -> Result<u64> {
        let files = tmp.join("fs");
        fs::create_dir_all(&files).at("make", &files)?;
        let recipe = tmp.join(RECIPE);
        let out = fs::File::create_new(&recipe).at("make", &recipe)?;
        let out = zstd::stream::write::Encoder::new(out, 0).at("write", &recipe)?;
        let plain = decompressed(stream).doing("read the layer")?;
        let mut tar = Hashing::new(Recorder::new(plain, out));
        let bytes = unpack::unpack(&mut tar, &files).at("unpack the layer to", &files)?;
        // The archive's padding belongs to the digest too.
        io::copy(&mut tar, &mut io::sink()).doing("read the layer's end")?;
        let (recorder, found) = tar.ended();
        let out = recorder.finish().at("write", &recipe)?;
        out.finish().at("write", &recipe)?;
        if found != diff_id {
            let message = format!("the layer's digest is {found}, announced was {diff_id}");
            return Err(Error::Image { image: diff_id.to_owned(), message });
        }
        Ok(bytes)
    }

    /// The layers to fetch: diff id and descriptor of those that are not here.
    pub(crate) fn missing_layers(
        &self,
        config: &[u8],
        layers: &[Descriptor],
    ) -> Result<Vec<(String, Descriptor)>> {
        let wanted = parse_config(config)?.rootfs.diff_ids;
        if wanted.len() != layers.len() {
            let message =
                format!("{} layers, but the configuration lists {}", layers.len(), wanted.len());
            return Err(Error::Image { image: sha256(config), message });
        }
        let mut seen = HashSet::new();
        let pairs = wanted.into_iter().zip(layers.iter().cloned());
        Ok(pairs.filter(|(id, _)| !self.has_layer(id) && seen.insert(id.clone())).collect())
    }

    /// All layers are here: makes the image known.
    pub(crate) fn finish_pull(
        &self,
        config: &[u8],
        tags: &[String],
        digests: &[String],
    ) -> Result<StoredImage> {
        self.add(config, tags, digests, false)
    }

    pub(super) fn place_layer(&self, tmp: &Path, diff_id: &str, bytes: u64) -> Result<()> {
        super::write_whole(&tmp.join(SIZE), sealed_size(bytes).as_bytes())?;
        let layers = self.root.join("layers");
        let place = layers.join(hex(diff_id));
        if place.exists() && !self.has_layer(diff_id) {
            self.put_aside(&place)?;
        }
        match fs::rename(tmp, &place) {
            // Someone else brought the same layer meanwhile.
            Err(_) if self.has_layer(diff_id) => crate::tree::remove(tmp).at("remove", tmp),
            done => done.and_then(|()| super::settle(&layers)).at("place the layer at", &place),
        }
    }

    /// Writes a layer as a stream: the one it came in, or, of one that came in none, the usual one.
    pub(super) fn write_layer_stream(&self, diff_id: &str, out: &mut dyn io::Write) -> Result<()> {
        let files = self.layer_dir(diff_id);
        let recipe = files.with_file_name(RECIPE);
        match recipe.exists() {
            true => recipe::write_stream(&recipe, &files, out).at("read", &files),
            false => write_layer(&files, out, Times::AsTheyAre).at("read", &files).map(drop),
        }
    }

    pub(super) fn layer_size(&self, diff_id: &str) -> Result<u64> {
        let path = self.root.join("layers").join(hex(diff_id)).join(SIZE);
        let bytes = fs::read(&path).at("read", &path)?;
        let text = String::from_utf8_lossy(&bytes);
        let size = text.split(' ').next().and_then(|size| size.parse().ok());
        // Written last: one that is whole stands for a layer that is.
        size.filter(|size| sealed_size(*size) == text).ok_or_else(|| {
            let message = "its size was not written to its end".to_owned();
            Error::Damaged { what: "layer", path, message }
        })
    }
}
