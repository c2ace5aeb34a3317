//! Lists: the objects' own bytes, sent in chunks, so that a list of the whole cluster is never in
//! memory a second time.

use std::io::Write;

use api::Object;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};

use super::table;
use super::{
    Accept, Body, Encoding, Shown, View, encode, full, partial, stream, with_body, with_type,
};
use crate::verbs::list::Listing;
use strategy::offload;

/// Bytes of a chunk: large enough that its making and sending cost little beside its copying.
const CHUNK: usize = 128 * 1024;
/// Shortest body that is compressed (upstream's `defaultGzipThresholdBytes`).
const GZIP_MIN: usize = 128 * 1024;

/// Whether a list is made object by object while it is sent (or, in protobuf, while its bytes are
/// put together), so that no tree of all of it is ever in memory.
pub(super) fn is_streamed(accept: Accept) -> bool {
    let is_whole = accept.view == View::Whole;
    accept.encoding == Encoding::Json || is_whole && accept.encoding == Encoding::Protobuf
}

pub(super) fn list(
    accept: Accept,
    listing: Listing,
    shown: &Shown,
    include: &str,
) -> Response<Body> {
    match (accept.view, accept.encoding) {
        (view, Encoding::Json) => json(listing, shown, Form::of(view, include), accept.gzip),
        (View::Whole, Encoding::Protobuf) => match protobuf(&listing, shown) {
            Some(bytes) => with_type(200, "application/vnd.kubernetes.protobuf", bytes),
            None => json(listing, shown, Form::Whole, accept.gzip),
        },
        (view, encoding) => {
            encode::value(200, encoding, &tree(listing, shown, Form::of(view, include)))
        }
    }
}

fn tree(listing: Listing, shown: &Shown, form: Form) -> Value {
    let text: Vec<u8> =
        Chunks::new(listing, shown, form).flat_map(|chunk| chunk.to_vec()).collect();
    serde_json::from_slice(&text).expect("a list made here is JSON")
}

/// Lists have their metadata in field 1 and their items in field 2, whatever the kind.
fn protobuf(listing: &Listing, shown: &Shown) -> Option<Vec<u8>> {
    let row = listing.row;
    let item = encode::Typed::find(row.group, row.version, row.kind)?;
    let mut out = api::proto::Writer::default();
    out.bytes(1, &encode::list_meta(&list_meta(listing))?);
    for object in &listing.objects {
        offload::one_large(object.json().len(), || out.bytes(2, &item.bytes(&shown.tree(object))));
    }
    Some(api::proto::seal(&row.api_version(), row.list_kind, out.written()))
}

fn json(listing: Listing, shown: &Shown, form: Form, gzip: bool) -> Response<Body> {
    let size: usize = listing.objects.iter().map(|o| o.json().len()).sum();
    let mut chunks = Chunks::new(listing, shown, form);
    if size < CHUNK.min(GZIP_MIN) {
        let only: Vec<u8> = match chunks.next() {
            Some(first) if chunks.ended => return with_body(200, "application/json", full(first)),
            first => first.into_iter().chain(chunks).flatten().collect(),
        };
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
    // Upstream's level: any higher costs more time than it saves.
    GzEncoder::new(Vec::new(), Compression::fast())
}

/// The form of a list and its items.
enum Form {
    /// The objects' own bytes.
    Whole,
    Metadata,
    Table {
        /// `Object`, `Metadata` or `None`.
        include: String,
    },
}

impl Form {
    fn of(view: View, include: &str) -> Form {
        match view {
            View::Whole => Form::Whole,
            View::Metadata | View::MetadataList => Form::Metadata,
            View::Table => Form::Table { include: include.to_owned() },
        }
    }
}

/// A list's JSON text. Items are the objects' own bytes without their type, as upstream lists them.
struct Chunks {
    listing: Listing,
    shown: Shown,
    form: Form,
    version: String,
    at: usize,
    ended: bool,
}

impl Chunks {
    fn new(listing: Listing, shown: &Shown, form: Form) -> Chunks {
        let version = listing.row.api_version();
        Chunks { listing, shown: shown.clone(), form, version, at: 0, ended: false }
    }

    /// Everything before the items.
    fn head(&self) -> String {
        let (kind, version) = (self.listing.row.list_kind, &self.version);
        let mut meta = list_meta(&self.listing);
        match &self.form {
            Form::Whole => {
                if self.shown.strategy.has_typed_items() && meta["continue"].is_null() {
                    // Lists of custom resources say it when there is no more.
                    meta["continue"] = "".into();
                }
                format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{meta},"items":["#)
            }
            Form::Metadata => format!(
                r#"{{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{meta},"items":["#
            ),
            Form::Table { .. } => {
                let columns = Value::Array(table::columns(&self.shown));
                format!(
                    r#"{{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{meta},"columnDefinitions":{columns},"rows":["#
                )
            }
        }
    }

    /// Whether items are the stored bytes, for which no tree is built.
    fn is_copied(&self) -> bool {
        matches!(self.form, Form::Whole) && !self.shown.is_converted()
    }

    fn put_item(&self, object: &Object, out: &mut BytesMut) {
        let shown = &self.shown;
        match &self.form {
            Form::Metadata => out.put_slice(partial(&object.to_value()).to_string().as_bytes()),
            Form::Table { include } => {
                let row = table::row(shown, shown.tree(object), include);
                out.put_slice(row.to_string().as_bytes());
            }
            Form::Whole if shown.strategy.has_typed_items() => out.put_slice(&shown.json(object)),
            Form::Whole if shown.is_converted() => {
                let mut item = shown.tree(object);
                if let Some(map) = item.as_object_mut() {
                    map.retain(|key, _| key != "kind" && key != "apiVersion");
                }
                out.put_slice(item.to_string().as_bytes());
            }
            Form::Whole => {
                out.put_u8(b'{');
                out.put_slice(object.item(&self.version, self.listing.row.kind));
            }
        }
    }
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = BytesMut::with_capacity(CHUNK + CHUNK / 8);
        if self.at == 0 {
            out.put_slice(self.head().as_bytes());
        }
        while let Some(object) = self.listing.objects.get(self.at).filter(|_| out.len() < CHUNK) {
            if self.at > 0 {
                out.put_u8(b',');
            }
            let size = if self.is_copied() { 0 } else { object.json().len() };
            offload::one_large(size, || self.put_item(object, &mut out));
            self.at += 1;
        }
        if self.at == self.listing.objects.len() {
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
