//! Which of the free CPUs a request takes: whole NUMA nodes and sockets first, then whole caches and cores,
//! then single CPUs; always from the fullest group that can serve it.

use crate::cpuset::CpuSet;
use crate::machine::{CpuTopology, Cpus, Level};

/// In which order single CPUs are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sorting {
    /// The CPUs of a core together.
    Packed,
    /// By their numbers in the socket, which spreads them over the cores.
    Spread,
}

/// How a request is served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) sorting: Sorting,
    pub(super) prefer_uncore: bool,
}

/// A request that is being served.
struct Accumulator<'a> {
    topology: &'a CpuTopology,
    free: Cpus,
    needed: usize,
    taken: CpuSet,
    /// NUMA nodes hold sockets, or sockets NUMA nodes.
    outer: Level,
    inner: Level,
    sorting: Sorting,
}

impl<'a> Accumulator<'a> {
    fn new(
        topology: &'a CpuTopology,
        available: &CpuSet,
        needed: usize,
        sorting: Sorting,
    ) -> Accumulator<'a> {
        let (outer, inner) = match topology.sockets >= topology.numa_nodes {
            true => (Level::Numa, Level::Socket),
            false => (Level::Socket, Level::Numa),
        };
        let free = topology.cpus.keep(available);
        Accumulator { topology, free, needed, taken: CpuSet::new(), outer, inner, sorting }
    }

    fn is_satisfied(&self) -> bool {
        self.needed == 0
    }

    /// By the number of free CPUs, then by id.
    fn sorted(&self, level: Level, inside: Option<(Level, usize)>) -> Vec<usize> {
        let mut groups = self.free.groups(level, inside);
        groups.sort_by_key(|id| (self.free.within(level, &[*id]).len(), *id));
        groups
    }

    /// The groups of a level, those of one larger group together.
    fn order(&self, level: Level) -> Vec<usize> {
        let parent = match level {
            _ if level == self.outer => return self.sorted(level, None),
            Level::Core => self.inner,
            Level::Uncore => Level::Numa,
            _ => self.outer,
        };
        let parents = self.order(parent).into_iter();
        parents.flat_map(|id| self.sorted(level, Some((parent, id)))).collect()
    }

    fn order_of_cpus(&self) -> Vec<usize> {
        let level = match self.sorting {
            Sorting::Packed => Level::Core,
            Sorting::Spread => Level::Socket,
        };
        let groups = self.order(level).into_iter();
        groups.flat_map(|id| self.free.within(level, &[id]).iter().collect::<Vec<_>>()).collect()
    }

    fn take(&mut self, cpus: &CpuSet) {
        self.taken = self.taken.union(cpus);
        self.free = self.free.keep(&self.free.all().difference(&self.taken));
        self.needed = self.needed.saturating_sub(cpus.len());
    }

    fn is_whole(&self, level: Level, id: usize, whole: &CpuSet) -> bool {
        let free = self.free.within(level, &[id]).len();
        free == match level {
            Level::Numa | Level::Uncore => whole.len(),
            Level::Socket => self.topology.cpus_per_socket(),
            Level::Core => self.topology.cpus_per_core(),
        }
    }

    /// Takes groups of which all CPUs are free, as long as the request needs them whole.
    fn take_whole(&mut self, level: Level) {
        let whole = |id: usize| self.topology.cpus.within(level, &[id]);
        let groups: Vec<CpuSet> = self
            .order(level)
            .into_iter()
            .map(|id| (id, whole(id)))
            .filter(|(id, cpus)| self.is_whole(level, *id, cpus))
            .map(|(_, cpus)| cpus)
            .collect();
        for cpus in groups {
            if self.needed >= cpus.len() {
                self.take(&cpus);
            }
        }
    }

    fn take_uncore(&mut self) {
        for cache in self.order(Level::Uncore) {
            if self.needed >= self.topology.cpus_per_uncore() {
                self.take_whole(Level::Uncore);
            }
            if !self.is_satisfied() {
                self.take_part_of_uncore(cache);
            }
            if self.is_satisfied() {
                return;
            }
        }
    }

    /// Takes all that is still needed from one cache, or nothing.
    fn take_part_of_uncore(&mut self, cache: usize) {
        let per_core = self.topology.cpus_per_core().max(1);
        let mut cores = self.free.groups(Level::Core, Some((Level::Uncore, cache)));
        cores.truncate(self.needed.div_ceil(per_core));
        let mut cpus: Vec<usize> = self.free.within(Level::Core, &cores).iter().collect();
        if !self.needed.is_multiple_of(2) && per_core > 1 && cpus.len() > self.needed {
            cpus.pop();
        }
        if cpus.len() == self.needed {
            self.take(&cpus.into_iter().collect());
        }
    }

    fn take_rest(&mut self) {
        for cpu in self.order_of_cpus() {
            if self.is_satisfied() {
                return;
            }
            self.take(&CpuSet::from([cpu]));
        }
    }
}

fn not_enough(needed: usize, available: usize) -> String {
    format!(
        "not enough cpus available to satisfy request: requested={needed}, available={available}"
    )
}

type Step = fn(&mut Accumulator<'_>);

/// As few NUMA nodes, sockets, caches and cores as possible.
pub(super) fn take_packed(
    topology: &CpuTopology,
    available: &CpuSet,
    needed: usize,
    manner: Manner,
) -> Result<CpuSet, String> {
    let mut acc = Accumulator::new(topology, available, needed, manner.sorting);
    if needed > acc.free.all().len() {
        return Err(not_enough(needed, available.len()));
    }
    let steps: [(bool, Step); 5] = [
        (true, |acc| acc.take_whole(acc.outer)),
        (true, |acc| acc.take_whole(acc.inner)),
        (manner.prefer_uncore, |acc| acc.take_uncore()),
        (manner.sorting == Sorting::Packed, |acc| acc.take_whole(Level::Core)),
        (true, |acc| acc.take_rest()),
    ];
    for (_, step) in steps.iter().filter(|(wanted, _)| *wanted) {
        if !acc.is_satisfied() {
            step(&mut acc);
        }
    }
    match acc.is_satisfied() {
        true => Ok(acc.taken),
        false => Err("failed to allocate cpus".into()),
    }
}

/// The free CPUs of each NUMA node, in the order in which nodes are considered.
pub(super) fn free_by_node(
    topology: &CpuTopology,
    available: &CpuSet,
    needed: usize,
    sorting: Sorting,
) -> Result<Vec<(usize, CpuSet)>, String> {
    let acc = Accumulator::new(topology, available, needed, sorting);
    if needed > acc.free.all().len() {
        return Err(not_enough(needed, available.len()));
    }
    let nodes = acc.order(Level::Numa).into_iter();
    Ok(nodes.map(|id| (id, acc.free.within(Level::Numa, &[id]))).collect())
}
