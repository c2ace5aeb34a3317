//! The policies `None` and `Static`.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;

use super::reserved::Reserved;
use super::state::{Block, Node, Nodes, State, Table};
use crate::error::AdmissionError;
use crate::figures::Figures;
use crate::machine::NumaNode;
use crate::mask::{Hint, NumaMask};
use crate::pod::{Container, Kind, Pod};
use crate::provider::{HintProvider, Hints};

/// Bytes by resource.
type Request = BTreeMap<String, u64>;

pub(crate) struct MemoryManager {
    is_static: bool,
    state: State,
    /// Memory that ended init containers of a pod leave to its next containers, by nodes and resource.
    reusable: (String, BTreeMap<(NumaMask, String), u64>),
    figures: Figures,
}

/// The resource name of pages of a size.
fn page_name(bytes: u64) -> String {
    let units = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    let fits = units.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit));
    let size = fits.map_or(bytes.to_string(), |(unit, name)| format!("{}{name}", bytes / unit));
    format!("hugepages-{size}")
}

fn table(total: u64, reserved: u64, other: u64) -> Table {
    let allocatable = total.saturating_sub(reserved).saturating_sub(other);
    Table { total, system_reserved: reserved, allocatable, reserved: 0, free: allocatable }
}

/// The nodes before any container.
fn fresh(nodes: &[NumaNode], reserved: &Reserved) -> Nodes {
    let of = |node: usize, name: &str| reserved.get(&node).and_then(|r| r.get(name)).copied();
    let one = |node: &NumaNode| {
        let pages = |(size, count): &(u64, u64)| {
            let name = page_name(*size);
            let kept = of(node.id, &name).unwrap_or(0);
            (name, table(size.saturating_mul(*count), kept, 0))
        };
        let mut memory_map: BTreeMap<String, Table> = node.huge_pages.iter().map(pages).collect();
        let in_pages = memory_map.values().map(|t| t.total).sum();
        let kept = of(node.id, "memory").unwrap_or(0);
        memory_map.insert("memory".into(), table(node.memory_bytes, kept, in_pages));
        (node.id, Node { number_of_assignments: 0, memory_map, cells: vec![node.id] })
    };
    nodes.iter().map(one).collect()
}

fn same_nodes(one: &[usize], other: &[usize]) -> bool {
    NumaMask::of(one.iter().copied()) == NumaMask::of(other.iter().copied())
}

/// Takes memory from the nodes in their order, as far as they have any.
fn charge(nodes: &mut Nodes, affinity: &[usize], kind: &str, mut size: u64) {
    for id in affinity {
        let Some(node) = nodes.get_mut(id) else { continue };
        node.number_of_assignments += 1;
        node.cells = affinity.to_vec();
        let Some(table) = node.memory_map.get_mut(kind) else { continue };
        let part = size.min(table.free);
        table.reserved += part;
        table.free -= part;
        size -= part;
    }
}

fn release(nodes: &mut Nodes, block: &Block) {
    let mut size = block.size;
    for id in &block.numa_affinity {
        let Some(node) = nodes.get_mut(id) else { continue };
        node.number_of_assignments -= 1;
        if node.number_of_assignments == 0 {
            node.cells = vec![*id];
        }
        let Some(table) = node.memory_map.get_mut(&block.kind) else { continue };
        let part = size.min(table.reserved);
        table.free += part;
        table.reserved -= part;
        size -= part;
    }
}

fn total(nodes: &Nodes, mask: NumaMask, kind: &str, of: fn(&Table) -> u64) -> u64 {
    let tables = mask.nodes().filter_map(|id| nodes.get(&id)?.memory_map.get(kind));
    tables.map(of).fold(0, u64::saturating_add)
}

fn satisfies(nodes: &Nodes, mask: NumaMask, request: &Request) -> bool {
    request.iter().all(|(kind, size)| total(nodes, mask, kind, |t| t.free) >= *size)
}

/// Nodes that already give memory together give it only together.
fn violates_groups(nodes: &Nodes, mask: NumaMask) -> bool {
    let group: Vec<usize> = mask.nodes().collect();
    group.len() > 1
        && group.iter().filter_map(|id| nodes.get(id)).any(|node| {
            node.number_of_assignments > 0
                && (node.cells.len() == 1 || !same_nodes(&node.cells, &group))
        })
}

