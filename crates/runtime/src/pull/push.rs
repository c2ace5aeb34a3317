//! Pushing: layers that the registry has are skipped, the others go in one request when they are small and
//! in pieces when they are not; the manifest comes last, so that a name never leads to half an image.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use super::Cause;
use super::auth::escape;
use super::http::{Answer, resolve};
use super::registry::Registry;
use super::source::Source;
use crate::config::Config;
use crate::cri::AuthConfig;
use crate::error::{Error, Result};
use crate::image::{ImageStore, MANIFEST_TYPE, PackedLayer, Reference, sha256};

/// Bytes of one request: what is larger goes in pieces.
const PIECE: usize = 8 << 20;

/// Pushes the image `image` of the store under `name`; returns the name with the manifest's digest.
pub(crate) async fn push(
    store: &Arc<ImageStore>,
    config: &Config,
    image: &str,
    name: &str,
    auth: AuthConfig,
) -> Result<String> {
    let reference = Reference::parse(name)?;
    if reference.digest.is_some() {
        return Err(Error::Invalid(format!("push to {name}: a name with a tag, not a digest")));
    }
    let found = store.find(image).ok_or_else(|| Error::not_found("image", image))?;
    let bytes = store.config(&found.id)?;
    let failed = |source: Cause| Error::Push { image: reference.name(), source };
    let source = Source::new(&reference, config, &auth);
    let registry = source.and_then(Source::pushing).map_err(failed)?;
    let neighbours = neighbours(&found.tags, &reference);
    let mut layers = Vec::new();
    for diff_id in found.layers {
        let packing = store.clone();
        let packed = tokio::task::spawn_blocking(move || packing.pack_layer(&diff_id));
        let packed = packed.await.map_err(|e| Error::Supervisor(e.to_string()))??;
        layers.push((packed.digest.clone(), packed.size));
        let upload =
            Upload { registry: &registry, digest: &packed.digest, neighbours: &neighbours };
        upload.layer(&packed).await.map_err(failed)?;
    }
    let upload = Upload { registry: &registry, digest: &found.id, neighbours: &neighbours };
    upload.bytes(Bytes::from(bytes.clone())).await.map_err(failed)?;
    let manifest = ImageStore::manifest(&bytes, &layers);
    let digest = sha256(&manifest);
    put_manifest(&registry, manifest.into()).await.map_err(failed)?;
    Ok(format!("{}@{digest}", reference.repository()))
}

/// Other repositories of the same registry that may have the layers.
fn neighbours(tags: &std::collections::BTreeSet<String>, reference: &Reference) -> Vec<String> {
    let others = tags.iter().filter_map(|t| Reference::parse(t).ok());
    let others = others.filter(|r| r.host == reference.host && r.path != reference.path);
    others.map(|r| r.path).collect()
}

async fn put_manifest(registry: &Registry, manifest: Bytes) -> std::result::Result<(), Cause> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MANIFEST_TYPE));
    let what = format!("manifests/{}", registry.wanted());
    let answer = registry.ask(Method::PUT, &what, headers, manifest).await?;
    registry.ok(answer).await.map(drop)
}

/// One blob on its way.
struct Upload<'a> {
    registry: &'a Registry,
    digest: &'a str,
    neighbours: &'a [String],
}

impl Upload<'_> {
    async fn layer(&self, layer: &PackedLayer) -> std::result::Result<(), Cause> {
        let Some(mut place) = self.begin().await? else { return Ok(()) };
        let mut file = layer.file.try_clone()?;
        if layer.size <= PIECE as u64 {
            let (_, piece) = piece(file).await?;
            return self.finish(&place, piece).await;
        }
        let mut offset = 0;
        while offset < layer.size {
            let (rest, bytes) = piece(file).await?;
            file = rest;
            let end = offset + bytes.len() as u64;
            if bytes.is_empty() {
                return Err(format!("layer {} ends at {offset}", self.digest).into());
            }
            let mut headers = binary();
            headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            let range = format!("{offset}-{}", end - 1);
            headers.insert(CONTENT_RANGE, HeaderValue::from_str(&range)?);
            let answer = self.registry.ask_at(Method::PATCH, &place, headers, bytes).await?;
            let answer = self.registry.ok(answer).await?;
            place = next_place(&answer)?;
            offset = end;
        }
        self.finish(&place, Bytes::new()).await
    }

    async fn bytes(&self, bytes: Bytes) -> std::result::Result<(), Cause> {
        match self.begin().await? {
            Some(place) => self.finish(&place, bytes).await,
            None => Ok(()),
        }
    }

    /// Where to send the blob; `None` when the registry has it, or took it from another repository.
    async fn begin(&self) -> std::result::Result<Option<Uri>, Cause> {
        let what = format!("blobs/{}", self.digest);
        let answer = self.registry.ask(Method::HEAD, &what, HeaderMap::new(), Bytes::new()).await?;
        match answer.response.status() {
            status if status.is_success() => return Ok(None),
            StatusCode::NOT_FOUND => {}
            _ => drop(self.registry.ok(answer).await?),
        }
        let mut what = "blobs/uploads/".to_owned();
        if let Some(from) = self.neighbours.first() {
            what = format!("{what}?mount={}&from={}", escape(self.digest), escape(from));
        }
        let answer = self.registry.ask(Method::POST, &what, HeaderMap::new(), Bytes::new()).await?;
        let answer = self.registry.ok(answer).await?;
        if answer.response.status() == StatusCode::CREATED {
            return Ok(None);
        }
        next_place(&answer).map(Some)
    }

    async fn finish(&self, place: &Uri, bytes: Bytes) -> std::result::Result<(), Cause> {
        let sign = if place.query().is_some() { '&' } else { '?' };
        let uri: Uri = format!("{place}{sign}digest={}", escape(self.digest)).parse()?;
        let answer = self.registry.ask_at(Method::PUT, &uri, binary(), bytes).await?;
        self.registry.ok(answer).await.map(drop)
    }
}

fn binary() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers
}

fn next_place(answer: &Answer) -> std::result::Result<Uri, Cause> {
    let place = answer.response.headers().get(LOCATION);
    let place = place.ok_or("the registry does not say where to upload to")?.to_str()?;
    let next = resolve(&answer.uri, place)?;
    if answer.uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
        return Err(format!("the upload to {next} leaves TLS").into());
    }
    Ok(next)
}

/// The next bytes of a file.
async fn piece(file: File) -> std::result::Result<(File, Bytes), Cause> {
    let read = move || -> std::io::Result<(File, Bytes)> {
        let mut bytes = Vec::new();
        (&file).take(PIECE as u64).read_to_end(&mut bytes)?;
        Ok((file, Bytes::from(bytes)))
    };
    Ok(tokio::task::spawn_blocking(read).await??)
}
