//! Watches: changes as they happen, each in a frame of the encoding the client asked for.

use std::sync::Arc;

use api::proto;
use api::{Object, Status};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::Response;
use serde_json::{Value, json};

use super::{Accept, Body, Encoding, Shown, View, encode, partial, stream, with_body};
use crate::metrics::Sent;
use crate::verbs::watch::{Change, Watching};

pub(super) fn watch(
    mut watching: Watching,
    accept: Accept,
    shown: Shown,
    include: String,
) -> Response<Body> {
    let framing = Framing::of(accept.encoding);
    let sent = watching.sent.take();
    let encoder = Encoder { shown, accept, framing, include, headed: false, sent };
    let chunks = encoded(watching, encoder, Encoder::encode, Framing::failure);
    with_body(200, framing.content_type(), stream::chunks(chunks))
}

/// The same events for a WebSocket, each a message without the frame that separates it in a body.
pub fn messages(
    mut watching: Watching,
    accept: Accept,
    shown: Shown,
    include: String,
) -> (streams::messages::Framing, impl Stream<Item = Bytes> + Send + 'static) {
    let framing = Framing::of(accept.encoding);
    let sent = watching.sent.take();
    let encoder = Encoder { shown, accept, framing, include, headed: false, sent };
    let each = |encoder: &mut Encoder, changes: &[Change]| {
        let framing = encoder.framing;
        let one = |change| framing.unframed(encoder.encode(std::slice::from_ref(change)));
        changes.iter().map(one).collect::<Vec<Bytes>>()
    };
    let failure =
        |framing: Framing, status: &Status| vec![framing.unframed(framing.failure(status))];
    let events = encoded(watching, encoder, each, failure).flat_map(futures::stream::iter);
    let kind = match framing {
        Framing::Json => streams::messages::Framing::Text,
        Framing::Protobuf | Framing::Cbor => streams::messages::Framing::Binary,
    };
    (kind, events)
}

/// Packs changes that come together, until the watch ends. A watch that cannot go on (its revision was
/// compacted, or an object could not be converted) ends with the item that `failed` gives for the status.
fn encoded<T: Send + 'static>(
    watching: Watching,
    encoder: Encoder,
    pack: fn(&mut Encoder, &[Change]) -> T,
    failed: fn(Framing, &Status) -> T,
) -> impl Stream<Item = T> + Send + 'static {
    let deadline = tokio::time::Instant::now() + watching.timeout;
    futures::stream::unfold(Some((watching, encoder)), move |state| async move {
        let (mut watching, mut encoder) = state?;
        let chunk = tokio::select! {
            () = tokio::time::sleep_until(deadline) => return None,
            changes = watching.next() => match changes {
                Ok(changes) if changes.is_empty() => return None,
                Ok(changes) => pack(&mut encoder, &changes),
                Err(status) => return Some((failed(encoder.framing, &status), None)),
            },
        };
        Some((chunk, Some((watching, encoder))))
    })
}

/// How events follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// One JSON object a line.
    Json,
    /// Four bytes of length (big endian), then a `meta/v1.WatchEvent` whose object is sealed.
    Protobuf,
    /// CBOR items one after the other.
    Cbor,
}

impl Framing {
    fn of(encoding: Encoding) -> Framing {
        match encoding {
            Encoding::Protobuf => Framing::Protobuf,
            Encoding::Cbor => Framing::Cbor,
            // YAML has no frames; as upstream, such a watch is answered in JSON.
            Encoding::Json | Encoding::Yaml => Framing::Json,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Framing::Json => "application/json",
            Framing::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            Framing::Cbor => "application/cbor-seq",
        }
    }

    /// An event's object. What has no message goes as JSON, which clients tell by its first byte.
    fn tree(self, value: &Value) -> Vec<u8> {
        let message = match self {
            Framing::Json => None,
            Framing::Protobuf => encode::protobuf_bytes(value),
            Framing::Cbor => Some(encode::cbor_bytes(value)),
        };
        message.unwrap_or_else(|| value.to_string().into_bytes())
    }

