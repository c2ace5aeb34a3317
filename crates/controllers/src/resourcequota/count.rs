//! What stored objects cost, kept up to date change by change.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use admission::quota::{Amounts, Measured, add};
use api::Object;
use client::Tasks;
use jiff::Timestamp;
use serde_json::Value;

/// Group and plural.
pub(super) type Resource = (String, String);
/// Namespace and name.
type Key = (String, String);

/// The objects of one resource.
#[derive(Debug, Default)]
struct Source {
    tasks: Option<Tasks>,
    /// The first snapshot is complete.
    synced: bool,
    /// By namespace and name.
    objects: BTreeMap<Key, Measured>,
}

/// A change of what one object costs.
#[derive(Debug)]
pub(super) struct Shift {
    pub(super) before: Option<Measured>,
    pub(super) after: Option<Measured>,
}

/// All resources that quotas ask about.
#[derive(Debug, Default)]
pub(super) struct Counts {
    sources: HashMap<Resource, Source>,
    /// Asked for, and not served.
    pub(super) unknown: BTreeSet<Resource>,
}

impl Counts {
    pub(super) fn follows(&self, resource: &Resource) -> bool {
        self.sources.contains_key(resource)
    }

    /// False when it is followed already.
    pub(super) fn start(&mut self, resource: &Resource, tasks: Tasks) -> bool {
        let source = self.sources.entry(resource.clone()).or_default();
        let fresh = source.tasks.is_none();
        source.tasks.get_or_insert(tasks);
        fresh
    }

    pub(super) fn is_synced(&self, resource: &Resource) -> bool {
        self.sources.get(resource).is_none_or(|source| source.synced)
    }

    pub(super) fn set_synced(&mut self, resource: &Resource) {
        if let Some(source) = self.sources.get_mut(resource) {
            source.synced = true;
        }
    }

    /// Ends what nobody asks about any more.
    pub(super) fn keep_only(&mut self, wanted: &BTreeSet<Resource>) {
        self.sources.retain(|resource, source| {
            let keep = wanted.contains(resource);
            if let Some(tasks) = source.tasks.as_ref().filter(|_| !keep) {
                tasks.cancel();
            }
            keep
        });
        self.unknown.retain(|resource| wanted.contains(resource));
    }

    pub(super) fn keys(&self, resource: &Resource) -> BTreeSet<Key> {
        let source = self.sources.get(resource);
        source.map(|source| source.objects.keys().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn put(&mut self, resource: &Resource, object: &Object) -> Option<Shift> {
        let source = self.sources.get_mut(resource)?;
        let measured = Measured::of(&resource.0, &resource.1, &object.to_value());
        let meta = object.meta();
        let key = (meta.namespace.to_string(), meta.name.to_string());
        let before = source.objects.insert(key, measured.clone());
        let same = before.as_ref() == Some(&measured);
        (!same).then_some(Shift { before, after: Some(measured) })
    }

    pub(super) fn remove(&mut self, resource: &Resource, key: &Key) -> Option<Shift> {
        let before = self.sources.get_mut(resource)?.objects.remove(key)?;
        Some(Shift { before: Some(before), after: None })
    }

    /// What all objects of a namespace cost that are in the scopes of a quota's spec.
    pub(super) fn total<'a>(
        &self,
        resources: impl IntoIterator<Item = &'a Resource>,
        namespace: &str,
        spec: &Value,
        now: Timestamp,
    ) -> Amounts {
        let mut total = Amounts::new();
        let first = (namespace.to_owned(), String::new());
        for source in resources.into_iter().filter_map(|resource| self.sources.get(resource)) {
            let here =
                source.objects.range(&first..).take_while(|((space, _), _)| space == namespace);
            for (_, measured) in here.filter(|(_, measured)| measured.matches(spec)) {
                add(&mut total, &measured.usage(now));
            }
        }
        total
    }
}

/// What an object's change gives back to a quota.
pub(super) fn released(shift: &Shift, spec: &Value, now: Timestamp) -> Amounts {
    let cost = |measured: &Option<Measured>| {
        let charged = measured.as_ref().filter(|measured| measured.matches(spec));
        charged.map(|measured| measured.usage(now)).unwrap_or_default()
    };
    super::plan::shrunk(&cost(&shift.before), &cost(&shift.after))
}
