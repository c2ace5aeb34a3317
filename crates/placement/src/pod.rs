//! A pod, as far as its place on the machine depends on it.

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ends before the pod's regular containers start.
    Init,
    /// An init container that runs beside the others.
    Sidecar,
    Regular,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    pub kind: Kind,
    /// What it requests.
    pub cpu_millis: u64,
    /// Bytes that it requests of `memory` and of huge pages (`hugepages-2Mi`), by these names.
    pub memory: BTreeMap<String, u64>,
    /// Other resources that it has a limit of, which devices may be behind.
    pub extended: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub uid: String,
    /// Of the class Guaranteed: only its containers get CPUs and memory of their own.
    pub guaranteed: bool,
    /// It has resources as a whole. Such pods get nothing of their own (`PodLevelResourceManagers` is off).
    pub pod_level: bool,
    /// In the order in which they are admitted: init containers first.
    pub containers: Vec<Container>,
}

impl Pod {
    /// Whether containers of the pod may have CPUs and memory of their own.
    pub(crate) fn may_pin(&self) -> bool {
        self.guaranteed && !self.pod_level
    }

    /// The CPUs that a container gets for itself: requests of whole CPUs only.
    pub(crate) fn exclusive_cpus(&self, container: &Container) -> usize {
        match self.guaranteed && container.cpu_millis.is_multiple_of(1000) {
            true => usize::try_from(container.cpu_millis / 1000).unwrap_or(usize::MAX),
            false => 0,
        }
    }

    /// At the pod's fullest: its long-running containers together, or an init container beside the
    /// sidecars that were started before it.
    pub fn peak(&self, of: impl Fn(&Container) -> u64) -> u64 {
        let (mut sidecars, mut init, mut regular) = (0u64, 0u64, 0u64);
        for container in &self.containers {
            let own = of(container);
            match container.kind {
                Kind::Init => init = init.max(sidecars.saturating_add(own)),
                Kind::Sidecar => sidecars = sidecars.saturating_add(own),
                Kind::Regular => regular = regular.saturating_add(own),
            }
        }
        init.max(regular.saturating_add(sidecars))
    }
}
