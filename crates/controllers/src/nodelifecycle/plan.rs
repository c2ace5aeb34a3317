//! A node and whether it has fallen silent in; its conditions and taints as they shall be out.

use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that are unknown when the kubelet is silent.
const POSTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Condition, its status, and the taint that this stands for.
const TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

pub(crate) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == kind)
}

/// `True`, `False` or `Unknown`; empty when it was never posted.
pub(crate) fn readiness(node: &Node) -> &str {
    condition(node, "Ready").map_or("", |c| c.status.as_str())
}

/// The node with all that the kubelet posts declared unknown, if it is not so yet.
pub(crate) fn silenced(node: &Node, now: &Time) -> Option<Node> {
    let mut new = node.clone();
    let conditions = new.status.get_or_insert_default().conditions.get_or_insert_default();
    for kind in POSTED {
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            None => conditions.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(now.clone()),
            }),
            Some(c) if c.status != "Unknown" => {
                c.status = "Unknown".into();
                c.reason = Some("NodeStatusUnknown".into());
                c.message = Some("Kubelet stopped posting node status.".into());
                c.last_transition_time = Some(now.clone());
            }
            Some(_) => {}
        }
    }
    (new != *node).then_some(new)
}

/// Whether the node gets its first taint that evicts pods because it is not ready.
pub(crate) fn evicts_newly(node: &Node, taints: &[Taint]) -> bool {
    let evicts =
        |t: &Taint| t.effect == "NoExecute" && matches!(t.key.as_str(), NOT_READY | UNREACHABLE);
    let before = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.iter().any(evicts) && !before.into_iter().any(evicts)
}

/// Where the node is; empty when its labels do not say.
pub(crate) fn region_and_zone(node: &Node) -> [&str; 2] {
    ["region", "zone"].map(|kind| {
        let labels = node.metadata.labels.iter().flatten();
        let of = |prefix: &str| {
            let own = |(key, _): &(&String, &String)| {
                key.strip_prefix(prefix).is_some_and(|rest| rest == kind)
            };
            labels.clone().find(own).map(|(_, value)| value.as_str())
        };
        of("failure-domain.beta.kubernetes.io/")
            .or_else(|| of("topology.kubernetes.io/"))
            .unwrap_or("")
    })
}

/// The taints that the node's conditions demand, among those that others put there; `None` when
/// they are as they should be.
pub(crate) fn taints(node: &Node, now: &Time) -> Option<Vec<Taint>> {
    let present = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let mut wanted = Vec::new();
    for (kind, status, key) in TAINTS {
        if condition(node, kind).is_some_and(|c| c.status == status) {
            wanted.push((key, "NoSchedule"));
            if kind == "Ready" {
                wanted.push((key, "NoExecute"));
            }
        }
    }
    if node.spec.as_ref().is_some_and(|s| s.unschedulable == Some(true)) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let is = |t: &Taint, (key, effect): (&str, &str)| t.key == key && t.effect == effect;
    let mut new: Vec<Taint> =
        present.iter().filter(|t| !ours(t) || wanted.iter().any(|w| is(t, *w))).cloned().collect();
    for (key, effect) in wanted {
        if !new.iter().any(|t| is(t, (key, effect))) {
            new.push(Taint {
                key: key.into(),
                effect: effect.into(),
                time_added: Some(now.clone()),
                value: None,
            });
        }
    }
    (new != present).then_some(new)
}

fn ours(taint: &Taint) -> bool {
    let ready = taint.key == NOT_READY || taint.key == UNREACHABLE;
    match taint.effect.as_str() {
        "NoSchedule" => {
            taint.key == UNSCHEDULABLE || TAINTS.iter().any(|(.., key)| *key == taint.key)
        }
        "NoExecute" => ready,
        _ => false,
    }
}
