//! One manager's fields, as they are stored unless an algorithm needs them decoded.
//!
//! Most updates change a few fields of one manager, while an object has several managers with
//! hundreds of fields. Stored sets are canonical (this code or upstream wrote them), so the
//! change is made on their JSON form, and sets that a change does not touch stay text.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::set::FieldSet;

/// The form of an empty set.
const EMPTY: &str = "{}";

/// A set of fields, in the form in which it came.
#[derive(Debug, Clone)]
pub enum Owned {
    /// The text of `fieldsV1` of a stored object, as this crate writes it.
    Text(Box<str>),
    /// `fieldsV1` of a stored object.
    Stored(Value),
    Set(FieldSet),
}

impl Owned {
    pub fn is_empty(&self) -> bool {
        match self {
            Owned::Text(text) => &**text == EMPTY,
            Owned::Stored(json) => json.as_object().is_none_or(Map::is_empty),
            Owned::Set(set) => set.is_empty(),
        }
    }

    pub fn set(&self) -> Cow<'_, FieldSet> {
        match self {
            Owned::Text(text) => Cow::Owned(FieldSet::from_json(&tree(text))),
            Owned::Stored(json) => Cow::Owned(FieldSet::from_json(json)),
            Owned::Set(set) => Cow::Borrowed(set),
        }
    }

    pub fn into_set(self) -> FieldSet {
        match self {
            Owned::Text(text) => FieldSet::from_json(&tree(&text)),
            Owned::Stored(json) => FieldSet::from_json(&json),
            Owned::Set(set) => set,
        }
    }

    /// Takes the members of `gone` out.
    pub fn subtract(&mut self, gone: &FieldSet) {
        if let Owned::Text(text) = self {
            if !may_share(text, gone) {
                return;
            }
            *self = Owned::Stored(tree(text));
        }
        match self {
            Owned::Text(_) => {}
            Owned::Stored(json) => take(json, gone),
            Owned::Set(set) => set.subtract(gone),
        }
    }

    pub fn extend(&mut self, more: FieldSet) {
        if let Owned::Text(text) = self {
            if more.is_empty() {
                return;
            }
            *self = Owned::Stored(tree(text));
        }
        match self {
            Owned::Text(_) => {}
            Owned::Stored(json) => add(json, &more),
            Owned::Set(set) => set.extend(more),
        }
    }

    /// The `fieldsV1` form.
    pub fn into_json(self) -> Value {
        match self {
            Owned::Text(text) => tree(&text),
            Owned::Stored(json) => json,
            Owned::Set(set) if set.is_empty() => json!({}),
            Owned::Set(set) => set.to_json(),
        }
    }
}

impl Owned {
    /// The `fieldsV1` form as text.
    pub(super) fn into_text(self) -> Box<str> {
        match self {
            Owned::Text(text) => text,
            other => other.into_json().to_string().into(),
        }
    }
}

/// Text that this crate wrote, or that the API accepted, is JSON; what is none owns nothing.
fn tree(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!({}))
}

/// Whether a set in its text form may have a member that another set has too: false when of each of the other's
/// members some step is nowhere in the text.
fn may_share(text: &str, set: &FieldSet) -> bool {
    set.branches().any(|(element, branch)| {
        let key = Value::from(element.encode()).to_string();
        text.contains(&key) && (branch.member || may_share(text, &branch.below))
    })
}

impl PartialEq for Owned {
    fn eq(&self, other: &Owned) -> bool {
        self.set() == other.set()
    }
}

impl Eq for Owned {}

fn take(json: &mut Value, set: &FieldSet) {
    let Some(map) = json.as_object_mut() else { return };
    for (element, branch) in set.branches() {
        let key = element.encode();
        let Some(below) = map.get_mut(&key) else { continue };
        let stays = is_member(below) && !branch.member;
        take(below, &branch.below);
        mark(below, stays);
        // What is left without a mark is no member and has nothing below it.
        if !stays && below.as_object().is_none_or(Map::is_empty) {
            map.remove(&key);
        }
    }
}

fn add(json: &mut Value, set: &FieldSet) {
    let Some(map) = json.as_object_mut() else { return };
    for (element, branch) in set.branches() {
        let below = map.entry(element.encode()).or_insert(Value::Null);
        let member = branch.member || (!below.is_null() && is_member(below));
        if below.is_null() {
            *below = json!({});
        }
        add(below, &branch.below);
        mark(below, member);
    }
}

/// An element with something below it says by `.` that it is a member itself.
fn is_member(below: &Value) -> bool {
    below.as_object().is_none_or(|map| map.is_empty() || map.contains_key("."))
}

fn mark(below: &mut Value, member: bool) {
    let Some(map) = below.as_object_mut() else { return };
    let bare = map.keys().all(|key| key == ".");
    match member && !bare {
        true => drop(map.insert(".".into(), json!({}))),
        false => drop(map.remove(".")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{FieldSet, Owned};

    /// Both forms go through the same steps and must agree.
    #[test]
    fn stored_sets_behave_as_decoded_ones() {
        let stored = json!({"f:a": {".": {}, "f:b": {}, "f:c": {"f:d": {}}}, "f:e": {}});
        let changes = [
            json!({"f:a": {"f:b": {}}}),
            json!({"f:a": {".": {}, "f:c": {"f:d": {}}}}),
            json!({"f:e": {"f:x": {}}}),
            json!({"f:a": {}}),
            json!({"f:a": {"f:c": {}}, "f:z": {"f:y": {}}}),
        ];
        for first in &changes {
            for second in &changes {
                let [first, second] = [first, second].map(FieldSet::from_json);
                let mut text = Owned::Text(stored.to_string().into());
                let mut json = Owned::Stored(stored.clone());
                let mut set = Owned::Set(FieldSet::from_json(&stored));
                for owned in [&mut text, &mut json, &mut set] {
                    owned.subtract(&first);
                    owned.extend(first.clone());
                    owned.subtract(&second);
                }
                let json = json.into_json();
                assert_eq!(*text.into_text(), json.to_string());
                assert_eq!(json, set.into_json());
            }
        }
    }
}
