//! The policies `none` and `static`.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;

use super::assign::{Manner, Sorting, take_packed};
use super::distribute::take_distributed;
use super::options::CpuOptions;
use super::state::State;
use crate::cpuset::CpuSet;
use crate::error::AdmissionError;
use crate::figures::Figures;
use crate::machine::{CpuTopology, Level};
use crate::mask::{Hint, NumaMask};
use crate::pod::{Container, Kind, Pod};
use crate::provider::{HintProvider, Hints};

/// The static policy, made for a machine.
struct Static {
    topology: CpuTopology,
    options: CpuOptions,
    /// Never given to a container alone.
    reserved: CpuSet,
    /// All CPUs of the cores that reserved CPUs are of.
    reserved_cores: CpuSet,
    /// CPUs that ended init containers of the pod leave to its next ones.
    reusable: Option<(String, CpuSet)>,
}

pub(crate) struct CpuManager {
    policy: Option<Static>,
    state: State,
    figures: Figures,
}

impl Static {
    fn new(
        topology: CpuTopology,
        options: CpuOptions,
        reserved: (usize, CpuSet),
    ) -> Result<Static, String> {
        let (count, named) = reserved;
        let mut policy = Static {
            topology,
            options,
            reserved: CpuSet::new(),
            reserved_cores: CpuSet::new(),
            reusable: None,
        };
        let all = policy.topology.cpus.all();
        policy.reserved = match named.is_empty() {
            true => policy.take(&all, count).unwrap_or_default(),
            false => named,
        };
        if policy.reserved.len() != count {
            return Err(format!(
                "[cpumanager] unable to reserve the required amount of CPUs (size of {} did not equal {count})",
                policy.reserved
            ));
        }
        if let Some(cpu) = policy.reserved.difference(&all).iter().next() {
            return Err(format!(
                "[cpumanager] unable to build the reserved physical CPUs from the reserved set: unknown CPU ID: {cpu}"
            ));
        }
        let cores = policy.topology.cpus.keep(&policy.reserved).groups(Level::Core, None);
        policy.reserved_cores = policy.topology.cpus.within(Level::Core, &cores);
        Ok(policy)
    }

    fn take(&self, available: &CpuSet, count: usize) -> Result<CpuSet, String> {
        let sorting = match self.options.across_cores {
            true => Sorting::Spread,
            false => Sorting::Packed,
        };
        if self.options.across_numa {
            let group = match self.options.full_cores {
                true => self.topology.cpus_per_core(),
                false => 1,
            };
            return take_distributed(&self.topology, available, count, group, sorting);
        }
        let manner = Manner { sorting, prefer_uncore: self.options.uncore };
        take_packed(&self.topology, available, count, manner)
    }

    /// Begins a new state, or checks that of an earlier run.
    fn check(&self, state: &mut State) -> Result<(), String> {
        let all = self.topology.cpus.all();
        if state.default.is_empty() {
            if !state.assigned.is_empty() {
                return Err("default cpuset cannot be empty".into());
            }
            state.default = match self.options.strict {
                true => all.difference(&self.reserved),
                false => all,
            };
            state.store();
            return Ok(());
        }
        let (default, reserved) = (&state.default, &self.reserved);
        let shared = reserved.intersection(default);
        if self.options.strict && !shared.is_empty() {
            return Err(format!(
                "some of strictly reserved cpus: \"{shared}\" are present in defaultCpuSet: \"{default}\""
            ));
        }
        if !self.options.strict && shared != *reserved {
            return Err(format!(
                "not all reserved cpus: \"{reserved}\" are present in defaultCpuSet: \"{default}\""
            ));
        }
        for (pod, containers) in &state.assigned {
            let overlaps = |(_, cpus): &(&String, &CpuSet)| !default.intersection(cpus).is_empty();
            if let Some((container, cpus)) = containers.iter().find(overlaps) {
                return Err(format!(
                    "pod: {pod}, container: {container} cpuset: \"{cpus}\" overlaps with default cpuset \"{default}\""
                ));
            }
        }
        let known = default.union(&state.exclusive());
        match known == all {
            true => Ok(()),
            false => Err(format!(
                "current set of available CPUs \"{all}\" doesn't match with CPUs in state \"{known}\""
            )),
        }
    }

    fn reusable(&self, pod: &Pod) -> CpuSet {
        let of = self.reusable.as_ref().filter(|(uid, _)| *uid == pod.uid);
        of.map(|(_, cpus)| cpus.clone()).unwrap_or_default()
    }

    fn note_reusable(&mut self, pod: &Pod, container: &Container, cpus: &CpuSet) {
        let before = self.reusable(pod);
        let now = match container.kind {
            Kind::Init => before.union(cpus),
            Kind::Sidecar | Kind::Regular => before.difference(cpus),
        };
        self.reusable = Some((pod.uid.clone(), now));
    }

