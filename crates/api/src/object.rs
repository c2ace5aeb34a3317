//! An API object as it travels through the process: immutable, shared, encoded once.
//!
//! The canonical JSON bytes are what GET, LIST and every watcher send. The small index beside
//! them answers selectors, owner look-ups and deletion checks without parsing again. Typed forms
//! are made by those who need them (`decode`), because keeping every object decoded is what makes
//! upstream's caches several times the size of the data (kubernetes/kubernetes#142062).

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::apply::is_folded;

/// One object at one revision.
pub struct Object {
    json: Bytes,
    /// Where the digits of `metadata.resourceVersion` stand in `json`.
    revision_at: Range<u32>,
    meta: Meta,
}

/// An encoded object that has no revision yet: what a writer hands to the store.
#[derive(Debug, Clone)]
pub struct Draft {
    json: Vec<u8>,
    /// Where `"resourceVersion":"…",` goes: first in `metadata`.
    splice_at: usize,
    meta: Meta,
}

impl Draft {
    /// Encodes `value`, leaving out its `metadata.resourceVersion`.
    pub fn new(value: &Value, selectable: &[&str]) -> Draft {
        let (json, splice_at) = encode(value);
        Draft { json, splice_at, meta: Meta::of(value, 0, selectable) }
    }

    /// The bytes to keep: the object without a revision, which the store keeps beside them.
    pub fn stored(&self) -> &[u8] {
        &self.json
    }

    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The object as of `revision`.
    pub fn at(self, revision: u64) -> Object {
        let Draft { json, splice_at, mut meta } = self;
        meta.revision = revision;
        let digits = revision.to_string();
        let mut out = Vec::with_capacity(json.len() + digits.len() + 21);
        out.extend_from_slice(&json[..splice_at]);
        out.extend_from_slice(b"\"resourceVersion\":\"");
        let start = out.len();
        out.extend_from_slice(digits.as_bytes());
        let revision_at = start as u32..out.len() as u32;
        out.push(b'"');
        if json[splice_at] != b'}' {
            out.push(b',');
        }
        out.extend_from_slice(&json[splice_at..]);
        Object { json: Bytes::from(out), revision_at, meta }
    }
}

const TYPE_KEYS: [&str; 2] = ["apiVersion", "kind"];

/// Encodes an object without its revision, and tells where in `metadata` that goes.
fn encode(value: &Value) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(1024);
    let mut splice_at = 0;
    let empty = Map::new();
    let map = value.as_object().unwrap_or(&empty);
    // The type comes first, so that a list can cut it off its items at a known place.
    let head = TYPE_KEYS.iter().filter_map(|key| map.get_key_value(*key));
    let rest = map.iter().filter(|(key, _)| !TYPE_KEYS.contains(&key.as_str()));
    for (i, (key, field)) in head.chain(rest).enumerate() {
        out.push(if i == 0 { b'{' } else { b',' });
        write_json(&mut out, key);
        out.push(b':');
        if key == "metadata" {
            splice_at = out.len() + 1;
            let meta = field.as_object().unwrap_or(&empty);
            write_meta(&mut out, meta);
        } else {
            write_json(&mut out, field);
        }
    }
    if splice_at == 0 {
        // Without metadata there would be no place for the revision.
        out.extend_from_slice(if out.is_empty() { b"{" } else { b"," });
        out.extend_from_slice(br#""metadata":{}"#);
        splice_at = out.len() - 1;
    }
    out.push(b'}');
    (out, splice_at)
}

/// Metadata without its revision; a folded list of managers ([`crate::apply::folded`]) as the text that it is.
fn write_meta(out: &mut Vec<u8>, meta: &Map<String, Value>) {
    out.push(b'{');
    let entries = meta.iter().filter(|(key, _)| key.as_str() != "resourceVersion");
    for (i, (key, value)) in entries.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_json(out, key);
        out.push(b':');
        match value {
            Value::String(text) if key == "managedFields" && is_folded(text) => {
                out.extend_from_slice(text.as_bytes());
            }
            value => write_json(out, value),
        }
    }
    out.push(b'}');
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("a JSON value always encodes into memory");
}

/// The parts of `metadata`, and of the selectable fields, that the machinery looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Empty for cluster-scoped objects.
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    /// Store revision of the write that made this state; 0 before it is stored.
    pub revision: u64,
    pub generation: i64,
    /// Sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    pub owners: Box<[Owner]>,
    pub finalizers: Box<[Box<str>]>,
    /// RFC 3339, present once deletion was asked for.
    pub deletion_timestamp: Option<Box<str>>,
    /// Values of the resource's selectable fields, in the order its registry row lists them.
    pub fields: Box<[Box<str>]>,
}

/// An entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub api_version: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

impl Object {
    /// Encodes and indexes `value` as of `revision`; `selectable` are dotted paths.
    pub fn new(value: &Value, revision: u64, selectable: &[&str]) -> Object {
        Draft::new(value, selectable).at(revision)
    }

