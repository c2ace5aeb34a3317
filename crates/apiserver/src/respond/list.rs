//! Lists: the objects' own bytes, sent in chunks, so that a list of the whole cluster is never in
//! memory a second time.

use std::io::Write;
use std::sync::Arc;

use api::Object;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};

use super::{Accept, Body, Encoding, Shown, View, encode, full, partial, stream, with_body};
use crate::verbs::list::Listing;

/// Bytes of a chunk: large enough that its making and sending cost little beside its copying.
const CHUNK: usize = 128 * 1024;
/// Shortest body that is compressed (the original's `defaultGzipThresholdBytes`).
const GZIP_MIN: usize = 128 * 1024;

pub(super) fn list(
    accept: Accept,
    listing: Listing,
    shown: &Shown,
    include: &str,
) -> Response<Body> {
    match (accept.view, accept.encoding) {
        (View::Whole, Encoding::Json) => whole(listing, shown, accept.gzip),
        (View::Whole, encoding) => encode::value(200, encoding, &tree(listing, shown)),
        (View::Table, encoding) => {
            let mut table = shown.table(&listing.objects, "", include);
            table["metadata"] = list_meta(&listing);
            encode::value(200, encoding, &table)
        }
        (View::Metadata | View::MetadataList, encoding) => {
            encode::value(200, encoding, &metadata(&listing))
        }
    }
}

fn tree(listing: Listing, shown: &Shown) -> Value {
    let text: Vec<u8> = Chunks::new(listing, shown).flat_map(|chunk| chunk.to_vec()).collect();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn metadata(listing: &Listing) -> Value {
    let item = |object: &Arc<Object>| partial(&object.to_value());
    json!({
        "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta(listing),
        "items": listing.objects.iter().map(item).collect::<Vec<_>>(),
    })
}

fn whole(listing: Listing, shown: &Shown, gzip: bool) -> Response<Body> {
    let size: usize = listing.objects.iter().map(|o| o.json().len()).sum();
    let mut chunks = Chunks::new(listing, shown);
    if size < CHUNK.min(GZIP_MIN) {
        let only: Bytes = chunks.next().unwrap_or_default();
        return with_body(200, "application/json", full(only));
    }
    if !gzip {
        return with_body(200, "application/json", stream::chunks(futures::stream::iter(chunks)));
    }
    let body = stream::chunks(futures::stream::iter(Gzipped { chunks, encoder: Some(encoder()) }));
    let mut response = with_body(200, "application/json", body);
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

fn encoder() -> GzEncoder<Vec<u8>> {
    // The original's level: any higher costs more time than it saves.
    GzEncoder::new(Vec::new(), Compression::fast())
}

/// A list's JSON text. Items are the objects' own bytes without their type, as the original lists
/// them.
struct Chunks {
    listing: Listing,
    shown: Shown,
    version: String,
    at: usize,
    ended: bool,
}

impl Chunks {
    fn new(listing: Listing, shown: &Shown) -> Chunks {
        let version = listing.row.api_version();
        Chunks { listing, shown: shown.clone(), version, at: 0, ended: false }
    }
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let Chunks { listing, shown, version, .. } = self;
        let mut out = BytesMut::with_capacity(CHUNK + CHUNK / 8);
        if self.at == 0 {
            let (kind, mut meta) = (listing.row.list_kind, list_meta(listing));
            if shown.custom.is_some() && meta["continue"].is_null() {
                // Lists of custom resources say it when there is no more.
                meta["continue"] = "".into();
            }
            let head = format!(
                r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{meta},"items":["#
            );
            out.put_slice(head.as_bytes());
        }
        while let Some(object) = listing.objects.get(self.at).filter(|_| out.len() < CHUNK) {
            if self.at > 0 {
                out.put_u8(b',');
            }
            match &shown.custom {
                // Items of custom resources carry their type.
                Some(_) => out.put_slice(&shown.json(object)),
                None if shown.is_converted() => {
                    let mut item = shown.tree(object);
                    if let Some(map) = item.as_object_mut() {
                        map.retain(|key, _| key != "kind" && key != "apiVersion");
                    }
                    out.put_slice(item.to_string().as_bytes());
                }
                None => {
                    out.put_u8(b'{');
                    out.put_slice(object.item(version, listing.row.kind));
                }
            }
            self.at += 1;
        }
        if self.at == listing.objects.len() {
            self.ended = true;
            out.put_slice(b"]}");
        }
        Some(out.freeze())
    }
}

/// Chunks, compressed.
struct Gzipped {
    chunks: Chunks,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Iterator for Gzipped {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let encoder = self.encoder.as_mut()?;
        for chunk in self.chunks.by_ref() {
            encoder.write_all(&chunk).ok()?;
            if !encoder.get_ref().is_empty() {
                return Some(std::mem::take(encoder.get_mut()).into());
            }
        }
        self.encoder.take()?.finish().ok().map(Bytes::from)
    }
}

fn list_meta(listing: &Listing) -> Value {
    let mut meta = json!({"resourceVersion": listing.revision.to_string()});
    if !listing.continue_token.is_empty() {
        meta["continue"] = listing.continue_token.as_str().into();
    }
    if let Some(remaining) = listing.remaining {
        meta["remainingItemCount"] = remaining.into();
    }
    meta
}
