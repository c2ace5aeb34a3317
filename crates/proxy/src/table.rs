//! What the kernel's table holds, by owner, and the operations from one state to the next. Pure.
//!
//! Entries of the shared maps may be wanted by several owners; the first in order has it, so the
//! outcome does not depend on the order of events.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::fragment::{AffinitySet, Chain, Entry, Fragment, Target};
use crate::model::ServiceKey;

/// Who wants a fragment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Owner {
    Service(ServiceKey),
    HostPort(String),
}

/// Changes of the table, in groups that are applied in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Operations {
    pub add_maps: BTreeMap<String, AffinitySet>,
    pub add_chains: BTreeSet<String>,
    pub delete_entries: Vec<(Entry, Target)>,
    /// Chains whose rules are thrown away first.
    pub flush_chains: BTreeSet<String>,
    pub fill_chains: BTreeMap<String, Chain>,
    pub add_entries: Vec<(Entry, Target)>,
    pub delete_chains: BTreeSet<String>,
    pub delete_maps: BTreeSet<String>,
}

/// The desired table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    fragments: HashMap<Owner, Fragment>,
    wanted: BTreeMap<Entry, BTreeMap<Owner, Target>>,
}

impl Operations {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Operations::default()
    }
}

impl Table {
    pub(crate) fn get(&self, owner: &Owner) -> Option<&Fragment> {
        self.fragments.get(owner)
    }

    pub(crate) fn fragments(&self) -> impl Iterator<Item = &Fragment> {
        self.fragments.values()
    }

    /// Replaces the fragments of some owners (none: removes them) and says what that changes.
    pub(crate) fn replace(
        &mut self,
        changes: impl IntoIterator<Item = (Owner, Option<Fragment>)>,
    ) -> Operations {
        let mut operations = Operations::default();
        let mut before = BTreeMap::new();
        for (owner, new) in changes {
            let old = self.fragments.remove(&owner).unwrap_or_default();
            let new = new.unwrap_or_default();
            if old == new {
                self.keep(owner, old);
                continue;
            }
            chain_changes(&old, &new, &mut operations);
            map_changes(&old, &new, &mut operations);
            self.want(&owner, &old, &new, &mut before);
            self.keep(owner, new);
        }
        for (entry, old) in before {
            let new = self.winner(&entry).cloned();
            if old != new {
                operations.delete_entries.extend(old.map(|target| (entry.clone(), target)));
                operations.add_entries.extend(new.map(|target| (entry, target)));
            }
        }
        operations
    }

    /// Everything, for an empty table.
    pub(crate) fn all(&self) -> Operations {
        let mut operations = Operations::default();
        for fragment in self.fragments.values() {
            chain_changes(&Fragment::default(), fragment, &mut operations);
            map_changes(&Fragment::default(), fragment, &mut operations);
        }
        for entry in self.wanted.keys() {
            let target = self.winner(entry).cloned();
            operations.add_entries.extend(target.map(|target| (entry.clone(), target)));
        }
        operations
    }

    fn keep(&mut self, owner: Owner, fragment: Fragment) {
        if fragment != Fragment::default() {
            self.fragments.insert(owner, fragment);
        }
    }

    /// Notes the new wishes and, per entry touched, what the kernel has now.
    fn want(
        &mut self,
        owner: &Owner,
        old: &Fragment,
        new: &Fragment,
        before: &mut BTreeMap<Entry, Option<Target>>,
    ) {
        for (entry, target) in &old.entries {
            if new.entries.get(entry) == Some(target) {
                continue;
            }
            let now = self.winner(entry).cloned();
            before.entry(entry.clone()).or_insert(now);
            if let Some(owners) = self.wanted.get_mut(entry) {
                owners.remove(owner);
                if owners.is_empty() {
                    self.wanted.remove(entry);
                }
            }
        }
        for (entry, target) in &new.entries {
            if old.entries.get(entry) == Some(target) {
                continue;
            }
            let now = self.winner(entry).cloned();
            before.entry(entry.clone()).or_insert(now);
            self.wanted.entry(entry.clone()).or_default().insert(owner.clone(), target.clone());
        }
    }

    fn winner(&self, entry: &Entry) -> Option<&Target> {
        self.wanted.get(entry)?.values().next()
    }
}

fn chain_changes(old: &Fragment, new: &Fragment, operations: &mut Operations) {
    for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
        operations.flush_chains.insert(name.clone());
        operations.delete_chains.insert(name.clone());
    }
    for (name, chain) in &new.chains {
        match old.chains.get(name) {
            Some(same) if same == chain => continue,
            Some(_) => operations.flush_chains.insert(name.clone()),
            None => operations.add_chains.insert(name.clone()),
        };
        operations.fill_chains.insert(name.clone(), chain.clone());
    }
}

fn map_changes(old: &Fragment, new: &Fragment, operations: &mut Operations) {
    let gone = old.affinity.keys().filter(|name| !new.affinity.contains_key(*name));
    operations.delete_maps.extend(gone.cloned());
    let fresh = new.affinity.iter().filter(|(name, _)| !old.affinity.contains_key(*name));
    operations.add_maps.extend(fresh.map(|(name, map)| (name.clone(), map.clone())));
}

#[cfg(test)]
mod tests;
