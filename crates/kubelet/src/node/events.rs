//! Events about the node itself: conditions that changed, another boot, cordon (kubelet `setters.go`,
//! `recordNodeSchedulableEvent`).

use client::EventType;
use k8s_openapi::api::core::v1::NodeStatus;

use super::about;
use crate::kubelet::Shared;

/// Condition type, the reason when it becomes true, the reason when it becomes false.
const CONDITIONS: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
    ("Ready", "NodeReady", "NodeNotReady"),
];

/// Reasons of the conditions that differ between two statuses. A status without the condition differs from one with
/// it, so a node that registers reports all of them.
fn reasons(old: &NodeStatus, new: &NodeStatus) -> Vec<&'static str> {
    let changed = CONDITIONS.iter().filter_map(|(kind, on, off)| {
        let now = status_of(new, kind)?;
        (status_of(old, kind) != Some(now)).then_some(if now == "True" { *on } else { *off })
    });
    changed.collect()
}

fn status_of<'a>(status: &'a NodeStatus, kind: &str) -> Option<&'a str> {
    let mut all = status.conditions.iter().flatten();
    all.find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}

/// The boot id of a machine that was started again since the old status.
fn rebooted<'a>(old: &NodeStatus, new: &'a NodeStatus) -> Option<&'a str> {
    let before = old.node_info.as_ref().map(|info| info.boot_id.as_str()).unwrap_or_default();
    let now = new.node_info.as_ref()?.boot_id.as_str();
    (!before.is_empty() && before != now).then_some(now)
}

/// Records what changed from one status to the next.
pub(super) fn of_status(shared: &Shared, old: &NodeStatus, new: &NodeStatus) {
    let name = &shared.config.node_name;
    reasons(old, new).into_iter().for_each(|reason| status_is(shared, reason));
    if let Some(boot_id) = rebooted(old, new) {
        let text = format!("Node {name} has been rebooted, boot id: {boot_id}");
        shared.recorder.event(&about(shared), EventType::Warning, "Rebooted", text);
    }
}

/// Records that the node was cordoned or uncordoned.
pub(super) fn of_schedulability(shared: &Shared, is_unschedulable: bool) {
    status_is(shared, if is_unschedulable { "NodeNotSchedulable" } else { "NodeSchedulable" });
}

fn status_is(shared: &Shared, reason: &'static str) {
    let text = format!("Node {} status is now: {reason}", shared.config.node_name);
    shared.recorder.event(&about(shared), EventType::Normal, reason, text);
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeCondition, NodeSystemInfo};

    use super::*;

    fn status(conditions: &[(&str, &str)], boot_id: &str) -> NodeStatus {
        let condition = |(kind, status): &(&str, &str)| NodeCondition {
            type_: (*kind).into(),
            status: (*status).into(),
            ..NodeCondition::default()
        };
        NodeStatus {
            conditions: Some(conditions.iter().map(condition).collect()),
            node_info: Some(NodeSystemInfo { boot_id: boot_id.into(), ..Default::default() }),
            ..NodeStatus::default()
        }
    }

    #[test]
    fn each_condition_that_changes_has_its_reason() {
        let calm = status(&[("MemoryPressure", "False"), ("Ready", "True")], "a");
        let full = status(&[("MemoryPressure", "True"), ("Ready", "True")], "a");
        assert_eq!(reasons(&calm, &calm), [""; 0]);
        assert_eq!(reasons(&calm, &full), ["NodeHasInsufficientMemory"]);
        assert_eq!(reasons(&full, &calm), ["NodeHasSufficientMemory"]);
        assert_eq!(
            reasons(&NodeStatus::default(), &calm),
            ["NodeHasSufficientMemory", "NodeReady"]
        );
        let lost = status(&[("MemoryPressure", "Unknown"), ("Ready", "Unknown")], "a");
        assert_eq!(reasons(&lost, &calm), ["NodeHasSufficientMemory", "NodeReady"]);
        assert_eq!(reasons(&calm, &status(&[("Ready", "False")], "a")), ["NodeNotReady"]);
    }

    #[test]
    fn another_boot_is_told_once_there_was_one() {
        let (first, second) = (status(&[], "a"), status(&[], "b"));
        assert_eq!(rebooted(&first, &second), Some("b"));
        assert_eq!(rebooted(&first, &first), None);
        assert_eq!(rebooted(&NodeStatus::default(), &first), None);
    }
}
