//! CPUs, caches and memory of a machine, by NUMA node.

use std::collections::{BTreeMap, BTreeSet};

use crate::cpuset::CpuSet;

/// Where a CPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    pub numa: usize,
    pub socket: usize,
    /// The lowest CPU of the physical core: unique on the machine.
    pub core: usize,
    /// The last-level cache.
    pub uncore: usize,
}

/// What CPUs share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Numa,
    Socket,
    Uncore,
    Core,
}

/// CPUs by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus(pub(crate) BTreeMap<usize, Cpu>);

impl FromIterator<(usize, Cpu)> for Cpus {
    fn from_iter<I: IntoIterator<Item = (usize, Cpu)>>(cpus: I) -> Cpus {
        Cpus(cpus.into_iter().collect())
    }
}

impl Cpu {
    pub(crate) fn at(&self, level: Level) -> usize {
        match level {
            Level::Numa => self.numa,
            Level::Socket => self.socket,
            Level::Uncore => self.uncore,
            Level::Core => self.core,
        }
    }
}

impl Cpus {
    pub fn all(&self) -> CpuSet {
        self.0.keys().copied().collect()
    }

    /// The CPUs of these groups.
    pub(crate) fn within(&self, level: Level, groups: &[usize]) -> CpuSet {
        let inside = self.0.iter().filter(|(_, cpu)| groups.contains(&cpu.at(level)));
        inside.map(|(id, _)| *id).collect()
    }

    /// The groups of a level, ascending; only those in one group of another level, if one is given.
    pub(crate) fn groups(&self, level: Level, inside: Option<(Level, usize)>) -> Vec<usize> {
        let fits = |cpu: &&Cpu| inside.is_none_or(|(outer, id)| cpu.at(outer) == id);
        let groups: BTreeSet<usize> =
            self.0.values().filter(fits).map(|cpu| cpu.at(level)).collect();
        groups.into_iter().collect()
    }

    pub(crate) fn keep(&self, cpus: &CpuSet) -> Cpus {
        let kept = self.0.iter().filter(|(id, _)| cpus.contains(**id));
        kept.map(|(id, cpu)| (*id, *cpu)).collect()
    }
}

/// The CPUs of a machine, with the counts that decide what is a whole core or socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuTopology {
    pub cpus: Cpus,
    pub sockets: usize,
    pub cores: usize,
    pub numa_nodes: usize,
    pub uncore_caches: usize,
}

impl CpuTopology {
    pub fn new(cpus: Cpus) -> CpuTopology {
        let count = |level| cpus.groups(level, None).len();
        CpuTopology {
            sockets: count(Level::Socket),
            cores: count(Level::Core),
            numa_nodes: count(Level::Numa),
            uncore_caches: count(Level::Uncore),
            cpus,
        }
    }

    fn per(&self, groups: usize) -> usize {
        self.cpus.0.len().checked_div(groups).unwrap_or(0)
    }

    pub fn cpus_per_core(&self) -> usize {
        self.per(self.cores)
    }

    pub(crate) fn cpus_per_socket(&self) -> usize {
        self.per(self.sockets)
    }

    pub(crate) fn cpus_per_uncore(&self) -> usize {
        self.per(self.uncore_caches)
    }

    /// Whether the CPUs share one last-level cache.
    pub(crate) fn is_uncore_aligned(&self, cpus: &CpuSet) -> bool {
        self.cpus.keep(cpus).groups(Level::Uncore, None).len() <= 1
    }
}

/// Memory of a NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumaNode {
    pub id: usize,
    pub memory_bytes: u64,
    /// Bytes of a page, and how many there are.
    pub huge_pages: Vec<(u64, u64)>,
    /// To the nodes in the order of their ids.
    pub distances: Vec<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpus: CpuTopology,
    pub nodes: Vec<NumaNode>,
}
