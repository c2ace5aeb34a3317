//! One manager's fields, read only when a change touches them.
//!
//! Most updates change a few fields of one manager, while an object has several managers with
//! hundreds of fields. Stored sets are canonical (this code or the original wrote them), so the
//! question whether a change touches them is answered on their JSON form.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::set::FieldSet;

/// A set of fields, in the form in which it came.
#[derive(Debug, Clone)]
pub enum Owned {
    /// `fieldsV1` of a stored object.
    Stored(Value),
    Set(FieldSet),
}

impl Owned {
    pub fn is_empty(&self) -> bool {
        match self {
            Owned::Stored(json) => json.as_object().is_none_or(Map::is_empty),
            Owned::Set(set) => set.is_empty(),
        }
    }

    pub fn set(&self) -> Cow<'_, FieldSet> {
        match self {
            Owned::Stored(json) => Cow::Owned(FieldSet::from_json(json)),
            Owned::Set(set) => Cow::Borrowed(set),
        }
    }

    pub fn into_set(self) -> FieldSet {
        match self {
            Owned::Stored(json) => FieldSet::from_json(&json),
            Owned::Set(set) => set,
        }
    }

    /// Takes the members of `gone` out.
    pub fn subtract(&mut self, gone: &FieldSet) {
        match self {
            Owned::Stored(json) if !has_any(json, gone) => {}
            Owned::Stored(json) => {
                *self = Owned::Set(FieldSet::from_json(json).difference(gone));
            }
            Owned::Set(set) => set.subtract(gone),
        }
    }

    pub fn extend(&mut self, more: FieldSet) {
        match self {
            Owned::Stored(json) if has_all(json, &more) => {}
            Owned::Stored(json) => *self = Owned::Set(FieldSet::from_json(json).union(more)),
            Owned::Set(set) => set.extend(more),
        }
    }

    /// The `fieldsV1` form.
    pub fn into_json(self) -> Value {
        match self {
            Owned::Stored(json) => json,
            Owned::Set(set) if set.is_empty() => json!({}),
            Owned::Set(set) => set.to_json(),
        }
    }
}

impl PartialEq for Owned {
    fn eq(&self, other: &Owned) -> bool {
        self.set() == other.set()
    }
}

impl Eq for Owned {}

fn has_any(json: &Value, set: &FieldSet) -> bool {
    set.branches().any(|(element, branch)| {
        let Some(below) = json.get(element.encode()) else { return false };
        (branch.member && is_member(below)) || has_any(below, &branch.below)
    })
}

fn has_all(json: &Value, set: &FieldSet) -> bool {
    set.branches().all(|(element, branch)| {
        let Some(below) = json.get(element.encode()) else { return false };
        (!branch.member || is_member(below)) && has_all(below, &branch.below)
    })
}

/// An element with something below it says by `.` that it is a member itself.
fn is_member(below: &Value) -> bool {
    below.as_object().is_none_or(|map| map.is_empty() || map.contains_key("."))
}
