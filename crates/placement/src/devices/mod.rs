//! The devices that plugins offer, and which containers have them (upstream's `cm/devicemanager`). Pure but for
//! the state file: plugins are asked by the caller.
//!
//! A device is of a resource (`example.com/gpu`). Healthy devices are given to containers, which keep them
//! until their pod has ended, whatever becomes of the device's health.

mod choose;
mod file;
mod given;
mod hints;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use choose::{Choice, Preference};
use file::DevicesFile;
use given::Given;
pub use given::{Allocation, DevicesPerNode};

/// The NUMA node of a device that lies on none.
pub const NO_NODE: i64 = -1;

/// Names of devices, or of anything else.
pub(crate) type Names = BTreeSet<String>;

/// A device as its plugin describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    pub healthy: bool,
    /// NUMA nodes that it is near to.
    pub nodes: Vec<i64>,
}

#[derive(Debug, Default)]
struct Registered {
    healthy: Names,
    unhealthy: Names,
}

/// The container that asks for devices.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    pub uid: &'a str,
    pub container: &'a str,
    pub resource: &'a str,
    pub count: usize,
}

/// All devices of a node.
#[derive(Debug)]
pub struct DeviceTable {
    file: DevicesFile,
    /// Of the machine.
    nodes: Vec<usize>,
    all: BTreeMap<String, BTreeMap<String, Device>>,
    registered: BTreeMap<String, Registered>,
    /// Given to containers, or about to be, by resource.
    allocated: BTreeMap<String, Names>,
    given: Given,
    /// Devices of this pod's init containers: later containers get them first.
    reusable: (String, BTreeMap<String, Names>),
    /// No earlier kubelet has left a state file.
    is_new: bool,
}

impl DeviceTable {
    /// Takes over what an earlier kubelet gave away; its plugins have to register anew. A state file that
    /// cannot be read is told in the log and not believed, as upstream does.
    pub fn open(dir: &Path, nodes: Vec<usize>) -> DeviceTable {
        let file = DevicesFile::new(dir);
        let found = file.read().unwrap_or_else(|error| {
            tracing::error!(error, "device allocations not read; they may not be up to date");
            None
        });
        let is_new = found.is_none();
        let (given, resources) = found.unwrap_or_default();
        let registered = resources.into_iter().map(|name| (name, Registered::default()));
        DeviceTable {
            file,
            nodes,
            all: BTreeMap::new(),
            registered: registered.collect(),
            allocated: given.devices(),
            given,
            reusable: Default::default(),
            is_new,
        }
    }

    /// Whether no kubelet had devices here before: the node may be another machine of the same name.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Resources that have, or had, a plugin.
    pub fn registered(&self) -> Vec<String> {
        self.registered.keys().cloned().collect()
    }

    /// Whether the resource is one of device plugins.
    pub fn is_known(&self, resource: &str) -> bool {
        self.registered.contains_key(resource) || self.allocated.contains_key(resource)
    }

    /// A plugin lists all its devices. Returns the pods whose devices changed their health.
    pub fn update(&mut self, resource: &str, devices: BTreeMap<String, Device>) -> Names {
        let (healthy, unhealthy): (Vec<_>, Vec<_>) = devices.iter().partition(|(_, d)| d.healthy);
        let names =
            |list: Vec<(&String, &Device)>| list.into_iter().map(|(id, _)| id.clone()).collect();
        let now = Registered { healthy: names(healthy), unhealthy: names(unhealthy) };
        let old = self.all.get(resource);
        let is_news = |(id, device): &(&String, &Device)| {
            let before = old.and_then(|old| old.get(*id));
            // One that comes back may be some container's.
            before.is_none_or(|before| before.healthy != device.healthy)
        };
        let changed = devices.iter().filter(is_news).map(|(id, _)| id.as_str());
        let pods = changed.filter_map(|id| self.given.owner(resource, id)).collect();
        self.registered.insert(resource.to_owned(), now);
        self.all.insert(resource.to_owned(), devices);
        self.store();
        pods
    }

    /// The resource's plugin is gone.
    pub fn mark_unhealthy(&mut self, resource: &str) {
        if let Some(entry) = self.registered.get_mut(resource) {
            entry.unhealthy.append(&mut entry.healthy);
        }
    }

