//! Who owns whom: every object's identity, owners and dependents, kept by changes only.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use api::{Object, Owner};

use crate::discovery::ApiResource;

pub(crate) const FOREGROUND: &str = "foregroundDeletion";
pub(crate) const ORPHAN: &str = "orphan";

/// An object.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) resource: Arc<ApiResource>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) owners: Vec<Owner>,
    /// Deletion was asked for.
    pub(crate) ending: bool,
    /// It waits for its dependents to go first.
    pub(crate) foreground: bool,
    /// Its dependents shall be let go before it ends.
    pub(crate) orphaning: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: HashMap<String, Node>,
    /// Dependents by owner uid, whether or not the owner is known.
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    pub(crate) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub(crate) fn dependents(&self, uid: &str) -> impl Iterator<Item = (&String, &Node)> {
        let all = self.dependents.get(uid).into_iter().flatten();
        all.filter_map(|uid| Some((uid, self.nodes.get(uid)?)))
    }

    /// Uids of one resource: what a new snapshot may turn out to lack.
    pub(crate) fn of_resource(&self, resource: &ApiResource) -> HashSet<String> {
        let same =
            |n: &&Node| n.resource.group == resource.group && n.resource.name == resource.name;
        self.nodes.iter().filter(|(_, n)| same(n)).map(|(uid, _)| uid.clone()).collect()
    }

    /// Notes the object; the uids that need a look because of it.
    pub(crate) fn put(&mut self, resource: &Arc<ApiResource>, object: &Object) -> Vec<String> {
        let meta = object.meta();
        let uid = meta.uid.to_string();
        let ending = meta.deletion_timestamp.is_some();
        let held = |finalizer: &str| ending && meta.finalizers.iter().any(|f| **f == *finalizer);
        let node = Node {
            resource: resource.clone(),
            namespace: meta.namespace.to_string(),
            name: meta.name.to_string(),
            owners: meta.owners.to_vec(),
            ending,
            foreground: held(FOREGROUND),
            orphaning: held(ORPHAN),
        };
        let old = self.nodes.insert(uid.clone(), node.clone());
        self.relink(&uid, old.as_ref().map_or(&[], |n| &n.owners), &node.owners);
        let mut look = Vec::new();
        if node.foreground && !old.as_ref().is_some_and(|n| n.foreground) {
            look.extend(self.dependents(&uid).map(|(uid, _)| uid.clone()));
        }
        if node.foreground || node.orphaning || self.lacks_owner(&node) {
            look.push(uid.clone());
        }
        let moved = old.as_ref().is_none_or(|n| n.owners != node.owners || n.ending != node.ending);
        if moved {
            // Owners that wait for this one look whether they still must.
            let before = old.iter().flat_map(|n| &n.owners).map(|o| o.uid.to_string());
            look.extend(before.filter(|owner| self.waits(owner)));
            if node.owners.iter().any(|o| self.waits(&o.uid)) {
                look.push(uid);
            }
        }
        look
    }

    /// Some owner is not known, or is another object than the reference says.
    pub(crate) fn lacks_owner(&self, node: &Node) -> bool {
        node.owners.iter().any(|o| !self.nodes.contains_key(&*o.uid))
    }

    fn waits(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|n| n.foreground)
    }

    /// The object is gone; who must look because of it.
    pub(crate) fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        self.relink(uid, &node.owners, &[]);
        let mut look: Vec<String> = self.dependents(uid).map(|(uid, _)| uid.clone()).collect();
        let owners = node.owners.iter().map(|o| o.uid.to_string());
        look.extend(owners.filter(|owner| self.waits(owner)));
        look
    }

    fn relink(&mut self, uid: &str, old: &[Owner], new: &[Owner]) {
        for owner in old {
            if let Some(all) = self.dependents.get_mut(&*owner.uid) {
                all.remove(uid);
                if all.is_empty() {
                    self.dependents.remove(&*owner.uid);
                }
            }
        }
        for owner in new {
            self.dependents.entry(owner.uid.to_string()).or_default().insert(uid.to_owned());
        }
    }

    /// All objects with an owner that is not known: the first look, once everything is.
    pub(crate) fn suspects(&self) -> Vec<String> {
        let suspect = |n: &Node| n.foreground || n.orphaning || self.lacks_owner(n);
        self.nodes.iter().filter(|(_, n)| suspect(n)).map(|(uid, _)| uid.clone()).collect()
    }
}
