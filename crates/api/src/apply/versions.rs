//! Objects of several versions: managers name their fields in the version they wrote.
//!
//! What a change touched is found again in each version that a manager's entry is in; pruning goes
//! through all of them (structured-merge-diff's `Updater`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::compare::Differences;
use super::extract;
use super::managers::{Entry, Managers};
use super::node::Node;
use super::operate::Manage;
use super::remove::remove;
use super::set::FieldSet;
use crate::schema::{Schema, Shape};

/// An object as one of another version, with that version's types.
#[derive(Debug)]
pub struct View<'a> {
    pub schema: &'a Schema,
    pub shape: &'a Shape,
    pub object: Cow<'a, Value>,
}

/// The versions of a kind.
pub trait Versions {
    /// An object (of whatever version it says) in a version; `None` when that is not served.
    fn view<'v>(&'v self, api_version: &str, object: &'v Value)
    -> Result<Option<View<'v>>, String>;
}

/// What an operation did to fields, as one version names them.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) changed: FieldSet,
    pub(super) removed: FieldSet,
}

/// The same in every version that managers' entries are in; `None` for those that are not served.
pub(super) struct Changes {
    pub(super) own: Change,
    others: BTreeMap<String, Option<Change>>,
}

impl Changes {
    /// For an entry of `version`; where all versions name fields alike, that is the own.
    pub(super) fn of(&self, version: &str) -> Option<&Change> {
        self.others.get(version).map_or(Some(&self.own), Option::as_ref)
    }
}

impl Manage<'_> {
    /// What became of fields between two states.
    pub(super) fn changes(
        &self,
        live: &Value,
        new: &Value,
        managers: &Managers,
    ) -> Result<Changes, String> {
        let between = |schema, shape, live: &Value, new: &Value| {
            let found = Differences::between(schema, Node::root(shape), live, new)?;
            let mut found = found.filtered(self.filter);
            let removed = std::mem::take(&mut found.removed);
            Ok::<_, String>(Change { removed, changed: found.into_changed() })
        };
        let own = between(self.schema, self.shape, live, new)?;
        let mut others = BTreeMap::new();
        for version in self.other_versions(managers.entries.values()) {
            let Some(elsewhere) = self.elsewhere else { break };
            let views = (elsewhere.view(&version, live)?, elsewhere.view(&version, new)?);
            let change = match views {
                (Some(old), Some(new)) => {
                    Some(between(old.schema, old.shape, &old.object, &new.object)?)
                }
                _ => None,
            };
            others.insert(version, change);
        }
        Ok(Changes { own, others })
    }

    /// Versions other than the request's in which entries name their fields differently.
    pub(super) fn other_versions<'e>(
        &self,
        entries: impl Iterator<Item = &'e Entry>,
    ) -> BTreeSet<String> {
        let others = entries.map(|entry| entry.api_version.as_str());
        let others = others.filter(|v| self.elsewhere.is_some() && *v != self.api_version);
        others.map(str::to_owned).collect()
    }

    /// Removes what the manager applied last time, applies no more, and nobody else owns, where
    /// managers name fields in several versions.
    pub(super) fn prune_across(
        &self,
        merged: Value,
        managers: &Managers,
        last: &Entry,
        elsewhere: &dyn Versions,
    ) -> Result<Value, String> {
        let Some(view) = elsewhere.view(&last.api_version, &merged)? else {
            return Ok(merged.clone());
        };
        let mut pruned = view.without(&view.named(&last.fields.set()));
        let mut versions: Vec<String> = vec![last.api_version.clone()];
        let all: BTreeSet<&String> = managers.entries.values().map(|e| &e.api_version).collect();
        versions.extend(all.into_iter().filter(|v| **v != last.api_version).cloned());
        // Back comes what any manager owns, the applying one's new configuration included …
        for version in &versions {
            let owned = managers.owned(Some(version));
            let (Some(whole), Some(part)) =
                (elsewhere.view(version, &merged)?, elsewhere.view(version, &pruned)?)
            else {
                continue;
            };
            let kept = part.fields()?.union(whole.named(&owned));
            let without = whole.without(&whole.fields()?.minus(&kept));
            drop(part);
            pruned = without;
        }
        // … and what this manager never had.
        let there = match elsewhere.view(&last.api_version, &pruned)? {
            Some(part) => part.fields()?,
            None => FieldSet::new(),
        };
        let gone = view.fields()?.minus(&there);
        let result = view.without(&gone.intersection(&view.named(&last.fields.set())));
        let back = elsewhere.view(self.api_version, &result)?;
        Ok(back.map_or(Value::Null, |own| own.object.into_owned()))
    }
}

impl View<'_> {
    fn root(&self) -> Node<'_> {
        Node::root(self.shape)
    }

    fn named(&self, set: &FieldSet) -> FieldSet {
        set.with_named_fields(self.schema, &self.root())
    }

    fn fields(&self) -> Result<FieldSet, String> {
        Ok(self.named(&extract::fields(self.schema, self.root(), &self.object)?))
    }

    fn without(&self, fields: &FieldSet) -> Value {
        remove(self.schema, self.root(), &self.object, fields).unwrap_or(Value::Null)
    }
}
