//! One event, in upstream's form.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use auth::RequestInfo;
use jiff::Timestamp;
use serde_json::Value;

use crate::policy::Level;
use crate::stage::Stage;

/// The parts of an event; those that are objects are JSON already.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) level: Level,
    pub(crate) id: String,
    /// URI, verb and user: `,"requestURI":…`.
    pub(crate) request: String,
    pub(crate) impersonated: Option<String>,
    pub(crate) source: String,
    pub(crate) agent: String,
    pub(crate) object: Option<ObjectRef>,
    pub(crate) response_status: Option<String>,
    pub(crate) request_object: Option<Arc<str>>,
    pub(crate) response_object: Option<Arc<str>>,
    pub(crate) received: Timestamp,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What the request is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObjectRef {
    /// In upstream's order: resource, namespace, name, uid, apiGroup, apiVersion, resourceVersion, subresource.
    fields: [String; 8],
}

const FIELDS: [&str; 8] = [
    "resource",
    "namespace",
    "name",
    "uid",
    "apiGroup",
    "apiVersion",
    "resourceVersion",
    "subresource",
];

impl ObjectRef {
    pub(crate) fn of(info: &RequestInfo) -> ObjectRef {
        let none = "";
        let fields = [
            &info.resource,
            &info.namespace,
            &info.name,
            none,
            &info.group,
            &info.version,
            none,
            &info.subresource,
        ];
        ObjectRef { fields: fields.map(str::to_owned) }
    }

    /// Fills in what the path did not say.
    pub(crate) fn complete(&mut self, meta: &Value) {
        for (index, key) in [(1, "namespace"), (2, "name"), (3, "uid"), (6, "resourceVersion")] {
            if self.fields[index].is_empty() {
                meta[key].as_str().unwrap_or("").clone_into(&mut self.fields[index]);
            }
        }
    }

    pub(crate) fn text(&self) -> String {
        let set = FIELDS.iter().zip(&self.fields).filter(|(_, value)| !value.is_empty());
        let parts: Vec<String> =
            set.map(|(name, value)| format!("\"{name}\":{}", quoted(value))).collect();
        format!("{{{}}}", parts.join(","))
    }
}

/// What is known of a request at a stage.
#[derive(Debug, Clone)]
pub struct Event {
    pub(crate) stage: Stage,
    pub(crate) at: Timestamp,
    pub(crate) facts: Facts,
}

/// The annotation of an event whose objects are left out (upstream's truncating backend).
const TRUNCATED: &str = "audit.k8s.io/truncated";

impl Event {
    /// The event without what it is too large for, and a note of that.
    pub(crate) fn truncated(mut self) -> Event {
        self.facts.request_object = None;
        self.facts.response_object = None;
        self.facts.annotations.insert(TRUNCATED.into(), "true".into());
        self
    }

    /// A JSON object of its own.
    pub fn text(&self) -> String {
        self.written(r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#)
    }

    /// As an item of a list.
    pub fn item(&self) -> String {
        self.written("{")
    }

    fn written(&self, head: &str) -> String {
        let facts = &self.facts;
        let mut out = String::with_capacity(768);
        out.push_str(head);
        let level = facts.level.name();
        let stage = self.stage.name();
        let _ =
            write!(out, r#""level":"{level}","auditID":{},"stage":"{stage}""#, quoted(&facts.id));
        out.push_str(&facts.request);
        let parts = [
            ("impersonatedUser", facts.impersonated.as_deref()),
            ("sourceIPs", (!facts.source.is_empty()).then_some(facts.source.as_str())),
        ];
        parts.iter().for_each(|(name, part)| push(&mut out, name, *part));
        if !facts.agent.is_empty() {
            push(&mut out, "userAgent", Some(&quoted(&facts.agent)));
        }
        push(&mut out, "objectRef", facts.object.as_ref().map(|object| object.text()).as_deref());
        push(&mut out, "responseStatus", facts.response_status.as_deref());
        push(&mut out, "requestObject", facts.request_object.as_deref());
        push(&mut out, "responseObject", facts.response_object.as_deref());
        let (received, at) = (micro(facts.received), micro(self.at));
        let _ = write!(out, r#","requestReceivedTimestamp":"{received}","stageTimestamp":"{at}""#);
        if !facts.annotations.is_empty() {
            let text = serde_json::to_string(&facts.annotations).unwrap_or_default();
            push(&mut out, "annotations", Some(&text));
        }
        out.push('}');
        out
    }
}

fn push(out: &mut String, name: &str, part: Option<&str>) {
    if let Some(part) = part {
        let _ = write!(out, r#","{name}":{part}"#);
    }
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// `MicroTime`: microseconds, always six digits.
fn micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