/// Whether both describe the same machine with the same memory given away.
fn same_state(one: &Nodes, other: &Nodes) -> bool {
    let sum = |nodes: &Nodes, cells: &[usize], kind: &str| {
        let mask = NumaMask::of(cells.iter().copied());
        (total(nodes, mask, kind, |t| t.free), total(nodes, mask, kind, |t| t.reserved))
    };
    let same_table = |node: &Node, kind: &str, a: &Table, b: &Table| {
        (a.total, a.system_reserved, a.allocatable) == (b.total, b.system_reserved, b.allocatable)
            && sum(one, &node.cells, kind) == sum(other, &node.cells, kind)
    };
    let same_node = |a: &Node, b: &Node| {
        let tables = a.memory_map.iter();
        a.number_of_assignments == b.number_of_assignments
            && same_nodes(&a.cells, &b.cells)
            && a.memory_map.len() == b.memory_map.len()
            && tables.into_iter().all(|(kind, t)| {
                b.memory_map.get(kind).is_some_and(|other| same_table(a, kind, t, other))
            })
    };
    one.len() == other.len()
        && one.iter().all(|(id, node)| other.get(id).is_some_and(|o| same_node(node, o)))
}

fn best(hints: &[Hint]) -> Option<Hint> {
    let mut best: Option<Hint> = None;
    for hint in hints {
        let better = |b: &Hint| match (hint.preferred, b.preferred) {
            (one, other) if one != other => one,
            _ => match (hint.nodes, b.nodes) {
                (Some(one), Some(other)) => one.is_narrower_than(other),
                _ => false,
            },
        };
        if best.as_ref().is_none_or(better) {
            best = Some(*hint);
        }
    }
    best
}

/// Adds up what the state says that containers have.
fn expected(mut nodes: Nodes, state: &State) -> Result<Nodes, String> {
    for (pod, containers) in &state.assigned {
        for (container, blocks) in containers {
            for block in blocks {
                let refused = |why: &str| {
                    format!(
                        "[memorymanager] (pod: {pod}, container: {container}) the memory assignment uses {why}"
                    )
                };
                for id in &block.numa_affinity {
                    let node = nodes.get(id);
                    let node = node.ok_or_else(|| refused("the NUMA that does not exist"))?;
                    if !node.memory_map.contains_key(&block.kind) {
                        return Err(refused("memory resource that does not exist"));
                    }
                }
                charge(&mut nodes, &block.numa_affinity, &block.kind, block.size);
            }
        }
    }
    Ok(nodes)
}

impl MemoryManager {
    /// With what is reserved, the policy is `Static`; without, it is `None`.
    pub(crate) fn new(
        nodes: &[NumaNode],
        reserved: Option<Reserved>,
        dir: &Path,
        figures: &Figures,
    ) -> Result<MemoryManager, String> {
        let is_static = reserved.is_some();
        let mut state = State::restore(dir, if is_static { "Static" } else { "None" })?;
        if let Some(reserved) = reserved {
            let fresh = fresh(nodes, &reserved);
            if state.nodes.is_empty() {
                if !state.assigned.is_empty() {
                    return Err("[memorymanager] machine state can not be empty when it has memory assignments".into());
                }
                state.nodes = fresh;
                state.store();
            } else if !same_state(&state.nodes, &expected(fresh, &state)?) {
                return Err(
                    "[memorymanager] the expected machine state is different from the real one"
                        .into(),
                );
            }
        }
        let reusable = (String::new(), BTreeMap::new());
        Ok(MemoryManager { is_static, state, reusable, figures: figures.clone() })
    }

    pub(crate) fn blocks(&self, pod: &str, container: &str) -> Vec<Block> {
        self.state.of(pod, container).cloned().unwrap_or_default()
    }

    /// What containers may have of each node.
    pub(crate) fn allocatable(&self) -> Vec<Block> {
        let mut all = Vec::new();
        for (id, node) in &self.state.nodes {
            let tables = node.memory_map.iter().filter(|(_, t)| t.allocatable > 0);
            all.extend(tables.map(|(kind, t)| Block {
                numa_affinity: vec![*id],
                kind: kind.clone(),
                size: t.allocatable,
            }));
        }
        all
    }

    /// The NUMA nodes that a container is bound to; none: all.
    pub(crate) fn nodes(&self, pod: &str, container: &str) -> NumaMask {
        let blocks = self.state.of(pod, container).into_iter().flatten();
        NumaMask::of(blocks.flat_map(|b| b.numa_affinity.iter().copied()))
    }

    fn remove(&mut self, pod: &str, container: &str) -> bool {
        let Some(containers) = self.state.assigned.get_mut(pod) else { return false };
        let Some(blocks) = containers.remove(container) else { return false };
        if containers.is_empty() {
            self.state.assigned.remove(pod);
        }
        blocks.iter().for_each(|block| release(&mut self.state.nodes, block));
        true
    }

