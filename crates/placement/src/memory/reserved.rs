//! Memory that is kept for the node itself, by NUMA node (`reservedMemory`). Texts are upstream's.

use std::collections::BTreeMap;

use crate::machine::NumaNode;

/// One entry of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub numa_node: usize,
    /// Bytes by resource.
    pub limits: BTreeMap<String, u64>,
}

/// Bytes by node and resource.
pub(crate) type Reserved = BTreeMap<usize, BTreeMap<String, u64>>;

/// Checks that what is reserved of the nodes is, in all, what the node as a whole keeps back (`total`).
pub(crate) fn check(
    nodes: &[NumaNode],
    total: &BTreeMap<String, u64>,
    list: &[Reservation],
) -> Result<Reserved, String> {
    let mut by_type: BTreeMap<&str, u64> = BTreeMap::new();
    let mut reserved: Reserved = nodes.iter().map(|n| (n.id, BTreeMap::new())).collect();
    for entry in list {
        let Some(of_node) = reserved.get_mut(&entry.numa_node) else {
            return Err(format!(
                "the reserved memory configuration references a NUMA node {} that does not exist on this machine",
                entry.numa_node
            ));
        };
        for (name, bytes) in &entry.limits {
            let sum = by_type.entry(name).or_default();
            *sum = sum.saturating_add(*bytes);
            of_node.insert(name.clone(), *bytes);
        }
    }
    let of_memory = |name: &&str| *name == "memory" || name.starts_with("hugepages-");
    let totals = total.keys().map(String::as_str).filter(of_memory);
    let mut types: Vec<&str> = by_type.keys().copied().chain(totals).collect();
    types.sort_unstable();
    types.dedup();
    for name in types {
        let here = by_type.get(name).copied().unwrap_or(0);
        let expected = total.get(name).copied().unwrap_or(0);
        if here != expected {
            return Err(format!(
                "the total amount \"{here}\" of type {name:?} is not equal to the value \"{expected}\" determined by Node Allocatable feature"
            ));
        }
    }
    if by_type.get("memory").is_none_or(|bytes| *bytes == 0) {
        return Err("[memorymanager] you should specify the system reserved memory".into());
    }
    Ok(reserved)
}
