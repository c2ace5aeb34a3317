//! Answers in the form the client asked for: JSON, YAML, tables, metadata only.

use std::convert::Infallible;
use std::sync::Arc;

use api::registry::Resource;
use api::schema::{Schema, Shape};
use api::{Object, Status};
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use crate::table;
use crate::verbs::Answer;
use crate::verbs::list::Listing;
use crate::verbs::watch::{Change, Watching};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// What `Accept` chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) encoding: Encoding,
    pub(crate) view: View,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Whole,
    Table,
    Metadata,
}

impl Accept {
    /// Reads the header; the first alternative that can be served wins. Watches are not served as
    /// protobuf.
    pub(crate) fn parse(header: &str, watch: bool) -> Result<Accept, Status> {
        let plain = Accept { encoding: Encoding::Json, view: View::Whole };
        if header.trim().is_empty() {
            return Ok(plain);
        }
        let choice = header.split(',').find_map(|alternative| {
            let mut parts = alternative.split(';').map(str::trim);
            let encoding = match parts.next()? {
                "application/json" | "*/*" | "application/*" => Encoding::Json,
                "application/yaml" => Encoding::Yaml,
                "application/vnd.kubernetes.protobuf" => Encoding::Protobuf,
                _ => return None,
            };
            let view = parts.filter_map(|p| p.strip_prefix("as=")).next();
            let view = match view {
                None => View::Whole,
                Some("Table") => View::Table,
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => View::Metadata,
                Some(_) => return None,
            };
            // Tables and their kin are served as JSON and YAML only; a client's list goes on to it.
            if encoding == Encoding::Protobuf && (view != View::Whole || watch) {
                return None;
            }
            Some(Accept { encoding, view })
        });
        choice.ok_or_else(|| Status::not_acceptable("application/json, application/yaml"))
    }
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

pub(crate) fn json_bytes(code: u16, bytes: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "application/json", bytes)
}

pub(crate) fn with_type(
    code: u16,
    content_type: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub(crate) fn value(code: u16, encoding: Encoding, value: &Value) -> Response<Body> {
    match encoding {
        Encoding::Json => json_bytes(code, value.to_string()),
        Encoding::Protobuf => protobuf(code, value),
        Encoding::Yaml => {
            let text = serde_yaml_ng::to_string(value).unwrap_or_default();
            with_type(code, "application/yaml", text)
        }
    }
}

/// A tree in protobuf; what has no message (an unknown type) stays JSON.
fn protobuf(code: u16, value: &Value) -> Response<Body> {
    let (version, kind) =
        (value["apiVersion"].as_str().unwrap_or(""), value["kind"].as_str().unwrap_or(""));
    let (group, short) = version.split_once('/').unwrap_or(("", version));
    let name = match kind {
        "Status" => "meta.v1.Status".to_owned(),
        _ => api::registry::type_name(group, short, kind),
    };
    let schema = Schema::built_in();
    match schema.find(&name) {
        Some(id) => {
            let message = api::proto::encode(schema, &Shape::Struct(id), value);
            let sealed = api::proto::seal(version, kind, &message);
            with_type(code, "application/vnd.kubernetes.protobuf", sealed)
        }
        None => json_bytes(code, value.to_string()),
    }
}

pub(crate) fn failure(status: &Status) -> Response<Body> {
    let mut response = json_bytes(status.code, status.to_value().to_string());
    let retry = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    if status.code == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// `Warning` headers (RFC 7234 §5.5, code 299 as the original's).
pub(crate) fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(header) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, header);
        }
    }
}

pub(crate) fn answer(
    answer: Answer,
    accept: Accept,
    row: &'static Resource,
    include: &str,
) -> Response<Body> {
    match answer {
        Answer::Object { code, object } => one(code, accept, row, &object, include),
        Answer::Tree { code, value: tree } => tree_answer(code, accept, row, tree, include),
        Answer::List(listing) => list(accept, &listing, include),
        Answer::Watch(watching) => watch(watching, accept, include.to_owned()),
    }
}

fn one(
    code: u16,
    accept: Accept,
    row: &Resource,
    object: &Arc<Object>,
    include: &str,
) -> Response<Body> {
    match (accept.view, accept.encoding) {
        (View::Whole, Encoding::Json) => json_bytes(code, object.json().clone()),
        (View::Whole, encoding) => value(code, encoding, &object.to_value()),
        (View::Table, encoding) => {
            let revision = object.revision().to_string();
            value(code, encoding, &table::of(row, std::slice::from_ref(object), &revision, include))
        }
        (View::Metadata, encoding) => value(code, encoding, &partial(&object.to_value())),
    }
}

fn tree_answer(
    code: u16,
    accept: Accept,
    row: &Resource,
    tree: Value,
    include: &str,
) -> Response<Body> {
    if tree["kind"] == "Status" || accept.view == View::Whole {
        return value(code, accept.encoding, &tree);
    }
    if accept.view == View::Metadata {
        return value(code, accept.encoding, &partial(&tree));
    }
    let object = Arc::new(Object::new(&tree, 0, row.selectable));
    value(code, accept.encoding, &table::of(row, &[object], "", include))
}

/// `PartialObjectMetadata` of an object.
pub(crate) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
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