    fn event(self, kind: &str, object: impl AsRef<[u8]>) -> Bytes {
        let mut out = BytesMut::new();
        self.write(&mut out, kind, object.as_ref());
        out.freeze()
    }

    fn failure(self, status: &Status) -> Bytes {
        self.event("ERROR", self.tree(&status.to_value()))
    }

    /// One event without the length that separates it from others.
    fn unframed(self, mut event: Bytes) -> Bytes {
        match self {
            Framing::Protobuf => event.split_off(event.len().min(4)),
            Framing::Json | Framing::Cbor => event,
        }
    }

    fn write(self, out: &mut BytesMut, kind: &str, object: &[u8]) {
        match self {
            Framing::Json => {
                for part in [br#"{"type":""#, kind.as_bytes(), br#"","object":"#, object, b"}\n"] {
                    out.extend_from_slice(part);
                }
            }
            // A map of two keys; the object is an item by itself, tag and all.
            Framing::Cbor => {
                let mut event = Vec::with_capacity(object.len() + 32);
                event.extend_from_slice(&api::cbor::SELF_DESCRIBED);
                event.extend_from_slice(b"\xa2\x44type");
                api::cbor::encode_untagged(&kind.into(), &mut event);
                event.extend_from_slice(b"\x46object");
                out.extend_from_slice(&event);
                out.extend_from_slice(object);
            }
            Framing::Protobuf => {
                let mut raw = proto::Writer::default();
                raw.bytes(1, object);
                let mut event = proto::Writer::default();
                event.bytes(1, kind.as_bytes());
                event.bytes(2, raw.written());
                let length = u32::try_from(event.written().len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(event.written());
            }
        }
    }
}

struct Encoder {
    shown: Shown,
    accept: Accept,
    framing: Framing,
    include: String,
    /// Column definitions were sent (tables send them once).
    headed: bool,
    sent: Option<Sent>,
}

impl Encoder {
    fn encode(&mut self, changes: &[Change]) -> Bytes {
        let mut out = BytesMut::new();
        for change in changes {
            let (kind, object) = match change {
                Change::Added(object) => ("ADDED", self.object(object)),
                Change::Modified(object) => ("MODIFIED", self.object(object)),
                Change::Deleted(object) => ("DELETED", self.object(object)),
                Change::Bookmark(revision, end) => ("BOOKMARK", self.bookmark(*revision, *end)),
            };
            self.framing.write(&mut out, kind, &object);
        }
        let is_listed = changes.iter().any(|change| matches!(change, Change::Bookmark(_, true)));
        if let Some(sent) = &self.sent {
            sent.add(changes.len(), out.len());
            if is_listed {
                sent.listed();
            }
        }
        out.freeze()
    }

    fn object(&mut self, object: &Arc<Object>) -> Bytes {
        let tree = match self.accept.view {
            View::Whole if self.framing == Framing::Json => {
                return self.shown.json(object);
            }
            View::Whole => self.shown.tree(object),
            View::Metadata | View::MetadataList => partial(&object.to_value()),
            View::Table => self.table(object),
        };
        Bytes::from(self.framing.tree(&tree))
    }

    fn table(&mut self, object: &Arc<Object>) -> Value {
        let revision = object.revision().to_string();
        let objects = std::slice::from_ref(object);
        let mut table = self.shown.table(objects, &revision, &self.include);
        if std::mem::replace(&mut self.headed, true)
            && let Some(map) = table.as_object_mut()
        {
            map.insert("columnDefinitions".into(), Value::Null);
        }
        table
    }

    fn bookmark(&self, revision: u64, end: bool) -> Bytes {
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.accept.view {
            View::Whole => {
                json!({"kind": self.shown.row.kind, "apiVersion": self.shown.row.api_version(), "metadata": meta})
            }
            View::Metadata | View::MetadataList => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
            }
            View::Table => {
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": [], "rows": []})
            }
        };
        Bytes::from(self.framing.tree(&object))
    }
}