    /// Reads an object that was encoded elsewhere (a store's value, a watch event's object).
    pub fn from_json(json: &[u8], selectable: &[&str]) -> Result<Object, serde_json::Error> {
        let value: Value = serde_json::from_slice(json)?;
        let revision = value["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok());
        Ok(Object::new(&value, revision.unwrap_or(0), selectable))
    }

    /// The same state as of another revision: what a deletion event carries.
    pub fn at(&self, revision: u64) -> Object {
        let digits = revision.to_string();
        let Range { start, end } = self.revision_at.clone();
        let mut out = Vec::with_capacity(self.json.len() + digits.len());
        out.extend_from_slice(&self.json[..start as usize]);
        out.extend_from_slice(digits.as_bytes());
        out.extend_from_slice(&self.json[end as usize..]);
        let meta = Meta { revision, ..self.meta.clone() };
        Object { json: out.into(), revision_at: start..start + digits.len() as u32, meta }
    }

    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The bytes after the opening brace, without `apiVersion` and `kind` where these have exactly
    /// the given values: what a list's item consists of. An object of another version keeps them.
    pub fn item(&self, api_version: &str, kind: &str) -> &[u8] {
        let head = format!(r#"{{"apiVersion":"{api_version}","kind":"{kind}","#);
        self.json.strip_prefix(head.as_bytes()).unwrap_or(&self.json[1..])
    }

    /// The object's bytes as one of another version of its kind: only the type at their head differs.
    pub fn retyped(&self, api_version: &str, kind: &str) -> Bytes {
        let head = format!(r#"{{"apiVersion":"{api_version}","kind":"{kind}","#);
        if self.json.starts_with(head.as_bytes()) {
            return self.json.clone();
        }
        // Neither value holds a quote, so the fourth quote after each key ends its value.
        let quotes = self.json.iter().enumerate().filter(|(_, c)| **c == b'"').map(|(at, _)| at);
        match quotes.clone().nth(7).filter(|_| self.json.starts_with(br#"{"apiVersion":"#)) {
            Some(end) => Bytes::from([head.as_bytes(), &self.json[end + 2..]].concat()),
            None => self.json.clone(),
        }
    }

    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    pub fn revision(&self) -> u64 {
        self.meta.revision
    }

    /// The object as a mutable tree.
    pub fn to_value(&self) -> Value {
        serde_json::from_slice(&self.json).expect("an Object holds valid JSON")
    }

    /// The same with its managers as text (`apply::folded`).
    pub fn to_folded_value(&self) -> Value {
        crate::apply::read_folded(&self.json).expect("an Object holds valid JSON")
    }

    /// The object as a typed value, e.g. one of `k8s-openapi`'s; see [`crate::typed`].
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        crate::typed::from_slice(&self.json)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.meta;
        write!(f, "Object({}/{}@{})", m.namespace, m.name, m.revision)
    }
}

impl Meta {
    /// Reads the index off a decoded object.
    pub fn of(value: &Value, revision: u64, selectable: &[&str]) -> Meta {
        let empty = Map::new();
        let meta = value.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        Meta {
            namespace: text(meta.get("namespace")),
            name: text(meta.get("name")),
            uid: text(meta.get("uid")),
            revision,
            generation: meta.get("generation").and_then(Value::as_i64).unwrap_or(0),
            labels: labels_of(meta),
            owners: list(meta, "ownerReferences").iter().map(Owner::of).collect(),
            finalizers: list(meta, "finalizers").iter().map(|v| text(Some(v))).collect(),
            deletion_timestamp: meta
                .get("deletionTimestamp")
                .and_then(Value::as_str)
                .map(Box::from),
            fields: selectable.iter().map(|path| field_text(value, path)).collect(),
        }
    }

    /// The value of a label, if set.
    pub fn label(&self, key: &str) -> Option<&str> {
        let found = self.labels.binary_search_by(|(k, _)| k.as_ref().cmp(key));
        found.ok().map(|i| self.labels[i].1.as_ref())
    }

    /// The owner that manages this object, if any.
    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|o| o.controller)
    }
}

impl Owner {
    fn of(value: &Value) -> Owner {
        let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
        Owner {
            api_version: text(value.get("apiVersion")),
            kind: text(value.get("kind")),
            name: text(value.get("name")),
            uid: text(value.get("uid")),
            controller: flag("controller"),
            block_owner_deletion: flag("blockOwnerDeletion"),
        }
    }
}

/// What selectors see where a flag or a count is left out: Go's zero value of its type.
const ZEROES: [(&str, &str); 4] = [
    ("spec.hostNetwork", "false"),
    ("spec.unschedulable", "false"),
    ("status.replicas", "0"),
    ("status.successful", "0"),
];

/// A dotted path's value as the text that field selectors compare; absent text is empty.
pub fn field_text(value: &Value, path: &str) -> Box<str> {
    let found = path.split('.').try_fold(value, |at, key| at.get(key));
    match found {
        Some(Value::String(s)) => s.as_str().into(),
        Some(Value::Bool(b)) => if *b { "true" } else { "false" }.into(),
        Some(Value::Number(n)) => n.to_string().into(),
        Some(Value::Object(_)) if path == "source" => event_source(value),
        _ => ZEROES.iter().find(|(name, _)| *name == path).map_or("", |(_, zero)| zero).into(),
    }
}

/// Selectors ask of an event's source for its component; newer events name it elsewhere.
fn event_source(event: &Value) -> Box<str> {
    let component = text(event["source"].get("component"));
    if component.is_empty() { text(event.get("reportingComponent")) } else { component }
}

fn text(value: Option<&Value>) -> Box<str> {
    value.and_then(Value::as_str).unwrap_or("").into()
}

fn list<'a>(meta: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    meta.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn labels_of(meta: &Map<String, Value>) -> Box<[(Box<str>, Box<str>)]> {
    let Some(labels) = meta.get("labels").and_then(Value::as_object) else {
        return Box::default();
    };
    let mut all: Vec<(Box<str>, Box<str>)> =
        labels.iter().map(|(k, v)| (k.as_str().into(), text(Some(v)))).collect();
    all.sort();
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Webhooks and other writers of the store may put any text there.
    #[test]
    fn a_text_in_the_place_of_managers_never_breaks_the_encoding() {
        for text in ["x", "", r#"[],"name":"b""#, r#"[{"a":1}"#, "null", "{}"] {
            let value = serde_json::json!({"metadata": {"managedFields": text, "name": "a"}});
            let object = Object::new(&value, 1, &[]);
            assert_eq!(object.to_value()["metadata"]["managedFields"], text);
            assert_eq!(object.to_value()["metadata"]["name"], "a");
            let mut read = object.to_value();
            crate::apply::unfold(&mut read);
            assert_eq!(read, object.to_value());
        }
    }

