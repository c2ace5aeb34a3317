//! What would have to change for a pending pod to fit: on the nearest node, in plain words after
//! upstream's message.

use std::sync::Arc;

use crate::framework::{Code, Cycle, NodeStatuses, Status, Victims};
use crate::profile::Profile;

/// Nodes that are looked at closely.
const NODES_MAX: usize = 64;

/// "To fit on the nearest node …": the node with the least to change, by name among equals, so that the
/// sentence stays the same while nothing changes.
pub(super) fn nearest(profile: &Profile, cycle: &Cycle<'_>, statuses: &NodeStatuses) -> String {
    let best = candidates(profile, statuses).into_iter().filter_map(|slot| {
        let node = cycle.snapshot.node(slot);
        let gaps = profile.gaps(cycle, node);
        let distance: f64 = gaps.iter().map(|gap| gap.distance).sum();
        (!gaps.is_empty()).then(|| (distance, node.name.clone(), gaps))
    });
    let best = best.min_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    let Some((_, name, gaps)) = best else { return String::new() };
    let remedies: Vec<&str> = gaps.iter().map(|gap| gap.remedy.as_str()).collect();
    format!("To fit on the nearest node {name}: {}.", remedies.join("; "))
}

/// Room is on its way.
pub(super) fn preemption(victims: &Victims) -> String {
    let pods = match victims.pods.len() {
        1 => "1 pod of lower priority ends".to_owned(),
        n => format!("{n} pods of lower priority end"),
    };
    format!("To fit on node {}: wait until {pods}.", victims.node)
}

/// The nodes that came furthest: rejected by the last filters, and there for a reason that can pass.
fn candidates(profile: &Profile, statuses: &NodeStatuses) -> Vec<u32> {
    let filters: Vec<&str> =
        profile.order.filter.iter().map(|at| profile.plugins[*at].name()).collect();
    // Most neighbours were rejected by the same plugin, whose name is the same text in memory.
    let mut last: (&str, usize) = ("", 0);
    let mut place = |status: &Arc<Status>| {
        if !std::ptr::eq(last.0, status.plugin) {
            let at = filters.iter().position(|name| *name == status.plugin);
            last = (status.plugin, at.unwrap_or(0));
        }
        (status.code == Code::Unschedulable, last.1)
    };
    let mut furthest = None;
    let mut slots: Vec<u32> = Vec::new();
    for (slot, status) in &statuses.explicit {
        let came = Some(place(status));
        if came > furthest {
            furthest = came;
            slots.clear();
        }
        if came == furthest {
            slots.push(*slot);
        }
    }
    slots.sort_unstable();
    slots.truncate(NODES_MAX);
    slots
}
