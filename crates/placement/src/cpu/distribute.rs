//! Spreads a request evenly over as few NUMA nodes as can serve it.

use std::collections::BTreeMap;

use super::assign::{Manner, Sorting, free_by_node, take_packed};
use crate::combine::combinations;
use crate::cpuset::CpuSet;
use crate::machine::{CpuTopology, Level};

/// Free CPUs by NUMA node.
type Counts = BTreeMap<usize, usize>;

/// A choice of nodes, and of those among them that serve what an even split leaves over.
struct Choice {
    nodes: Vec<usize>,
    rest: Vec<usize>,
    balance: f64,
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// How uneven the counts are: their standard deviation.
fn imbalance(counts: &Counts) -> f64 {
    let size = counts.len().max(1) as f64;
    let mean = thousandths(counts.values().map(|n| *n as f64).sum::<f64>() / size);
    let squares = counts.values().map(|n| (*n as f64 - mean).powi(2)).sum::<f64>();
    thousandths((squares / size).sqrt())
}

/// What every node gives of an even split into groups of CPUs.
fn even_part(needed: usize, nodes: usize, group: usize) -> usize {
    needed / nodes / group * group
}

/// Least and most nodes that a request could take.
fn range(topology: &CpuTopology, needed: usize, group: usize, available: usize) -> (usize, usize) {
    let groups = |cpus: usize| (cpus - 1) / group + 1;
    let nodes = topology.cpus.groups(Level::Numa, None).len();
    let per_node = (groups(topology.cpus.0.len()) - 1) / nodes + 1;
    let wanted = groups(needed);
    ((wanted - 1) / per_node + 1, wanted.min(available))
}

/// Takes groups of the rest from the nodes in turn, where a node has one left.
fn spread(counts: &mut Counts, nodes: &[usize], mut rest: usize, group: usize) -> Vec<usize> {
    let mut order = Vec::new();
    while rest > 0 {
        let before = rest;
        for node in nodes {
            let Some(left) = counts.get_mut(node).filter(|left| **left >= group) else { continue };
            if rest == 0 {
                break;
            }
            *left -= group;
            rest = rest.saturating_sub(group);
            order.push(*node);
        }
        if rest == before {
            return Vec::new();
        }
    }
    order
}

/// How the rest is best spread over these nodes.
fn best_rest(after: &Counts, nodes: &[usize], rest: usize, group: usize) -> Option<Choice> {
    if rest == 0 {
        return Some(Choice { nodes: Vec::new(), rest: Vec::new(), balance: imbalance(after) });
    }
    let able: Vec<usize> = nodes.iter().copied().filter(|n| after[n] >= group).collect();
    let mut best: Option<Choice> = None;
    for subset in (1..=able.len()).rev().flat_map(|size| combinations(&able, size)) {
        let mut counts = after.clone();
        if subset.iter().map(|n| after[n]).sum::<usize>() < rest
            || spread(&mut counts, &subset, rest, group).is_empty()
        {
            continue;
        }
        let balance = imbalance(&counts);
        if best.as_ref().is_none_or(|b| balance < b.balance) {
            best = Some(Choice { nodes: Vec::new(), rest: subset, balance });
        }
    }
    best
}

fn judge(free: &Counts, nodes: &[usize], needed: usize, group: usize) -> Option<Choice> {
    let groups: usize = nodes.iter().map(|n| free[n] / group).sum();
    let part = even_part(needed, nodes.len(), group);
    if groups * group < needed || nodes.iter().any(|n| free[n] < part) {
        return None;
    }
    let mut after = free.clone();
    for node in nodes {
        after.entry(*node).and_modify(|left| *left -= part);
    }
    let rest = needed - part * nodes.len();
    Some(Choice { nodes: nodes.to_vec(), ..best_rest(&after, nodes, rest, group)? })
}

fn best_choice(
    free: &Counts,
    order: &[usize],
    size: usize,
    wanted: (usize, usize),
) -> Option<Choice> {
    let (needed, group) = wanted;
    let mut best: Option<Choice> = None;
    for nodes in combinations(order, size) {
        if best.as_ref().is_some_and(|b| b.balance == 0.0) {
            break;
        }
        let Some(choice) = judge(free, &nodes, needed, group) else { continue };
        if best.as_ref().is_none_or(|b| choice.balance < b.balance) {
            best = Some(choice);
        }
    }
    best
}

/// Takes what was chosen, node by node.
fn take(
    topology: &CpuTopology,
    free: &BTreeMap<usize, CpuSet>,
    choice: &Choice,
    wanted: (usize, usize),
    manner: Manner,
) -> Result<CpuSet, String> {
    let (needed, group) = wanted;
    let part = even_part(needed, choice.nodes.len(), group);
    let mut taken = CpuSet::new();
    let mut from = |node: usize, count: usize| {
        let left = free[&node].difference(&taken);
        let cpus = take_packed(topology, &left, count, manner)?;
        taken = taken.union(&cpus);
        Ok::<(), String>(())
    };
    choice.nodes.iter().try_for_each(|node| from(*node, part))?;
    let rest = needed - part * choice.nodes.len();
    let mut counts: Counts = free.iter().map(|(node, cpus)| (*node, cpus.len())).collect();
    for node in &choice.nodes {
        counts.entry(*node).and_modify(|left| *left -= part);
    }
    let turns = spread(&mut counts, &choice.rest, rest, group);
    turns.into_iter().try_for_each(|node| from(node, group))?;
    match taken.len() == needed {
        true => Ok(taken),
        false => Err(format!(
            "accounting error, not enough CPUs allocated, remaining: {}",
            needed.saturating_sub(taken.len())
        )),
    }
}

/// Requests that are no multiple of `group`, and those that cannot be spread, are packed.
pub(super) fn take_distributed(
    topology: &CpuTopology,
    available: &CpuSet,
    needed: usize,
    group: usize,
    sorting: Sorting,
) -> Result<CpuSet, String> {
    let manner = Manner { sorting, prefer_uncore: false };
    if group == 0 || !needed.is_multiple_of(group) {
        return take_packed(topology, available, needed, manner);
    }
    if needed == 0 {
        return Ok(CpuSet::new());
    }
    let nodes = free_by_node(topology, available, needed, sorting)?;
    let order: Vec<usize> = nodes.iter().map(|(id, _)| *id).collect();
    let free: BTreeMap<usize, CpuSet> = nodes.into_iter().collect();
    let counts: Counts = free.iter().map(|(node, cpus)| (*node, cpus.len())).collect();
    let (least, most) = range(topology, needed, group, order.len());
    for size in least..=most {
        if let Some(choice) = best_choice(&counts, &order, size, (needed, group)) {
            return take(topology, &free, &choice, (needed, group), manner);
        }
    }
    take_packed(topology, available, needed, manner)
}
