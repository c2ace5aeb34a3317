//! An API object as it travels through the process: immutable, shared, encoded once.
//!
//! The canonical JSON bytes are what GET, LIST and every watcher send. The small index beside
//! them answers selectors, owner look-ups and deletion checks without parsing again. Typed forms
//! are made by those who need them (`decode`), because keeping every object decoded is what makes
//! the original's caches several times the size of the data (kubernetes/kubernetes#142062).

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// One object at one revision.
pub struct Object {
    json: Bytes,
    meta: Meta,
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
    /// Encodes `value` (whose `metadata.resourceVersion` is overwritten by `revision`, unless that
    /// is 0) and indexes it; `selectable` are dotted paths.
    pub fn new(mut value: Value, revision: u64, selectable: &[&str]) -> Object {
        if revision != 0 {
            set_revision(&mut value, revision);
        }
        let meta = Meta::of(&value, revision, selectable);
        let json = serde_json::to_vec(&value).expect("a JSON value always encodes");
        Object { json: Bytes::from(json), meta }
    }

    /// Indexes bytes that were encoded elsewhere (a store's value, a watch event's object).
    pub fn from_json(json: Bytes, selectable: &[&str]) -> Result<Object, serde_json::Error> {
        let value: Value = serde_json::from_slice(&json)?;
        let revision = value["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok());
        let meta = Meta::of(&value, revision.unwrap_or(0), selectable);
        Ok(Object { json, meta })
    }

    /// Bytes and an index that are known to belong together.
    pub fn from_parts(json: Bytes, meta: Meta) -> Object {
        Object { json, meta }
    }

    pub fn json(&self) -> &Bytes {
        &self.json
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

    /// The object as a typed value, e.g. one of `k8s-openapi`'s.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.json)
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

/// Writes `metadata.resourceVersion`.
pub fn set_revision(value: &mut Value, revision: u64) {
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.insert("resourceVersion".into(), Value::String(revision.to_string()));
    }
}

/// A dotted path's value as the text that field selectors compare; absent is empty.
pub fn field_text(value: &Value, path: &str) -> Box<str> {
    let found = path.split('.').try_fold(value, |at, key| at.get(key));
    match found {
        Some(Value::String(s)) => s.as_str().into(),
        Some(Value::Bool(b)) => if *b { "true" } else { "false" }.into(),
        Some(Value::Number(n)) => n.to_string().into(),
        _ => "".into(),
    }
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