    #[test]
    fn the_revision_is_spliced_into_metadata_only() {
        let value = serde_json::json!({
            "involvedObject": {"metadata": {"resourceVersion": "5"}, "resourceVersion": "7"},
            "metadata": {"name": "a", "resourceVersion": "3"},
        });
        let object = Object::new(&value, 12, &[]);
        let expected = r#"{"involvedObject":{"metadata":{"resourceVersion":"5"},"resourceVersion":"7"},"metadata":{"resourceVersion":"12","name":"a"}}"#;
        assert_eq!(object.json(), expected);
        let later = object.at(1000);
        assert_eq!(later.to_value()["metadata"]["resourceVersion"], "1000");
        assert_eq!(later.at(12).json(), expected);
    }

    #[test]
    fn whatever_is_encoded_has_a_place_for_its_revision() {
        for (value, expected) in [
            ("{}", r#"{"metadata":{"resourceVersion":"3"}}"#),
            (r#"{"a":1}"#, r#"{"a":1,"metadata":{"resourceVersion":"3"}}"#),
            (r#"{"metadata":null,"z":1}"#, r#"{"metadata":{"resourceVersion":"3"},"z":1}"#),
        ] {
            let value: Value = serde_json::from_str(value).expect("JSON");
            assert_eq!(Object::new(&value, 3, &[]).json(), expected);
        }
    }

    #[test]
    fn an_item_has_no_type() {
        let value = serde_json::json!({"data": {}, "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}});
        let object = Object::new(&value, 2, &[]);
        let item = object.item("v1", "ConfigMap");
        assert_eq!(item, br#""data":{},"metadata":{"resourceVersion":"2","name":"a"}}"#);
        assert!(object.item("other/v1", "ConfigMap").starts_with(br#""apiVersion":"v1","#));
    }

    #[test]
    fn another_version_differs_at_the_head_only() {
        let value = serde_json::json!({"data": {"a": "b"}, "kind": "K", "apiVersion": "g/v1", "metadata": {"name": "a"}});
        let object = Object::new(&value, 2, &[]);
        assert_eq!(object.retyped("g/v1", "K"), object.json());
        let want = r#"{"apiVersion":"g/v2","kind":"K","data":{"a":"b"},"metadata":{"resourceVersion":"2","name":"a"}}"#;
        assert_eq!(object.retyped("g/v2", "K"), want);
    }

    #[test]
    fn empty_metadata_is_spliced_too() {
        let object = Object::new(&serde_json::json!({"metadata": {}}), 1, &[]);
        assert_eq!(object.json(), r#"{"metadata":{"resourceVersion":"1"}}"#);
    }

    #[test]
    fn a_null_counts_as_left_out_where_a_value_is_required() {
        #[derive(serde::Deserialize)]
        struct Condition {
            #[serde(default)]
            time: String,
        }
        #[derive(serde::Deserialize)]
        struct Typed {
            conditions: Vec<Condition>,
        }
        let value = serde_json::json!({"metadata": {"name": "a"}, "conditions": [{"time": null}]});
        let typed: Typed = Object::new(&value, 1, &[]).decode().unwrap();
        assert_eq!(typed.conditions[0].time, "");
    }

    #[test]
    fn selectors_see_what_is_left_out_as_its_zero_value() {
        let node = serde_json::json!({"metadata": {"name": "n"}, "spec": {}});
        assert_eq!(&*field_text(&node, "spec.unschedulable"), "false");
        assert_eq!(&*field_text(&node, "spec.nodeName"), "");
    }
}
