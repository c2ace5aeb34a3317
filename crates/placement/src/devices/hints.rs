//! Topology hints: from which NUMA nodes the devices that are asked for could come.

use std::collections::BTreeMap;

use super::{Asking, DeviceTable, Names};
use crate::mask::{Hint, NumaMask};
use crate::pod::{Container, Pod};
use crate::provider::Hints;

impl DeviceTable {
    /// Whether any device of the resource is near to some NUMA node: then all have a preference.
    pub(super) fn has_topology(&self, resource: &str) -> bool {
        let mut all = self.all.get(resource).into_iter().flatten();
        all.any(|(_, device)| !device.nodes.is_empty())
    }

    /// Hints for one container.
    pub fn hints(&self, pod: &Pod, container: &Container) -> Hints {
        let of = |(resource, count): (&String, usize)| {
            let asking = Asking { uid: &pod.uid, container: &container.name, resource, count };
            let has = self.given.ids(asking).unwrap_or_default();
            let hints = self.of_resource(asking, has, self.reusable(&pod.uid, resource));
            (resource.clone(), hints)
        };
        self.asked(&container.extended).map(of).collect()
    }

    /// Hints for all containers of the pod together.
    pub fn pod_hints(&self, pod: &Pod) -> Hints {
        let names: Names = pod.containers.iter().flat_map(|c| c.extended.keys().cloned()).collect();
        let peak = |name: String| {
            let count = pod.peak(|c| c.extended.get(&name).copied().unwrap_or(0));
            (name, count)
        };
        let all: BTreeMap<String, u64> = names.into_iter().map(peak).collect();
        let of = |(resource, count): (&String, usize)| {
            let asking = Asking { uid: &pod.uid, container: "", resource, count };
            let has = self.given.ids_of_pod(&pod.uid, resource);
            (resource.clone(), self.of_resource(asking, has, Names::new()))
        };
        self.asked(&all).map(of).collect()
    }

    /// The device plugins' part of it.
    fn asked<'a>(
        &'a self,
        all: &'a BTreeMap<String, u64>,
    ) -> impl Iterator<Item = (&'a String, usize)> {
        let known = all.iter().filter(|(name, _)| self.is_known(name));
        known.map(|(name, count)| (name, usize::try_from(*count).unwrap_or(usize::MAX)))
    }

    fn of_resource(&self, asking: Asking<'_>, has: Names, reusable: Names) -> Option<Vec<Hint>> {
        let (resource, count) = (asking.resource, asking.count);
        if !self.has_topology(resource) {
            return None;
        }
        if !has.is_empty() {
            return Some(match has.len() == count {
                true => self.generate(resource, &has, &Names::new(), count),
                false => Vec::new(),
            });
        }
        let in_use = self.allocated.get(resource).cloned().unwrap_or_default();
        let healthy = self.registered.get(resource).map(|r| &r.healthy);
        let available: Names =
            healthy.into_iter().flatten().filter(|id| !in_use.contains(*id)).cloned().collect();
        let both = available.union(&reusable).count();
        if both < count {
            return Some(Vec::new());
        }
        Some(self.generate(resource, &available, &reusable, count))
    }

    /// The machine's nodes that have devices of the resource.
    fn nodes_of(&self, resource: &str) -> Vec<usize> {
        let all = self.all.get(resource).into_iter().flat_map(BTreeMap::values);
        let named: Vec<i64> = all.flat_map(|device| device.nodes.iter().copied()).collect();
        let known = |node: &&usize| i64::try_from(**node).is_ok_and(|id| named.contains(&id));
        let own: Vec<usize> = self.nodes.iter().filter(known).copied().collect();
        if own.is_empty() { self.nodes.clone() } else { own }
    }

    fn generate(
        &self,
        resource: &str,
        available: &Names,
        reusable: &Names,
        count: usize,
    ) -> Vec<Hint> {
        let nodes = self.nodes_of(resource);
        let mut narrowest = nodes.len();
        let mut masks = Vec::new();
        let empty = BTreeMap::new();
        let all = self.all.get(resource).unwrap_or(&empty);
        let has_nodes = |id: &String| all.get(id).is_some_and(|d| !d.nodes.is_empty());
        for mask in NumaMask::combinations(&nodes) {
            let near = |node: &i64| usize::try_from(*node).is_ok_and(|node| mask.contains(node));
            let within = |id: &String| all.get(id).is_some_and(|d| d.nodes.iter().any(near));
            if all.keys().filter(|id| within(id)).count() >= count {
                narrowest = narrowest.min(mask.count());
            }
            // What is used again is used from where it is.
            let placed = || reusable.iter().filter(|id| has_nodes(id));
            if !placed().all(within) {
                continue;
            }
            let matching = placed().count() + available.iter().filter(|id| within(id)).count();
            if matching >= count {
                masks.push(mask);
            }
        }
        masks.into_iter().map(|mask| Hint::new(mask, mask.count() == narrowest)).collect()
    }
}
