//! An image as an OCI archive: what other runtimes import.
//!
//! Layers are made into tar streams again, by their recipes. A stream that is not the one the image's configuration names
//! would be refused by every importer, so it is refused here.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{ImageStore, Reference, StoredImage, digest_text, sha256};
use crate::error::{Error, IoContext, Result};

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layer packed: a file without a name, which goes with this value.
pub(crate) struct PackedLayer {
    pub(crate) file: File,
    pub(crate) digest: String,
    pub(crate) size: u64,
}

/// Writes through, and hashes.
struct Tee<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl ImageStore {
    /// A layer as a gzip file, the same bytes every time.
    pub(crate) fn pack_layer(&self, diff_id: &str) -> Result<PackedLayer> {
        let tmp = self.root.join("tmp");
        let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let fd = rustix::fs::open(&tmp, flags, mode).at("make a file in", &tmp)?;
        let packed = Tee { inner: io::BufWriter::new(File::from(fd)), hash: Sha256::new() };
        let gzip = flate2::GzBuilder::new().write(packed, flate2::Compression::default());
        let mut tar = Tee { inner: gzip, hash: Sha256::new() };
        self.write_layer_stream(diff_id, &mut tar)?;
        let found = digest_text(&tar.hash.finalize());
        if found != diff_id {
            let message = format!(
                "layer {diff_id} cannot be made into the same stream again: it came in none, or was kept by \
                 an earlier version; pull its image again"
            );
            return Err(Error::Image { image: diff_id.to_owned(), message });
        }
        let packed = tar.inner.finish().doing("pack the layer")?;
        let digest = digest_text(&packed.hash.finalize());
        let file = packed.inner.into_inner().map_err(io::IntoInnerError::into_error);
        let mut file = file.doing("pack the layer")?;
        let size = file.stream_position().doing("pack the layer")?;
        file.rewind().doing("pack the layer")?;
        Ok(PackedLayer { file, digest, size })
    }

    /// The manifest of an image whose layers are packed.
    pub(crate) fn manifest(config: &[u8], layers: &[(String, u64)]) -> Vec<u8> {
        let layer = |(digest, size): &(String, u64)| json!({ "mediaType": LAYER_TYPE, "digest": digest, "size": size });
        let layers: Vec<_> = layers.iter().map(layer).collect();
        let config =
            json!({ "mediaType": CONFIG_TYPE, "digest": sha256(config), "size": config.len() });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers,
        });
        manifest.to_string().into_bytes()
    }

    /// Writes an image to a file as an OCI archive, whole or not at all. Without names it keeps its own.
    pub fn export(&self, image: &str, names: &[String], path: &Path) -> Result<()> {
        let found = self.find(image).ok_or_else(|| Error::not_found("image", image))?;
        let part = path.with_extension(format!("part-{}", uuid::Uuid::new_v4().simple()));
        let done = self
            .write_archive(&found, names, &part)
            .and_then(|()| fs::rename(&part, path).at("write", path));
        if done.is_err() {
            // The first error is the one to tell.
            let _ = fs::remove_file(&part);
        }
        done
    }

    fn write_archive(&self, image: &StoredImage, names: &[String], path: &Path) -> Result<()> {
        let names: Vec<String> = match names {
            [] => image.tags.iter().cloned().collect(),
            names => {
                names.iter().map(|n| Ok(Reference::parse(n)?.name())).collect::<Result<_>>()?
            }
        };
        let config = self.config(&image.id)?;
        let file = File::create_new(path).at("make", path)?;
        let mut tar = tar::Builder::new(io::BufWriter::new(file));
        let mut add = |name: &str, size: u64, content: &mut dyn Read| {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(size);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            tar.append_data(&mut header, name, content).at("write", path)
        };
        let blob = |digest: &str| format!("blobs/{}", digest.replacen(':', "/", 1));
        let mut layers = Vec::new();
        for diff_id in &image.layers {
            let mut packed = self.pack_layer(diff_id)?;
            add(&blob(&packed.digest), packed.size, &mut packed.file)?;
            layers.push((packed.digest, packed.size));
        }
        add(&blob(&image.id), config.len() as u64, &mut &config[..])?;
        let manifest = ImageStore::manifest(&config, &layers);
        let digest = sha256(&manifest);
        add(&blob(&digest), manifest.len() as u64, &mut &manifest[..])?;
        let entry = |name: Option<&String>| {
            let mut entry =
                json!({ "mediaType": MANIFEST_TYPE, "digest": digest, "size": manifest.len() });
            if let Some(name) = name {
                let tag = name.rsplit_once(':').map_or(name.as_str(), |(_, tag)| tag);
                entry["annotations"] = json!({
                    "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag,
                });
            }
            entry
        };
        let entries: Vec<_> = match names.as_slice() {
            [] => vec![entry(None)],
            names => names.iter().map(|n| entry(Some(n))).collect(),
        };
        let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
        add("index.json", index.len() as u64, &mut index.as_bytes())?;
        let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
        add("oci-layout", layout.len() as u64, &mut layout.as_bytes())?;
        let file = tar.into_inner().at("write", path)?.into_inner();
        let file = file.map_err(io::IntoInnerError::into_error).at("write", path)?;
        file.sync_all().at("write", path)
    }
}
