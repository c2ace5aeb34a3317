//! Spans: named stretches of work.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::context::SpanContext;
use crate::message::{AnyValue, KeyValue, Link, Status, any_value};
use crate::queue::Queue;

/// Longest text of an attribute, in bytes; more is cut off.
const TEXT_MAX: usize = 4 << 10;
/// Most attributes of a span (OpenTelemetry's default).
const ATTRIBUTES_MAX: usize = 128;
const ERROR: i32 = 2;

/// Which side of a request a span is (OTLP `SpanKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text[..text.floor_char_boundary(TEXT_MAX)].to_owned())
    }
}

impl From<String> for Value {
    fn from(mut text: String) -> Value {
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        Value::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Flag(flag)
    }
}

/// A span as others see it: what children and requests are begun with.
#[derive(Debug, Clone)]
pub(crate) struct Active {
    pub(crate) context: SpanContext,
    /// Absent where nothing is recorded, and contexts are only passed on.
    pub(crate) queue: Option<Arc<Queue>>,
}

/// A span under way; it ends when it is dropped.
#[derive(Debug)]
pub struct Span {
    pub(crate) active: Arc<Active>,
    /// Absent if the trace is not sampled.
    record: Option<Box<crate::message::Span>>,
}

impl Span {
    /// Contexts of the sender are passed on, and nothing is recorded.
    pub fn passing(context: SpanContext) -> Span {
        Span { active: Arc::new(Active { context, queue: None }), record: None }
    }

    pub(crate) fn begin(
        active: Active,
        parent: Option<[u8; 8]>,
        (name, kind): (&str, Kind),
    ) -> Span {
        let context = &active.context;
        let record = context.sampled.then(|| {
            Box::new(crate::message::Span {
                trace_id: context.trace.to_vec(),
                span_id: context.span.to_vec(),
                trace_state: context.state.clone(),
                parent_span_id: parent.map(|id| id.to_vec()).unwrap_or_default(),
                name: name.to_owned(),
                kind: kind as i32,
                start_time_unix_nano: now(),
                ..crate::message::Span::default()
            })
        });
        Span { active: Arc::new(active), record }
    }

    /// Its identity.
    pub fn context(&self) -> &SpanContext {
        &self.active.context
    }

    /// Whether attributes are of any use.
    pub fn is_recorded(&self) -> bool {
        self.record.is_some()
    }

    /// Adds an attribute.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let Some(record) = &mut self.record else { return };
        if record.attributes.len() < ATTRIBUTES_MAX {
            record.attributes.push(attribute(key, value.into()));
        }
    }

    /// It is about the request of another trace.
    pub fn link(&mut self, to: &SpanContext) {
        let Some(record) = &mut self.record else { return };
        record.links.push(Link {
            trace_id: to.trace.to_vec(),
            span_id: to.span.to_vec(),
            trace_state: to.state.clone(),
        });
    }

    /// The work failed.
    pub fn fail(&mut self, why: &str) {
        let Some(record) = &mut self.record else { return };
        let message = why[..why.floor_char_boundary(TEXT_MAX)].to_owned();
        record.status = Some(Status { message, code: ERROR });
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let (Some(mut record), Some(queue)) = (self.record.take(), &self.active.queue) {
            record.end_time_unix_nano = now();
            queue.put(*record);
        }
    }
}

/// Begins a span below another, which decides whether it is recorded.
pub(crate) fn child(queue: &Arc<Queue>, parent: &SpanContext, about: (&str, Kind)) -> Span {
    let context = SpanContext { span: id(), ..parent.clone() };
    let active = Active { context, queue: Some(queue.clone()) };
    Span::begin(active, Some(parent.span), about)
}

pub(crate) fn id() -> [u8; 8] {
    random().max(1).to_be_bytes()
}

/// From the parts of a UUID that are random as a whole.
pub(crate) fn random() -> u64 {
    let [a, b, c, d, .., w, x, y, z] = *uuid::Uuid::new_v4().as_bytes();
    u64::from_be_bytes([a, b, c, d, w, x, y, z])
}

pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::String(text),
        Value::Number(number) => any_value::Value::Int(number),
        Value::Flag(flag) => any_value::Value::Bool(flag),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
