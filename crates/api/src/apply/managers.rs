//! `metadata.managedFields`, decoded: who owns what, since when.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::owned::Owned;
use super::set::FieldSet;

/// Most entries of updates an object keeps; the oldest of more are merged (upstream's number).
const UPDATE_MANAGERS_MAX: usize = 10;
/// The manager of merged old entries.
const ANCIENT: &str = "ancient-changes";

/// What makes two operations one entry. Apply entries leave out the version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    pub manager: String,
    pub applied: bool,
    pub api_version: String,
    pub subresource: String,
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The version whose field names the set uses.
    pub api_version: String,
    pub fields: Owned,
    /// RFC 3339 in seconds; such texts sort by time.
    pub time: Option<String>,
}

/// All entries of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Managers {
    pub entries: BTreeMap<Identity, Entry>,
}

/// Does the list ask to forget all managers: empty, or one empty entry?
pub fn is_reset(managed_fields: &Value) -> bool {
    match managed_fields.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

impl Identity {
    pub fn update(manager: &str, api_version: &str, subresource: &str) -> Identity {
        let manager = if manager.is_empty() { "unknown" } else { manager };
        Identity {
            manager: manager.into(),
            applied: false,
            api_version: api_version.into(),
            subresource: subresource.into(),
        }
    }

    pub fn apply(manager: &str, subresource: &str) -> Identity {
        Identity { applied: true, ..Identity::update(manager, "", subresource) }
    }

    /// The text by which upstream keys, and therefore orders, its managers.
    pub(super) fn sort_key(&self) -> String {
        let mut parts = Vec::new();
        let mut part = |name: &str, value: &str| {
            if !value.is_empty() {
                parts.push(format!("{name:?}:{}", Value::from(value)));
            }
        };
        part("manager", &self.manager);
        part("operation", if self.applied { "Apply" } else { "Update" });
        part("apiVersion", &self.api_version);
        part("subresource", &self.subresource);
        format!("{{{}}}", parts.join(","))
    }
}

impl std::fmt::Display for Identity {
    /// As conflicts name it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if !self.applied {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

impl Managers {
    /// Reads the `metadata.managedFields` that a client sent; `None` when an entry is not valid.
    pub fn decode(managed_fields: &Value) -> Option<Managers> {
        let mut managers = Managers::stored(managed_fields)?;
        for entry in managers.entries.values_mut() {
            entry.fields = Owned::Set(entry.fields.set().into_owned());
        }
        Some(managers)
    }

    /// Reads `metadata.managedFields` of a stored object, whose sets are canonical; also when it is folded.
    pub fn stored(managed_fields: &Value) -> Option<Managers> {
        if let Value::String(text) = managed_fields {
            return Managers::read(text);
        }
        let mut managers = Managers::default();
        for entry in managed_fields.as_array().into_iter().flatten() {
            let (identity, entry) = decode_entry(entry)?;
            managers.entries.insert(identity, entry);
        }
        Some(managers)
    }

    /// The same without the times of the entries.
    #[must_use]
    pub fn undated(mut self) -> Managers {
        self.entries.values_mut().for_each(|entry| entry.time = None);
        self
    }

    fn read(text: &str) -> Option<Managers> {
        let all: Vec<Text<'_>> = serde_json::from_str(text).ok()?;
        let entries = all.into_iter().map(Text::entry).collect::<Option<_>>()?;
        Some(Managers { entries })
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The fields that any manager owns; of one version of the kind, where it is named.
    pub(super) fn owned(&self, version: Option<&str>) -> FieldSet {
        let mut owned = FieldSet::new();
        let of_version = |e: &&Entry| version.is_none_or(|version| e.api_version == version);
        for entry in self.entries.values().filter(of_version) {
            owned.extend(entry.fields.set().into_owned());
        }
        owned
    }

    /// The list to store, unless it is empty: applies first, then by time and name.
    pub fn encode(self) -> Option<Value> {
        let sorted = self.sorted()?;
        Some(sorted.into_iter().map(|(identity, entry)| encode_entry(&identity, entry)).collect())
    }

    /// The same as text, for a folded tree.
    pub fn encode_text(self) -> Option<String> {
        let sorted = self.sorted()?;
        let mut out = String::with_capacity(1024);
        for (identity, entry) in sorted {
            out.push(if out.is_empty() { '[' } else { ',' });
            write_entry(&mut out, &identity, entry);
        }
        out.push(']');
        Some(out)
    }

    fn sorted(self) -> Option<Vec<(Identity, Entry)>> {
        if self.is_empty() {
            return None;
        }
        let mut sorted: Vec<(Identity, Entry)> = self.entries.into_iter().collect();
        sorted.sort_by(|(a, left), (b, right)| {
            let by_time = || left.time.cmp(&right.time);
            (b.applied.cmp(&a.applied))
                .then_with(by_time)
                .then_with(|| a.manager.cmp(&b.manager))
                .then_with(|| left.api_version.cmp(&right.api_version))
                .then_with(|| a.subresource.cmp(&b.subresource))
        });
        Some(sorted)
    }

    /// Merges the oldest updates' entries of each version until few enough are left.
    pub(super) fn cap(&mut self) {
        let mut updates: Vec<Identity> =
            self.entries.keys().filter(|i| !i.applied).cloned().collect();
        let mut count = updates.len();
        updates.sort_by_cached_key(|i| (self.entries[i].time.clone(), i.sort_key()));
        let mut first_of: HashMap<String, Identity> = HashMap::new();
        for identity in updates {
            if count <= UPDATE_MANAGERS_MAX {
                return;
            }
            let version = self.entries[&identity].api_version.clone();
            match first_of.get(&version) {
                None => drop(first_of.insert(version, identity)),
                Some(first) => {
                    self.merge_into_bucket(&identity, &first.clone(), &version);
                    count -= 1;
                }
            }
        }
    }

    fn merge_into_bucket(&mut self, identity: &Identity, first: &Identity, version: &str) {
        let bucket = Identity::update(ANCIENT, version, "");
        if !self.entries.contains_key(&bucket)
            && let Some(entry) = self.entries.remove(first)
        {
            self.entries.insert(bucket.clone(), entry);
        }
        if bucket == *identity {
            return;
        }
        if let (Some(merged), Some(into)) =
            (self.entries.remove(identity), self.entries.get_mut(&bucket))
        {
            into.fields.extend(merged.fields.into_set());
            // The later of the two.
            into.time = merged.time;
        }
    }
}

/// An entry in its text form.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text<'t> {
    #[serde(default, borrow)]
    manager: Cow<'t, str>,
    #[serde(borrow)]
    operation: Cow<'t, str>,
    #[serde(borrow)]
    api_version: Cow<'t, str>,
    time: Option<String>,
    #[serde(borrow)]
    fields_type: Cow<'t, str>,
    #[serde(rename = "fieldsV1", borrow)]
    fields: Option<&'t RawValue>,
    #[serde(default, borrow)]
    subresource: Cow<'t, str>,
}

impl Text<'_> {
    fn entry(self) -> Option<(Identity, Entry)> {
        let applied = match &*self.operation {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        };
        if self.api_version.is_empty() || self.fields_type != "FieldsV1" {
            return None;
        }
        let api_version = self.api_version.into_owned();
        let identity = Identity {
            manager: self.manager.into_owned(),
            applied,
            api_version: if applied { String::new() } else { api_version.clone() },
            subresource: self.subresource.into_owned(),
        };
        let fields = Owned::Text(self.fields.map_or("{}", RawValue::get).into());
        Some((identity, Entry { api_version, fields, time: self.time }))
    }
}

/// An entry's text: the keys in the order in which trees are written.
fn write_entry(out: &mut String, identity: &Identity, entry: Entry) {
    let operation = if identity.applied { "Apply" } else { "Update" };
    let fields = entry.fields.into_text();
    let time = entry.time.as_deref().unwrap_or("");
    let members = [
        ("apiVersion", entry.api_version.as_str(), false),
        ("fieldsType", "FieldsV1", false),
        ("fieldsV1", &*fields, true),
        ("manager", &identity.manager, false),
        ("operation", operation, false),
        ("subresource", &identity.subresource, false),
        ("time", time, false),
    ];
    out.push('{');
    for (key, value, is_json) in members.into_iter().filter(|(_, value, _)| !value.is_empty()) {
        if !out.ends_with('{') {
            out.push(',');
        }
        out.extend(["\"", key, "\":"]);
        match is_json {
            true => out.push_str(value),
            false => push_text(out, value),
        }
    }
    out.push('}');
}

/// A JSON string.
pub(super) fn push_text(out: &mut String, text: &str) {
    let plain = text.bytes().all(|c| c >= b' ' && c != b'"' && c != b'\\');
    match plain {
        true => out.extend(["\"", text, "\""]),
        false => out.push_str(&Value::from(text).to_string()),
    }
}

fn decode_entry(entry: &Value) -> Option<(Identity, Entry)> {
    let text = |key: &str| entry[key].as_str().unwrap_or("").to_owned();
    let applied = match entry["operation"].as_str()? {
        "Apply" => true,
        "Update" => false,
        _ => return None,
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() || entry["fieldsType"] != "FieldsV1" {
        return None;
    }
    let version_of_identity = if applied { String::new() } else { api_version.clone() };
    let identity = Identity {
        manager: text("manager"),
        applied,
        api_version: version_of_identity,
        subresource: text("subresource"),
    };
    let fields = Owned::Stored(entry["fieldsV1"].clone());
    Some((identity, Entry { api_version, fields, time: entry["time"].as_str().map(Into::into) }))
}

fn encode_entry(identity: &Identity, entry: Entry) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            map.insert(key.into(), value.into());
        }
    };
    put("manager", &identity.manager);
    put("operation", if identity.applied { "Apply" } else { "Update" });
    put("apiVersion", &entry.api_version);
    put("time", entry.time.as_deref().unwrap_or(""));
    put("fieldsType", "FieldsV1");
    put("subresource", &identity.subresource);
    map.insert("fieldsV1".into(), entry.fields.into_json());
    Value::Object(map)
}