    fn check_alignment(&self, state: &State, count: usize) -> Result<(), AdmissionError> {
        if !self.options.full_cores {
            return Ok(());
        }
        let per_core = self.topology.cpus_per_core();
        if per_core > 0 && !count.is_multiple_of(per_core) {
            let why = format!("requested {count} cpus not multiple cpus per core = {per_core}");
            return Err(AdmissionError::alignment(&why));
        }
        let free = state.default.difference(&self.reserved_cores).len();
        if count > free {
            let why = format!(
                "not enough free physical CPUs: available physical CPUs = {free}, requested CPUs = {count}, CPUs per core = {per_core}"
            );
            return Err(AdmissionError::alignment(&why));
        }
        Ok(())
    }

    fn aligned(&self, nodes: NumaMask, available: &CpuSet) -> CpuSet {
        let nodes: Vec<usize> = nodes.nodes().collect();
        let cpus = &self.topology.cpus;
        let near = cpus.within(Level::Numa, &nodes);
        let near = match self.options.by_socket {
            true => cpus.within(Level::Socket, &cpus.keep(&near).groups(Level::Socket, None)),
            false => near,
        };
        near.intersection(available)
    }

    /// CPUs of the hinted nodes first, then any.
    fn choose(&self, state: &State, pod: &Pod, count: usize, hint: Hint) -> Result<CpuSet, String> {
        let available = state.default.difference(&self.reserved).union(&self.reusable(pod));
        let near = match hint.nodes {
            Some(nodes) => {
                let aligned = self.aligned(nodes, &available);
                self.take(&aligned, count.min(aligned.len()))?
            }
            None => CpuSet::new(),
        };
        let rest = self.take(&available.difference(&near), count - near.len())?;
        Ok(near.union(&rest))
    }

    fn hints_for(&self, available: &CpuSet, reusable: &CpuSet, request: usize) -> Vec<Hint> {
        let cpus = &self.topology.cpus;
        let nodes = cpus.groups(Level::Numa, None);
        let mut smallest = nodes.len();
        let mut fitting = Vec::new();
        for mask in NumaMask::combinations(&nodes) {
            let inside = cpus.within(Level::Numa, &mask.nodes().collect::<Vec<_>>());
            if inside.len() >= request {
                smallest = smallest.min(mask.count());
            }
            let own = reusable.intersection(&inside);
            let all_own_inside = own.len() == reusable.len();
            let there = own.len() + available.intersection(&inside).len();
            if all_own_inside && there >= request {
                fitting.push(mask);
            }
        }
        let preferred = |mask: NumaMask| {
            mask.count() == smallest
                || self.options.by_socket && self.is_socket_aligned(mask, smallest)
        };
        fitting.into_iter().map(|mask| Hint::new(mask, preferred(mask))).collect()
    }

    fn is_socket_aligned(&self, mask: NumaMask, smallest: usize) -> bool {
        let per_socket = self.topology.numa_nodes.checked_div(self.topology.sockets).unwrap_or(0);
        if per_socket == 0 {
            return false;
        }
        let cpus = &self.topology.cpus;
        let inside = cpus.within(Level::Numa, &mask.nodes().collect::<Vec<_>>());
        let sockets = cpus.keep(&inside).groups(Level::Socket, None).len();
        sockets == smallest.div_ceil(per_socket)
    }
}

/// Settings of the CPU manager.
pub(crate) struct Settings {
    pub(crate) is_static: bool,
    pub(crate) options: CpuOptions,
    /// So many CPUs are kept for the node itself; by their ids, if they were named.
    pub(crate) reserved: (usize, CpuSet),
}

impl CpuManager {
    pub(crate) fn new(
        topology: &CpuTopology,
        settings: Settings,
        dir: &Path,
        figures: &Figures,
    ) -> Result<CpuManager, String> {
        let policy = match settings.is_static {
            true => {
                let made = Static::new(topology.clone(), settings.options, settings.reserved);
                Some(made.map_err(|e| format!("new static policy error: {e}"))?)
            }
            false => None,
        };
        let name = if policy.is_some() { "static" } else { "none" };
        let mut state = State::restore(dir, name)?;
        if let Some(policy) = &policy {
            policy.check(&mut state)?;
        }
        let manager = CpuManager { policy, state, figures: figures.clone() };
        manager.count();
        Ok(manager)
    }

    fn count(&self) {
        let Some(policy) = &self.policy else { return };
        let (exclusive, shared) =
            (self.state.exclusive(), self.state.default.difference(&policy.reserved));
        let nodes = policy.topology.cpus.groups(Level::Numa, None).into_iter();
        let by_node = nodes.map(|id| {
            let inside = policy.topology.cpus.within(Level::Numa, &[id]);
            (id, inside.intersection(&exclusive).len())
        });
        self.figures.cpus(exclusive.len(), shared.len(), by_node.collect());
    }

