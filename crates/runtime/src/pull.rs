//! Pulling from OCI and Docker registries.
//!
//! Manifest and configuration first: the configuration names the layers by their content, so those that
//! are here already are not fetched. The others come in parallel, each straight from the network
//! through hash and decompression onto the disk; no compressed copy is written. A broken download goes
//! on where it broke. Manifests of schema 1 are refused. A registry may have mirrors (crate `registries`): what
//! one host does not have, or has wrong, is asked of the next. What is not done: proxies.

mod auth;
mod http;
mod push;
mod registry;
mod single;
mod source;

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::cri::AuthConfig;
use crate::error::{Error, Result};
use crate::image::{Descriptor, ImageStore, Reference};
pub(crate) use push::push;
use registry::Registry;
pub use single::fetch as fetch_file;
use source::{Failures, Source};

/// Layers fetched at once: enough to fill a line, few enough for two cores to unpack.
const PARALLEL_LAYERS: usize = 4;
/// Chunks between network and unpacking (some 16 KiB each): the one may run ahead of the other by 1 MiB.
const CHUNKS_AHEAD: usize = 64;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Pulls an image; returns its id, which is the same from whichever registry it comes.
pub(crate) async fn pull(
    store: &Arc<ImageStore>,
    config: &Config,
    name: &str,
    auth: AuthConfig,
) -> Result<String> {
    let reference = Reference::parse(name)?;
    let failed = |source: Cause| Error::Pull { image: reference.name(), source };
    let registry = Source::new(&reference, config, &auth).map_err(failed)?;
    let found = registry.manifest().await.map_err(failed)?;
    let wanted = found.manifest.config.as_ref();
    let wanted = wanted.ok_or_else(|| failed("the manifest names no configuration".into()))?;
    let image_config = registry.document(&wanted.digest).await.map_err(failed)?;
    let layers = store.missing_layers(&image_config, &found.manifest.layers)?;
    let fetch = layers.into_iter().map(|(diff_id, layer)| fetch(store, &registry, diff_id, layer));
    let fetched: std::result::Result<Vec<()>, Cause> =
        futures::stream::iter(fetch).buffer_unordered(PARALLEL_LAYERS).try_collect().await;
    fetched.map_err(failed)?;
    let exact = format!("{}@{}", reference.repository(), found.digest);
    let tags: Vec<String> = match reference.digest {
        None => vec![reference.name()],
        Some(_) => Vec::new(),
    };
    let store = store.clone();
    let digests = vec![exact];
    let added =
        tokio::task::spawn_blocking(move || store.finish_pull(&image_config, &tags, &digests));
    Ok(added.await.map_err(|e| Error::Supervisor(e.to_string()))??.id)
}

/// One layer, from the first host that has it whole.
async fn fetch(
    store: &Arc<ImageStore>,
    source: &Source,
    diff_id: String,
    layer: Descriptor,
) -> std::result::Result<(), Cause> {
    let mut failures = Failures::default();
    for host in source.pulling() {
        match fetch_from(store, &host.registry, diff_id.clone(), &layer).await {
            Ok(()) => return Ok(()),
            Err(error) => failures.add(host, error),
        }
    }
    Err(failures.into_cause())
}

/// The network on this task, hashing and unpacking on a thread that may block.
async fn fetch_from(
    store: &Arc<ImageStore>,
    registry: &Registry,
    diff_id: String,
    layer: &Descriptor,
) -> std::result::Result<(), Cause> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let store = store.clone();
    let digest = layer.digest.clone();
    let unpacking = tokio::task::spawn_blocking(move || {
        store.add_pulled_layer(
            &diff_id,
            &digest,
            Chunks { receiver, chunk: Bytes::new(), ended: false },
        )
    });
    let downloaded = registry.blob(&layer.digest, layer.size, sender).await;
    let unpacked = unpacking.await?;
    // A failed download shows in both; its own error is the one to tell.
    downloaded?;
    Ok(unpacked?)
}

/// The network's chunks as a blocking reader. Without a final empty chunk the download was cut off.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    ended: bool,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() && !self.ended {
            self.chunk = self.receiver.blocking_recv().ok_or(io::ErrorKind::UnexpectedEof)?;
            self.ended = self.chunk.is_empty();
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}
