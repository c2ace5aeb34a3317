//! Whether the node takes a pod that was bound to it. Pure.
//!
//! The scheduler has looked at most of this already, but pods may be bound by anyone, and nodes
//! change. A refused pod fails by name and never starts. Order, reasons and messages are upstream's
//! (`pkg/kubelet/lifecycle` and the handlers that `NewMainKubelet` lists).

mod affinity;
mod apparmor;
mod features;
mod fit;
mod ports;
mod preemption;
mod pressure;
mod sysctls;
mod taints;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::spec::{spec_of, uid_of};

pub(crate) use affinity::term_matches;
pub(crate) use apparmor::is_enabled as apparmor_is_enabled;
use fit::Requests;
pub(crate) use fit::{limits, requests};
pub(crate) use preemption::{MESSAGE as PREEMPTED_MESSAGE, REASON as PREEMPTED};
pub(crate) use pressure::Pressure;
pub(crate) use sysctls::{Sysctls, normalized as sysctl_name};

/// Pods of this priority and above are critical to the node.
pub(crate) const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Why the node does not take the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Refusal {
    fn new(reason: impl Into<String>, message: impl Into<String>) -> Refusal {
        Refusal { reason: reason.into(), message: message.into() }
    }

    /// One of the scheduler's predicates, as upstream words it.
    fn predicate(name: &str, why: &str) -> Refusal {
        Refusal::new(name, format!("Predicate {name} failed: {why}"))
    }
}

/// What the decision depends on.
pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) node: &'a Node,
    /// The pods that the node has taken and that have not ended.
    pub(crate) others: &'a [Arc<Pod>],
    pub(crate) pressure: &'a [Pressure],
    pub(crate) sysctls: &'a Sysctls,
    pub(crate) apparmor: bool,
    /// The runtime gives containers no groups but those asked for.
    pub(crate) strict_groups: bool,
    /// Uids of static pods.
    pub(crate) statics: &'a BTreeSet<String>,
}

impl Inputs<'_> {
    fn is_static(&self) -> bool {
        self.statics.contains(uid_of(self.pod))
    }
}

/// What fails of the scheduler's part.
enum Failed {
    Resource(fit::Shortage),
    Predicate(&'static str, &'static str),
}

impl Failed {
    fn refusal(&self) -> Refusal {
        match self {
            Failed::Resource(short) => Refusal::new(short.reason(), short.message()),
            Failed::Predicate(name, why) => Refusal::predicate(name, why),
        }
    }
}

/// Static pods are critical, and those of a system priority.
pub(crate) fn is_critical(pod: &Pod, statics: &BTreeSet<String>) -> bool {
    let priority = spec_of(pod).priority;
    statics.contains(uid_of(pod)) || priority.is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY)
}

/// What is decided before the pod gets its place on the machine.
pub(crate) fn check_before(inputs: &Inputs<'_>) -> Result<(), Refusal> {
    pressure::check(inputs.pod, is_critical(inputs.pod, inputs.statics), inputs.pressure)?;
    inputs.sysctls.check(inputs.pod)
}

/// What is decided after it. `Ok`: the node takes the pod, once the pods of these uids have made room for it.
pub(crate) fn check_after(inputs: &Inputs<'_>) -> Result<Vec<String>, Refusal> {
    features::check_os(inputs.pod)?;
    features::check_groups(inputs.pod, inputs.strict_groups)?;
    let victims = scheduler_part(inputs)?;
    apparmor::check(inputs.pod, inputs.apparmor)?;
    features::check_declared(inputs.pod)?;
    Ok(victims)
}

/// Whether only the node's labels are in the way: they may be newer than the node as it is known.
pub(crate) fn is_about_labels(refusal: &Refusal) -> bool {
    refusal.reason == affinity::NAME
}

fn scheduler_part(inputs: &Inputs<'_>) -> Result<Vec<String>, Refusal> {
    let failed = predicates(inputs);
    let Some(first) = failed.first() else { return Ok(Vec::new()) };
    if !is_critical(inputs.pod, inputs.statics) {
        return Err(first.refusal());
    }
    // Want of resources is no reason to refuse a critical pod.
    if let Some(other) = failed.iter().find(|f| matches!(f, Failed::Predicate(..))) {
        return Err(other.refusal());
    }
    let shortages = failed.iter().filter_map(|f| match f {
        Failed::Resource(short) => Some((short.name.clone(), short.missing())),
        Failed::Predicate(..) => None,
    });
    preemption::victims(inputs, shortages.collect()).map_err(|why| {
        let text = "Unexpected error while attempting to recover from admission failure";
        Refusal::new("UnexpectedAdmissionError", format!("{text}: {why}"))
    })
}

fn predicates(inputs: &Inputs<'_>) -> Vec<Failed> {
    let Inputs { pod, node, others, .. } = inputs;
    let mut failed: Vec<Failed> =
        fit::shortages(pod, node, others).into_iter().map(Failed::Resource).collect();
    let checks = [
        (affinity::NAME, affinity::WHY, affinity::matches(pod, node)),
        ("NodeName", "node(s) didn't match the requested node name", on_node(pod, node)),
        (ports::NAME, ports::WHY, ports::are_free(pod, others)),
        (taints::NAME, taints::WHY, inputs.is_static() || taints::are_tolerated(pod, node)),
    ];
    let unmet = checks.into_iter().filter(|(.., fits)| !fits);
    failed.extend(unmet.map(|(name, why, _)| Failed::Predicate(name, why)));
    failed
}

fn on_node(pod: &Pod, node: &Node) -> bool {
    let spec = spec_of(pod);
    let wanted = spec.node_name.as_deref().unwrap_or("");
    wanted.is_empty() || Some(wanted) == node.metadata.name.as_deref()
}

#[cfg(test)]
mod tests;