    /// The CPUs that a container is bound to: its own, or those that all others share. Empty: all.
    pub(crate) fn cpus(&self, pod: &str, container: &str) -> CpuSet {
        match self.policy {
            Some(_) => self.state.of(pod, container).unwrap_or(&self.state.default).clone(),
            None => CpuSet::new(),
        }
    }

    pub(crate) fn exclusive(&self, pod: &str, container: &str) -> Option<CpuSet> {
        self.state.of(pod, container).cloned()
    }

    pub(crate) fn allocatable(&self) -> Option<CpuSet> {
        self.policy.as_ref().map(|p| p.topology.cpus.all().difference(&p.reserved))
    }

    /// Takes back the CPUs of pods that are no more.
    pub(crate) fn retain(&mut self, is_active: impl Fn(&str) -> bool) {
        let gone: Vec<String> =
            self.state.assigned.keys().filter(|uid| !is_active(uid)).cloned().collect();
        if gone.is_empty() {
            return;
        }
        let freed = gone.iter().filter_map(|uid| self.state.assigned.remove(uid));
        let freed: CpuSet =
            freed.flat_map(BTreeMap::into_values).fold(CpuSet::new(), |all, c| all.union(&c));
        // Init containers share CPUs with the containers that came after them, in one pod only.
        self.state.default = self.state.default.union(&freed);
        self.state.store();
        self.count();
    }

    fn give(&mut self, pod: &Pod, container: &Container, hint: Hint) -> Result<(), AdmissionError> {
        let Some(policy) = &mut self.policy else { return Ok(()) };
        let count = pod.exclusive_cpus(container);
        if count == 0 || !pod.may_pin() {
            return Ok(());
        }
        self.figures.pinning_requested();
        policy.check_alignment(&self.state, count)?;
        if let Some(cpus) = self.state.of(&pod.uid, &container.name) {
            policy.note_reusable(pod, container, cpus);
            return Ok(());
        }
        let cpus = policy.choose(&self.state, pod, count, hint);
        let cpus = cpus.map_err(AdmissionError::unexpected)?;
        self.state.default = self.state.default.difference(&cpus);
        policy.note_reusable(pod, container, &cpus);
        if policy.topology.is_uncore_aligned(&cpus) {
            self.figures.aligned("container", "uncore_cache");
        }
        let of_pod = self.state.assigned.entry(pod.uid.clone()).or_default();
        of_pod.insert(container.name.clone(), cpus);
        self.state.store();
        self.count();
        Ok(())
    }
}

fn only(hints: Vec<Hint>) -> Hints {
    Hints::from([("cpu".to_owned(), Some(hints))])
}

#[async_trait]
impl HintProvider for CpuManager {
    fn hints(&mut self, pod: &Pod, container: &Container) -> Hints {
        let request = pod.exclusive_cpus(container);
        let Some(policy) = &self.policy else { return Hints::new() };
        if request == 0 || !pod.may_pin() {
            return Hints::new();
        }
        if let Some(given) = self.state.of(&pod.uid, &container.name) {
            return only(match given.len() == request {
                true => policy.hints_for(given, &CpuSet::new(), request),
                false => Vec::new(),
            });
        }
        let available = self.state.default.difference(&policy.reserved);
        only(policy.hints_for(&available, &policy.reusable(pod), request))
    }

    fn pod_hints(&mut self, pod: &Pod) -> Hints {
        let peak = pod.peak(|c| pod.exclusive_cpus(c) as u64);
        let request = usize::try_from(peak).unwrap_or(usize::MAX);
        let Some(policy) = &self.policy else { return Hints::new() };
        if request == 0 || !pod.may_pin() {
            return Hints::new();
        }
        let mut given = CpuSet::new();
        for container in &pod.containers {
            let Some(cpus) = self.state.of(&pod.uid, &container.name) else { continue };
            if cpus.len() != pod.exclusive_cpus(container) {
                return only(Vec::new());
            }
            given = given.union(cpus);
        }
        if given.len() == request {
            return only(policy.hints_for(&given, &CpuSet::new(), request));
        }
        let available = self.state.default.difference(&policy.reserved);
        only(policy.hints_for(&available, &policy.reusable(pod).union(&given), request))
    }

    async fn allocate(
        &mut self,
        pod: &Pod,
        container: &Container,
        affinity: Hint,
    ) -> Result<(), AdmissionError> {
        let given = self.give(pod, container, affinity);
        let full_cores = self.policy.as_ref().is_some_and(|p| p.options.full_cores);
        let asked = pod.may_pin() && pod.exclusive_cpus(container) > 0;
        match (&given, full_cores && asked) {
            (Ok(()), true) => self.figures.aligned("container", "physical_cpu"),
            (Err(_), true) => self.figures.not_aligned("container", "physical_cpu"),
            _ => {}
        }
        if given.is_err() {
            self.figures.pinning_failed();
        }
        given
    }
}
