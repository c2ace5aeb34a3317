//! On which nodes pods of a DaemonSet are missing, which pods go, and the status.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::placement::{Placement, Placer, node_of};
use super::rolling;
use super::template::is_updated;
use crate::meta::{name, namespace};
use crate::pods::{available_in, finished, node, phase, ready};

/// Pods created or deleted in one pass at most (upstream's BurstReplicas).
const BURST_MAX: usize = 250;

/// What a pass is made from.
pub(crate) struct State<'a> {
    pub(crate) set: &'a DaemonSet,
    pub(crate) placer: &'a Placer,
    pub(crate) nodes: &'a [Arc<Node>],
    /// The pods that the set owns.
    pub(crate) pods: &'a [Arc<Pod>],
    /// The present template's hash.
    pub(crate) hash: &'a str,
    pub(crate) now: &'a Time,
    /// How long a failed pod on this node must stay, so that a kubelet that refuses pods is not flooded.
    pub(crate) backoff: &'a (dyn Fn(&str) -> Option<Duration> + Sync),
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Names of nodes.
    pub(crate) create: Vec<String>,
    pub(crate) delete: Vec<Arc<Pod>>,
    pub(crate) events: Vec<(EventType, &'static str, String)>,
    /// Nodes whose failed pod is deleted.
    pub(crate) failed: Vec<String>,
    pub(crate) recheck: Option<Duration>,
}

/// Pods by the node they are on or are meant for; those that ended and are deleted do not count.
pub(crate) fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut all: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        let over = finished(pod) && pod.metadata.deletion_timestamp.is_some();
        if let Some(node) = node_of(pod).filter(|_| !over) {
            all.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    for pods in all.values_mut() {
        pods.sort_by_cached_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (node(pod).is_empty(), created, name(&pod.metadata).to_owned())
        });
    }
    all
}

/// Pods where they are missing or wrong; a rolling update moves only when there are none.
pub(crate) fn plan(state: &State<'_>) -> Plan {
    let pods = by_node(state.pods);
    let mut plan = Plan::default();
    for node in state.nodes {
        let here = pods.get(name(&node.metadata)).map_or(&[][..], |pods| pods);
        look_at(state, node, here, &mut plan);
    }
    let known: HashSet<&str> = state.nodes.iter().map(|n| name(&n.metadata)).collect();
    for (_, pods) in pods.iter().filter(|(node, _)| !known.contains(node.as_str())) {
        // The garbage collector of pods looks after those that were bound.
        plan.delete.extend(pods.iter().filter(|p| node(p).is_empty()).cloned());
    }
    let strategy = state.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let rolls = strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete");
    if plan.create.is_empty() && plan.delete.is_empty() && rolls {
        let (create, delete) = rolling::step(state, pods);
        plan.create = create;
        plan.delete = delete;
    }
    plan.create.truncate(BURST_MAX);
    plan.delete.truncate(BURST_MAX);
    plan
}

fn look_at(state: &State<'_>, node: &Node, pods: &[Arc<Pod>], plan: &mut Plan) {
    let own = name(&node.metadata).to_owned();
    let placement = state.placer.place(node);
    let not_ending = |p: &&Arc<Pod>| p.metadata.deletion_timestamp.is_none();
    match placement {
        Placement::Run if pods.is_empty() => plan.create.push(own),
        Placement::Run | Placement::Continue => {
            let running = replace_ended(state, &own, pods, plan);
            keep_few(state, placement, own, running, plan);
        }
        Placement::Never => plan.delete.extend(pods.iter().filter(not_ending).cloned()),
    }
}

/// Deletes pods that ended; those that run.
fn replace_ended(
    state: &State<'_>,
    node: &str,
    pods: &[Arc<Pod>],
    plan: &mut Plan,
) -> Vec<Arc<Pod>> {
    let mut running = Vec::new();
    for pod in pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
        let (space, own) = (namespace(&pod.metadata), name(&pod.metadata));
        match phase(pod) {
            "Failed" => {
                if let Some(wait) = (state.backoff)(node) {
                    plan.recheck = plan.recheck.into_iter().chain([wait]).min();
                    continue;
                }
                let message = format!(
                    "Found failed daemon pod {space}/{own} on node {node}, will try to kill it"
                );
                plan.events.push((EventType::Warning, "FailedDaemonPod", message));
                plan.failed.push(node.to_owned());
                plan.delete.push(pod.clone());
            }
            "Succeeded" => {
                let message = format!(
                    "Found succeeded daemon pod {space}/{own} on node {node}, will try to delete it"
                );
                plan.events.push((EventType::Normal, "SucceededDaemonPod", message));
                plan.delete.push(pod.clone());
            }
            _ => running.push(pod.clone()),
        }
    }
    running
}

/// One pod a node; with surge also a new one beside an old one that works.
fn keep_few(
    state: &State<'_>,
    placement: Placement,
    node: String,
    running: Vec<Arc<Pod>>,
    plan: &mut Plan,
) {
    if rolling::surge(state.set, 1) == 0 {
        plan.delete.extend(running.into_iter().skip(1));
        return;
    }
    if running.is_empty() && placement == Placement::Run {
        plan.create.push(node);
    }
    if running.len() <= 1 {
        return;
    }
    let (new, old): (Vec<_>, Vec<_>) =
        running.into_iter().partition(|p| is_updated(state.set, p, state.hash));
    let (mut new, mut old) = (new.into_iter(), old.into_iter());
    if let (Some(new), Some(old)) = (new.next(), old.next())
        && (!ready(&old) || is_available(state, &new))
    {
        plan.delete.push(old);
    }
    plan.delete.extend(new.chain(old));
}

pub(crate) fn min_ready(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
}

pub(crate) fn is_available(state: &State<'_>, pod: &Pod) -> bool {
    available_in(pod, min_ready(state.set), state.now).is_some_and(|left| left <= 0)
}

/// The status; `observed` if this pass followed the present spec. And when it may change by itself.
pub(crate) fn status(state: &State<'_>, observed: bool) -> (DaemonSetStatus, Option<Duration>) {
    let old = state.set.status.clone().unwrap_or_default();
    let pods = by_node(state.pods);
    let (mut desired, mut current, mut misscheduled) = (0, 0, 0);
    let (mut ready_pods, mut updated, mut available) = (0, 0, 0);
    let mut recheck = None;
    for node in state.nodes {
        let first = pods.get(name(&node.metadata)).and_then(|pods| pods.first());
        if state.placer.place(node) != Placement::Run {
            misscheduled += i32::from(first.is_some());
            continue;
        }
        desired += 1;
        let Some(pod) = first else { continue };
        current += 1;
        ready_pods += i32::from(ready(pod));
        available += i32::from(is_available(state, pod));
        updated += i32::from(is_updated(state.set, pod, state.hash));
        let left = available_in(pod, min_ready(state.set), state.now).filter(|left| *left > 0);
        let left = left.and_then(|left| u64::try_from(left).ok()).map(Duration::from_secs);
        recheck = recheck.into_iter().chain(left).min();
    }
    let some = |n: i32| Some(n).filter(|n| *n != 0);
    let status = DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misscheduled,
        number_ready: ready_pods,
        updated_number_scheduled: some(updated),
        number_available: some(available),
        number_unavailable: some(desired - available),
        observed_generation: match observed {
            true => state.set.metadata.generation,
            false => old.observed_generation,
        },
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    (status, recheck)
}