    /// The resource's plugin does not come back.
    pub fn forget(&mut self, resource: &str) {
        self.registered.remove(resource);
        self.store();
    }

    /// Healthy and all devices by resource.
    pub fn counts(&self) -> BTreeMap<String, (usize, usize)> {
        let count = |r: &Registered| (r.healthy.len(), r.healthy.len() + r.unhealthy.len());
        self.registered.iter().map(|(name, r)| (name.clone(), count(r))).collect()
    }

    /// Devices that containers have, by resource.
    pub fn allocated(&self) -> BTreeMap<String, usize> {
        self.allocated.iter().map(|(name, ids)| (name.clone(), ids.len())).collect()
    }

    /// Whether the pod has devices.
    pub fn has_pod(&self, uid: &str) -> bool {
        self.given.has_pod(uid)
    }

    /// Takes back what pods have that are no more.
    pub fn retain(&mut self, is_active: impl Fn(&str) -> bool) {
        if self.given.retain(is_active) {
            self.release();
        }
    }

    /// Gives up devices that were chosen and not given.
    pub fn release(&mut self) {
        self.allocated = self.given.devices();
    }

    /// The plugin has answered for the devices: they are the container's, with the answer.
    pub fn give(&mut self, asking: Asking<'_>, devices: &Names, answer: Vec<u8>) {
        let mut per_node = DevicesPerNode::new();
        let known = self.all.get(asking.resource);
        for id in devices {
            let nodes = known.and_then(|all| all.get(id)).map(|d| d.nodes.as_slice());
            let nodes = nodes.filter(|nodes| !nodes.is_empty()).unwrap_or(&[NO_NODE]);
            for node in nodes {
                per_node.entry(*node).or_default().push(id.clone());
            }
        }
        self.given.insert(asking, Allocation { devices: per_node, answer });
    }

    /// The container's devices, by resource.
    pub fn of(&self, uid: &str, container: &str) -> Option<&BTreeMap<String, Allocation>> {
        self.given.of(uid, container)
    }

    /// Whether a device that a container has is healthy, as far as its plugin has ever said; one that no
    /// plugin has listed since the kubelet started counts as healthy.
    pub fn is_healthy(&self, resource: &str, id: &str) -> bool {
        let known = self.all.get(resource).and_then(|all| all.get(id));
        known.is_none_or(|device| device.healthy)
    }

    /// The healthy devices of all resources.
    pub fn allocatable(&self) -> BTreeMap<String, BTreeMap<String, Device>> {
        let of = |(name, r): (&String, &Registered)| {
            let all = self.all.get(name)?;
            let healthy = all.iter().filter(|(id, _)| r.healthy.contains(*id));
            Some((name.clone(), healthy.map(|(id, d)| (id.clone(), d.clone())).collect()))
        };
        self.registered.iter().filter_map(of).collect()
    }

    /// The pod's containers are given devices next, in the order of their start.
    pub fn begin_pod(&mut self, uid: &str) {
        if self.reusable.0 != uid {
            self.reusable = (uid.to_owned(), BTreeMap::new());
        }
    }

    /// The pod's later containers may have what this one has: it will have ended (`true`), or not.
    pub fn note_reusable(&mut self, uid: &str, container: &str, ends: bool) {
        for (resource, allocation) in self.given.of(uid, container).into_iter().flatten() {
            let all = self.reusable.1.entry(resource.clone()).or_default();
            for id in allocation.ids() {
                if ends {
                    all.insert(id)
                } else {
                    all.remove(&id)
                };
            }
        }
    }

    fn reusable(&self, uid: &str, resource: &str) -> Names {
        let (owner, by_resource) = &self.reusable;
        by_resource.get(resource).filter(|_| owner == uid).cloned().unwrap_or_default()
    }

    /// Writes down what containers have.
    pub fn store(&self) {
        let healthy = self.registered.iter().map(|(name, r)| (name.clone(), &r.healthy));
        let healthy = healthy.map(|(name, ids)| (name, ids.iter().cloned().collect()));
        self.file.write(&self.given, healthy.collect());
    }
}
