//! The two operations on managed objects: an update takes the fields it changed, an apply owns
//! what it says and gives up what it no longer says.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::compare::same;
use super::element::Path;
use super::extract;
use super::filter::Filter;
use super::managers::{Entry, Identity, Managers};
use super::merge::merge;
use super::node::Node;
use super::owned::Owned;
use super::remove::remove;
use super::set::FieldSet;
use super::versions::{Change, Changes, Versions};
use crate::schema::{Schema, Shape};

/// What is never owned: the server's own metadata.
pub(super) const STRIPPED: [&str; 12] = [
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
];
/// Owner of the fields that an object had before anything was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// What an operation is about.
#[derive(Clone, Copy)]
pub struct Manage<'a> {
    pub schema: &'a Schema,
    pub shape: &'a Shape,
    pub api_version: &'a str,
    pub subresource: &'a str,
    /// What a request to this path may own.
    pub filter: &'a Filter,
    /// Is this a version of the kind that is still served? Entries of others are dropped.
    pub is_served: &'a dyn Fn(&str) -> bool,
    /// Shows objects in other versions; none where all versions name their fields alike.
    pub elsewhere: Option<&'a dyn Versions>,
    /// RFC 3339 in seconds; `None` leaves new entries undated.
    pub now: Option<&'a str>,
}

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub manager: Identity,
    pub path: Path,
}

/// Why an apply was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("the applied object does not fit its schema")]
    Untyped(Vec<String>),
    #[error("the objects cannot be merged: {0}")]
    Merge(String),
    #[error("other managers own some of the fields")]
    Conflicts(Vec<Conflict>),
}

impl std::fmt::Debug for Manage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Manage({} {:?}, {:?})", self.api_version, self.shape, self.subresource)
    }
}