    /// Takes back the memory of pods that are no more.
    pub(crate) fn retain(&mut self, is_active: impl Fn(&str) -> bool) {
        let gone = self.state.assigned.iter().filter(|(uid, _)| !is_active(uid));
        let gone: Vec<(String, String)> = gone
            .flat_map(|(uid, list)| list.keys().map(|name| (uid.clone(), name.clone())))
            .collect();
        let removed = gone.iter().filter(|(pod, name)| self.remove(pod, name)).count();
        if removed > 0 {
            self.state.store();
        }
    }

    /// A container starts: the init containers before it have ended.
    pub(crate) fn started(&mut self, pod: &Pod, container: &str) {
        let before = pod.containers.iter().take_while(|c| c.name != container);
        let ended: Vec<_> = before.filter(|c| c.kind == Kind::Init).map(|c| &c.name).collect();
        let removed = ended.into_iter().filter(|name| self.remove(&pod.uid, name)).count();
        if removed > 0 {
            self.state.store();
        }
    }

    fn reusable(&self, pod: &Pod, mask: NumaMask, kind: &str) -> u64 {
        match self.reusable.0 == pod.uid {
            true => self.reusable.1.get(&(mask, kind.to_owned())).copied().unwrap_or(0),
            false => 0,
        }
    }

    fn note_reusable(&mut self, pod: &Pod, container: &Container, blocks: &[Block]) {
        if self.reusable.0 != pod.uid {
            self.reusable = (pod.uid.clone(), BTreeMap::new());
        }
        for block in blocks {
            let mask = NumaMask::of(block.numa_affinity.iter().copied());
            let left = self.reusable.1.entry((mask, block.kind.clone())).or_default();
            *left = match container.kind {
                Kind::Init => block.size.max(*left),
                Kind::Sidecar | Kind::Regular => left.saturating_sub(block.size),
            };
        }
    }

    /// Combinations of nodes that have what is requested.
    fn calculate(&self, pod: &Pod, request: &Request) -> BTreeMap<String, Vec<Hint>> {
        let nodes = &self.state.nodes;
        let ids: Vec<usize> = nodes.keys().copied().collect();
        let mut smallest = ids.len();
        let mut fitting = Vec::new();
        for mask in NumaMask::combinations(&ids) {
            let could = |(kind, size): (&String, &u64)| {
                total(nodes, mask, kind, |t| t.allocatable) >= *size
            };
            if !request.iter().all(could) {
                continue;
            }
            smallest = smallest.min(mask.count());
            let in_group = mask.count() == 1
                && mask.nodes().any(|id| nodes.get(&id).is_some_and(|n| n.cells.len() > 1));
            let has = |(kind, size): (&String, &u64)| {
                let own = self.reusable(pod, mask, kind);
                total(nodes, mask, kind, |t| t.free).saturating_add(own) >= *size
            };
            if !in_group && !violates_groups(nodes, mask) && request.iter().all(has) {
                fitting.push(mask);
            }
        }
        if fitting.is_empty() {
            return BTreeMap::new();
        }
        let hints: Vec<Hint> =
            fitting.into_iter().map(|m| Hint::new(m, m.count() == smallest)).collect();
        request.keys().map(|kind| (kind.clone(), hints.clone())).collect()
    }

    fn hints_of(&self, pod: &Pod, request: &Request, given: Option<&Vec<Block>>) -> Hints {
        let Some(blocks) = given else {
            let found = self.calculate(pod, request);
            return match found.is_empty() && !request.is_empty() {
                // No combination at all: upstream's provider then says nothing.
                true => Hints::new(),
                false => found.into_iter().map(|(kind, list)| (kind, Some(list))).collect(),
            };
        };
        let same = blocks.len() == request.len()
            && blocks.iter().all(|b| request.get(&b.kind) == Some(&b.size));
        if !same {
            return Hints::new();
        }
        let hint = |b: &Block| Hint::new(NumaMask::of(b.numa_affinity.iter().copied()), true);
        blocks.iter().map(|b| (b.kind.clone(), Some(vec![hint(b)]))).collect()
    }