fn list(accept: Accept, listing: &Listing, include: &str) -> Response<Body> {
    let row = listing.row;
    match (accept.view, accept.encoding) {
        (View::Whole, Encoding::Json) => json_bytes(200, list_bytes(listing)),
        (View::Whole, encoding) => {
            let tree: Value = serde_json::from_slice(&list_bytes(listing)).unwrap_or_default();
            value(200, encoding, &tree)
        }
        (View::Table, encoding) => {
            let mut table = table::of(row, &listing.objects, "", include);
            table["metadata"] = list_meta(listing);
            value(200, encoding, &table)
        }
        (View::Metadata, encoding) => {
            let items: Vec<Value> = listing
                .objects
                .iter()
                .map(|o| {
                    let mut item = partial(&o.to_value());
                    if let Some(map) = item.as_object_mut() {
                        map.remove("kind");
                        map.remove("apiVersion");
                    }
                    item
                })
                .collect();
            let tree = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": list_meta(listing), "items": items,
            });
            value(200, encoding, &tree)
        }
    }
}

/// Items are the objects' own bytes without their type, as the original lists them.
fn list_bytes(listing: &Listing) -> Bytes {
    let row = listing.row;
    let version = row.api_version();
    let size: usize = listing.objects.iter().map(|o| o.json().len() + 1).sum();
    let mut out = BytesMut::with_capacity(size + 256);
    out.put_slice(
        format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{version}\",\"metadata\":{},\"items\":[",
            row.kind,
            list_meta(listing)
        )
        .as_bytes(),
    );
    for (at, object) in listing.objects.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        out.put_u8(b'{');
        out.put_slice(object.item(&version, row.kind));
    }
    out.put_slice(b"]}");
    out.freeze()
}

/// Between bookmarks of a quiet watch (the original sends one about every minute).
const BOOKMARK_PERIOD: std::time::Duration = std::time::Duration::from_secs(60);

fn watch(watching: Watching, accept: Accept, include: String) -> Response<Body> {
    let row = watching.row;
    let deadline = tokio::time::Instant::now() + watching.timeout;
    let start = Some((watching, Encoder { row, accept, include, headed: false }));
    let chunks = futures::stream::unfold(start, move |state| async move {
        let (mut watching, mut encoder) = state?;
        let period = if watching.bookmarks { BOOKMARK_PERIOD } else { BOOKMARK_PERIOD * 1000 };
        let chunk = tokio::select! {
            () = tokio::time::sleep_until(deadline) => return None,
            changes = watching.next() => match changes {
                Ok(changes) => encoder.encode(&changes),
                // The log went past this watcher: it is told, and the stream ends.
                Err(expired) => {
                    let status = Status::gone(expired.to_string());
                    return Some((error_line(&status), None));
                }
            },
            () = tokio::time::sleep(period) => encoder.encode(&[watching.bookmark()]),
        };
        Some((chunk, Some((watching, encoder))))
    });
    let body = StreamBody::new(chunks.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))));
    let mut response = Response::new(BodyExt::boxed(SyncBody::new(body)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn error_line(status: &Status) -> Bytes {
    let line = json!({"type": "ERROR", "object": status.to_value()});
    Bytes::from(format!("{line}\n"))
}

struct Encoder {
    row: &'static Resource,
    accept: Accept,
    include: String,
    /// Column definitions were sent (tables send them once).
    headed: bool,
}

impl Encoder {
    fn encode(&mut self, changes: &[Change]) -> Bytes {
        let mut out = BytesMut::new();
        for change in changes {
            match change {
                Change::Added(object) => self.object(&mut out, "ADDED", object),
                Change::Modified(object) => self.object(&mut out, "MODIFIED", object),
                Change::Deleted(object) => self.object(&mut out, "DELETED", object),
                Change::Bookmark(revision, end) => self.bookmark(&mut out, *revision, *end),
            }
        }
        out.freeze()
    }

    fn object(&mut self, out: &mut BytesMut, kind: &str, object: &Arc<Object>) {
        out.put_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
        match self.accept.view {
            View::Whole => out.put_slice(object.json()),
            View::Metadata => out.put_slice(partial(&object.to_value()).to_string().as_bytes()),
            View::Table => {
                let revision = object.revision().to_string();
                let objects = std::slice::from_ref(object);
                let mut table = table::of(self.row, objects, &revision, &self.include);
                if std::mem::replace(&mut self.headed, true)
                    && let Some(map) = table.as_object_mut()
                {
                    map.insert("columnDefinitions".into(), Value::Null);
                }
                out.put_slice(table.to_string().as_bytes());
            }
        }
        out.put_slice(b"}\n");
    }

    fn bookmark(&self, out: &mut BytesMut, revision: u64, end: bool) {
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.accept.view {
            View::Whole => {
                json!({"kind": self.row.kind, "apiVersion": self.row.api_version(), "metadata": meta})
            }
            View::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
            }
            View::Table => {
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": [], "rows": []})
            }
        };
        out.put_slice(json!({"type": "BOOKMARK", "object": object}).to_string().as_bytes());
        out.put_u8(b'\n');
    }
}

/// A stream body is `Send` but not `Sync`; hyper's boxed body wants both. Polling takes `&mut`, so
/// sharing never happens.
struct SyncBody<B>(std::sync::Mutex<std::pin::Pin<Box<B>>>);

impl<B> SyncBody<B> {
    fn new(body: B) -> SyncBody<B> {
        SyncBody(std::sync::Mutex::new(Box::pin(body)))
    }
}

impl<B: hyper::body::Body> hyper::body::Body for SyncBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let inner = &mut self.get_mut().0;
        inner.get_mut().unwrap_or_else(|p| p.into_inner()).as_mut().poll_frame(cx)
    }
}

/// A boxed body from any stream of chunks (proxied answers).
pub(crate) fn stream<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    BodyExt::boxed(SyncBody::new(body))
}
