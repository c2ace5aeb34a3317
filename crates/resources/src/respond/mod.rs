//! Answers in the form the client asked for: JSON, YAML, protobuf, tables, metadata only.

mod accept;
mod encode;
mod list;
mod stream;
mod table;
mod warnings;
mod watch;

use std::convert::Infallible;
use std::sync::Arc;

use api::registry::Resource;
use api::{Object, Status};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::verbs::Answer;
use strategy::ResourceStrategy;

pub use accept::{Accept, Encoding, View};
pub use encode::value;
pub use stream::{kept, stream, until};
pub use warnings::add_warnings;
pub use watch::messages;

/// What an answer's objects are shown as.
#[derive(Debug, Clone)]
pub struct Shown {
    pub row: &'static Resource,
    pub strategy: Arc<dyn ResourceStrategy>,
    /// The answer's objects are in that form already.
    ready: bool,
}

impl Shown {
    pub fn new(row: &'static Resource, strategy: Arc<dyn ResourceStrategy>) -> Shown {
        let ready = strategy.selects_in_version();
        Shown { row, strategy, ready }
    }

    /// The object's JSON in the version that was asked for.
    fn json(&self, object: &Object) -> Bytes {
        if self.ready { object.json().clone() } else { self.strategy.json(object) }
    }

    fn tree(&self, object: &Object) -> Value {
        let mut tree = object.to_value();
        if !self.ready {
            self.strategy.show(&mut tree);
        }
        tree
    }

    /// Is what is stored not what is shown?
    fn is_converted(&self) -> bool {
        self.strategy.is_converted()
    }

    fn table(&self, objects: &[Arc<Object>], revision: &str, include: &str) -> Value {
        let trees = objects.iter().map(|object| self.tree(object));
        table::of(self, trees, revision, include)
    }
}

/// Marks an answer as a stream: its client may be silent for as long as it likes.
#[derive(Clone, Copy, Debug)]
pub struct Streaming;

/// Marks an answer whose bytes others send, too: it takes no memory of its own.
#[derive(Clone, Copy, Debug)]
pub struct SharedBytes;

/// Room that is held while an answer is sent.
pub type Unsent = Arc<tokio::sync::OwnedSemaphorePermit>;

/// Any answer's body.
pub type Body = BoxBody<Bytes, Infallible>;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

pub fn json_bytes(code: u16, bytes: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "application/json", bytes)
}

pub fn with_type(code: u16, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    with_body(code, content_type, full(bytes))
}

/// An answer of bytes that are kept anyway.
pub fn shared(code: u16, content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = with_type(code, content_type, bytes);
    response.extensions_mut().insert(SharedBytes);
    response
}

fn with_body(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// An answer without a body.
pub fn with_code(code: u16) -> Response<Body> {
    let mut response = with_type(code, "application/json", "");
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

/// A failure in the form that the client asked for, if that can be told.
pub fn failure(status: &Status, encoding: Encoding) -> Response<Body> {
    let mut response = value(status.code, encoding, &status.to_value());
    let retry = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    if status.code == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Bytes of JSON that become trees when an answer is put into its form; 0 where stored bytes are
/// sent as they are.
pub fn trees_of(answer: &Answer, accept: Accept, shown: &Shown) -> usize {
    let as_stored = (accept.view, accept.encoding) == (View::Whole, Encoding::Json);
    match answer {
        Answer::Object { object, .. } if !as_stored || shown.is_converted() => object.json().len(),
        // Made object by object while it is sent.
        Answer::List(listing) if !list::is_streamed(accept) => {
            listing.objects.iter().map(|object| object.json().len()).sum()
        }
        _ => 0,
    }
}

pub fn answer(answer: Answer, accept: Accept, shown: Shown, include: &str) -> Response<Body> {
    match answer {
        Answer::Object { code, object } => one(code, accept, &shown, &object, include),
        Answer::Tree { code, value: tree } => tree_answer(code, accept, &shown, tree, include),
        Answer::List(listing) => list::list(accept, listing, &shown, include),
        Answer::Watch(watching) => watch::watch(watching, accept, shown, include.to_owned()),
    }
}

fn one(
    code: u16,
    accept: Accept,
    shown: &Shown,
    object: &Arc<Object>,
    include: &str,
) -> Response<Body> {
    match (accept.view, accept.encoding) {
        (View::Whole, Encoding::Json) => json_bytes(code, shown.json(object)),
        (View::Whole, encoding) => value(code, encoding, &shown.tree(object)),
        (View::Table, encoding) => {
            let revision = object.revision().to_string();
            value(code, encoding, &shown.table(std::slice::from_ref(object), &revision, include))
        }
        (View::Metadata | View::MetadataList, encoding) => {
            value(code, encoding, &partial(&object.to_value()))
        }
    }
}

fn tree_answer(
    code: u16,
    accept: Accept,
    shown: &Shown,
    mut tree: Value,
    include: &str,
) -> Response<Body> {
    api::apply::unfold(&mut tree);
    if tree["kind"] == "Status" || accept.view == View::Whole {
        return value(code, accept.encoding, &tree);
    }
    if matches!(accept.view, View::Metadata | View::MetadataList) {
        return value(code, accept.encoding, &partial(&tree));
    }
    let table = match tree.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => table::of(shown, items.into_iter(), "", include),
        _ => table::of(shown, std::iter::once(tree), "", include),
    };
    value(code, accept.encoding, &table)
}

/// `PartialObjectMetadata` of an object.
pub fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}