impl<'a> Manage<'a> {
    fn root(&self) -> Node<'a> {
        Node::root(self.shape)
    }

    /// The managers after an update of `live` to `new` (of nothing, by its zero value).
    ///
    /// Objects whose managers were forgotten stay untracked until something is applied to them.
    pub fn update(
        &self,
        live: &Value,
        new: &Value,
        mut managers: Managers,
        manager: &str,
    ) -> Result<Managers, String> {
        if managers.is_empty() && live["metadata"]["uid"].is_string() {
            return Ok(managers);
        }
        self.record(live, new, &mut managers, manager)?;
        managers.cap();
        Ok(managers)
    }

    fn record(
        &self,
        live: &Value,
        new: &Value,
        managers: &mut Managers,
        manager: &str,
    ) -> Result<(), String> {
        let changes = self.changes(live, new, managers)?;
        let identity = Identity::update(manager, self.api_version, self.subresource);
        self.take_away(managers, &identity, &changes);
        let Change { changed, removed } = changes.own;
        let own = managers.entries.remove(&identity);
        let mut fields = own.as_ref().map_or(Owned::Set(FieldSet::new()), |e| e.fields.clone());
        fields.subtract(&removed);
        let taken = stripped(changed);
        let time = match taken.is_empty() {
            true => own.and_then(|own| own.time),
            false => self.now.map(Into::into),
        };
        fields.extend(taken);
        if !fields.is_empty() {
            let entry = Entry { api_version: self.api_version.into(), fields, time };
            managers.entries.insert(identity, entry);
        }
        Ok(())
    }

    /// Takes changed and removed fields from all managers but one.
    fn take_away(&self, managers: &mut Managers, except: &Identity, changes: &Changes) {
        managers.entries.retain(|identity, entry| {
            if except == identity {
                return !entry.fields.is_empty();
            }
            let change = changes.of(&entry.api_version);
            let Some(change) = change.filter(|_| (self.is_served)(&entry.api_version)) else {
                return false;
            };
            entry.fields.subtract(&change.changed);
            entry.fields.subtract(&change.removed);
            !entry.fields.is_empty()
        });
    }

    /// `live` with `applied` laid over it (or `None` when that changes nothing), and the managers
    /// after that. `applied` is the object as it was sent: only what was sent is owned.
    pub fn apply(
        &self,
        live: &Value,
        applied: &Value,
        mut managers: Managers,
        manager: &str,
        force: bool,
    ) -> Result<(Option<Value>, Managers), ApplyError> {
        let faults = extract::check(self.schema, self.root(), applied);
        if !faults.is_empty() {
            return Err(ApplyError::Untyped(faults));
        }
        if managers.is_empty() && live["metadata"]["uid"].is_string() {
            let nothing = self.schema.zero(self.shape);
            self.record(&nothing, live, &mut managers, BEFORE_FIRST_APPLY)
                .map_err(ApplyError::Merge)?;
        }
        let merged = merge(self.schema, self.root(), Some(live), Some(applied))
            .map_err(ApplyError::Merge)?
            .unwrap_or(Value::Null);
        let identity = Identity::apply(manager, self.subresource);
        let set = extract::fields(self.schema, self.root(), applied).map_err(ApplyError::Merge)?;
        let entry = Entry {
            api_version: self.api_version.into(),
            fields: Owned::Set(self.filter.apply(set)),
            time: None,
        };
        let last = managers.entries.insert(identity.clone(), entry);
        let last_time = last.as_ref().and_then(|last| last.time.clone());
        let new = self.prune(merged, &managers, last.as_ref()).map_err(ApplyError::Merge)?;
        self.settle(live, &new, &mut managers, &identity, force)?;
        let unchanged = same(live, &new);
        let now = self.now.map(Into::into);
        finish(&mut managers, &identity, if unchanged { last_time } else { now });
        Ok(((!unchanged).then_some(new), managers))
    }

    /// Finds what others own of the change, and takes it when forced to.
    fn settle(
        &self,
        live: &Value,
        new: &Value,
        managers: &mut Managers,
        identity: &Identity,
        force: bool,
    ) -> Result<(), ApplyError> {
        let changes = self.changes(live, new, managers).map_err(ApplyError::Merge)?;
        let mut conflicts: BTreeMap<String, Vec<Conflict>> = BTreeMap::new();
        for (other, entry) in managers.entries.iter().filter(|(other, _)| *other != identity) {
            let Some(change) = changes.of(&entry.api_version) else { continue };
            let paths = entry.fields.set().intersection(&change.changed).paths();
            let of_other = |path| Conflict { manager: other.clone(), path };
            conflicts.entry(other.sort_key()).or_default().extend(paths.into_iter().map(of_other));
        }
        let conflicts: Vec<Conflict> = conflicts.into_values().flatten().collect();
        if !force && !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        self.take_away(managers, identity, &changes);
        Ok(())
    }

    /// Removes what the manager applied last time, applies no more, and nobody else owns.
    fn prune(
        &self,
        merged: Value,
        managers: &Managers,
        last: Option<&Entry>,
    ) -> Result<Value, String> {
        let Some(last) = last.filter(|last| !last.fields.is_empty()) else { return Ok(merged) };
        if !(self.is_served)(&last.api_version) {
            return Ok(merged);
        }
        if let Some(elsewhere) = self.elsewhere {
            let entries = managers.entries.values().chain([last]);
            if !self.other_versions(entries).is_empty() {
                return self.prune_across(merged, managers, last, elsewhere);
            }
        }
        let named = |set: &FieldSet| set.with_named_fields(self.schema, &self.root());
        let without = |fields: &FieldSet| {
            remove(self.schema, self.root(), &merged, fields).unwrap_or(Value::Null)
        };
        let fields_of =
            |value: &Value| extract::fields(self.schema, self.root(), value).map(|set| named(&set));
        let last = named(&last.fields.set());
        let gone = {
            let all = fields_of(&merged)?;
            // Kept are fields that any manager owns, the applying one's new configuration included …
            let kept = fields_of(&without(&last))?.union(named(&managers.owned(None)));
            let pruned = without(&all.minus(&kept));
            // … and fields that this manager never had.
            all.minus(&fields_of(&pruned)?)
        };
        Ok(without(&gone.intersection(&last)))
    }
}

fn stripped(set: FieldSet) -> FieldSet {
    static NEVER: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&STRIPPED));
    set.difference(&NEVER)
}

/// Strips and dates the applying manager's entry.
fn finish(managers: &mut Managers, identity: &Identity, time: Option<String>) {
    let Some(mut entry) = managers.entries.remove(identity) else { return };
    let fields = stripped(entry.fields.into_set());
    if !fields.is_empty() {
        (entry.fields, entry.time) = (Owned::Set(fields), time);
        managers.entries.insert(identity.clone(), entry);
    }
}