    /// The nodes of the hint, or more of them when they have not enough.
    fn choose(&self, pod: &Pod, request: &Request, hint: Hint) -> Result<NumaMask, String> {
        let memory = || self.calculate(pod, request).remove("memory").unwrap_or_default();
        let mut chosen = hint;
        if hint.nodes.is_none() {
            let found = self.calculate(pod, request);
            if found.is_empty() {
                return Err("[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available".into());
            }
            let list = found.get("memory").or_else(|| found.values().next());
            chosen = list.and_then(|list| best(list)).unwrap_or(Hint::any(false));
            if !chosen.preferred && hint.preferred {
                return Err("[memorymanager] failed to find the default preferred hint".into());
            }
        }
        let nodes = chosen.nodes.unwrap_or_default();
        if !satisfies(&self.state.nodes, nodes, request) {
            let holds = |h: &Hint| h.nodes.is_some_and(|mask| mask.and(nodes) == nodes);
            let wider: Vec<Hint> = memory().into_iter().filter(holds).collect();
            let Some(found) = best(&wider) else {
                return Err(
                    "[memorymanager] failed to find NUMA nodes to extend the current topology hint"
                        .into(),
                );
            };
            if !found.preferred && chosen.preferred {
                return Err("[memorymanager] failed to find the extended preferred hint".into());
            }
            chosen = found;
        }
        let nodes = chosen.nodes.unwrap_or_default();
        match violates_groups(&self.state.nodes, nodes) {
            true => Err("[memorymanager] preferred hint violates NUMA node allocation".into()),
            false => Ok(nodes),
        }
    }

    /// Init containers before this one leave it the memory that it takes over from them.
    fn shrink_init_blocks(&mut self, pod: &Pod, container: &Container, blocks: &[Block]) {
        let Some(of_pod) = self.state.assigned.get_mut(&pod.uid) else { return };
        for block in blocks {
            let mut size = block.size;
            let before = pod.containers.iter().take_while(|c| c.name != container.name);
            for init in before.filter(|c| c.kind == Kind::Init) {
                let theirs = of_pod.get_mut(&init.name).into_iter().flatten();
                let alike = |b: &&mut Block| {
                    b.kind == block.kind && same_nodes(&b.numa_affinity, &block.numa_affinity)
                };
                for own in theirs.filter(alike) {
                    let part = size.min(own.size);
                    own.size -= part;
                    size -= part;
                }
            }
        }
    }

    fn give(&mut self, pod: &Pod, container: &Container, hint: Hint) -> Result<(), String> {
        if let Some(blocks) = self.state.of(&pod.uid, &container.name).cloned() {
            self.note_reusable(pod, container, &blocks);
            return Ok(());
        }
        let nodes = self.choose(pod, &container.memory, hint)?;
        let affinity: Vec<usize> = nodes.nodes().collect();
        let mut blocks = Vec::new();
        for (kind, size) in &container.memory {
            let more = size.saturating_sub(self.reusable(pod, nodes, kind));
            charge(&mut self.state.nodes, &affinity, kind, more);
            blocks.push(Block { numa_affinity: affinity.clone(), kind: kind.clone(), size: *size });
        }
        self.note_reusable(pod, container, &blocks);
        let of_pod = self.state.assigned.entry(pod.uid.clone()).or_default();
        of_pod.insert(container.name.clone(), blocks.clone());
        // The container itself keeps its block.
        self.shrink_init_blocks(pod, container, &blocks);
        self.state.store();
        Ok(())
    }
}

#[async_trait]
impl HintProvider for MemoryManager {
    fn hints(&mut self, pod: &Pod, container: &Container) -> Hints {
        if !self.is_static || !pod.may_pin() {
            return Hints::new();
        }
        let given = self.state.of(&pod.uid, &container.name);
        self.hints_of(pod, &container.memory, given)
    }

    fn pod_hints(&mut self, pod: &Pod) -> Hints {
        if !self.is_static || !pod.may_pin() {
            return Hints::new();
        }
        let regular = pod.containers.iter().filter(|c| c.kind == Kind::Regular);
        let kinds = regular.flat_map(|c| c.memory.keys());
        let peak = |kind: &str| pod.peak(|c| c.memory.get(kind).copied().unwrap_or(0));
        let request: Request = kinds.map(|kind| (kind.clone(), peak(kind))).collect();
        if request.is_empty() {
            return Hints::new();
        }
        let mut given = pod.containers.iter().filter_map(|c| self.state.of(&pod.uid, &c.name));
        let first = given.next().cloned();
        self.hints_of(pod, &request, first.as_ref())
    }

    async fn allocate(
        &mut self,
        pod: &Pod,
        container: &Container,
        affinity: Hint,
    ) -> Result<(), AdmissionError> {
        if !self.is_static || !pod.may_pin() {
            return Ok(());
        }
        self.figures.memory_requested();
        self.give(pod, container, affinity).map_err(|why| {
            self.figures.memory_failed();
            AdmissionError::unexpected(why)
        })
    }
}
