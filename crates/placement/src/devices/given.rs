//! Which containers have which devices.

use std::collections::BTreeMap;

use super::{Asking, Names};

/// By NUMA node; a device that is near to several is with each.
pub type DevicesPerNode = BTreeMap<i64, Vec<String>>;

/// A container's devices of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocation {
    pub devices: DevicesPerNode,
    /// The plugin's answer, in its own encoding.
    pub answer: Vec<u8>,
}

impl Allocation {
    pub fn ids(&self) -> Names {
        self.devices.values().flatten().cloned().collect()
    }
}

type Containers = BTreeMap<String, BTreeMap<String, Allocation>>;

/// By pod, container and resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Given(BTreeMap<String, Containers>);

impl Given {
    pub(super) fn insert(&mut self, asking: Asking<'_>, allocation: Allocation) {
        let pod = self.0.entry(asking.uid.to_owned()).or_default();
        let container = pod.entry(asking.container.to_owned()).or_default();
        container.insert(asking.resource.to_owned(), allocation);
    }

    pub(super) fn has_pod(&self, uid: &str) -> bool {
        self.0.contains_key(uid)
    }

    /// Whether any pod went.
    pub(super) fn retain(&mut self, is_active: impl Fn(&str) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|uid, _| is_active(uid));
        before != self.0.len()
    }

    pub(super) fn of(&self, uid: &str, container: &str) -> Option<&BTreeMap<String, Allocation>> {
        self.0.get(uid)?.get(container)
    }

    /// The devices of one container.
    pub(super) fn ids(&self, asking: Asking<'_>) -> Option<Names> {
        let found = self.of(asking.uid, asking.container)?.get(asking.resource)?;
        Some(found.ids())
    }

    /// The devices of a pod.
    pub(super) fn ids_of_pod(&self, uid: &str, resource: &str) -> Names {
        let containers = self.0.get(uid).into_iter().flatten();
        containers.filter_map(|(_, own)| own.get(resource)).flat_map(Allocation::ids).collect()
    }

    fn all(&self) -> impl Iterator<Item = (&String, &String, &String, &Allocation)> {
        self.0.iter().flat_map(|(uid, containers)| {
            containers.iter().flat_map(move |(container, own)| {
                own.iter().map(move |(resource, a)| (uid, container, resource, a))
            })
        })
    }

    pub(super) fn devices(&self) -> BTreeMap<String, Names> {
        let mut all = BTreeMap::<String, Names>::new();
        for (_, _, resource, allocation) in self.all() {
            all.entry(resource.clone()).or_default().append(&mut allocation.ids());
        }
        all
    }

    /// The pod that has the device.
    pub(super) fn owner(&self, resource: &str, id: &str) -> Option<String> {
        let mut all = self.all();
        let has = |of: &str, allocation: &Allocation| {
            of == resource && allocation.devices.values().flatten().any(|other| other == id)
        };
        all.find(|(_, _, of, allocation)| has(of, allocation)).map(|(uid, ..)| uid.clone())
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (Asking<'_>, &Allocation)> {
        self.all().map(|(uid, container, resource, allocation)| {
            (Asking { uid, container, resource, count: 0 }, allocation)
        })
    }
}
