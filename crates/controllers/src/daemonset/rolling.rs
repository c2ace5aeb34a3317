//! Rolling updates of a DaemonSet: old pods go first, or new ones come first (surge).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::placement::Placement;
use super::plan::{State, is_available};
use super::template::is_updated;
use crate::harness::scaled;
use crate::meta::name;

type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

fn bounds(set: &DaemonSet) -> Option<RollingUpdateDaemonSet> {
    let strategy = set.spec.as_ref()?.update_strategy.as_ref()?;
    strategy.rolling_update.clone().filter(|_| strategy.type_.as_deref() != Some("OnDelete"))
}

/// How many nodes of `desired` may have a new pod beside the old one.
pub(crate) fn surge(set: &DaemonSet, desired: i32) -> i32 {
    let value = bounds(set).and_then(|b| b.max_surge);
    value.map_or(0, |value| scaled(&value, desired, true))
}

fn unavailable(set: &DaemonSet, desired: i32) -> i32 {
    let value = bounds(set).and_then(|b| b.max_unavailable).unwrap_or(IntOrString::Int(1));
    scaled(&value, desired, true)
}

/// Nodes that get a new pod, and pods that go.
pub(crate) fn step(state: &State<'_>, mut pods: ByNode) -> (Vec<String>, Vec<Arc<Pod>>) {
    let runs = state.nodes.iter().filter(|n| state.placer.place(n) == Placement::Run);
    let runs: BTreeSet<&str> = runs.map(|n| name(&n.metadata)).collect();
    let desired = i32::try_from(runs.len()).unwrap_or(i32::MAX);
    for node in &runs {
        pods.entry((*node).to_owned()).or_default();
    }
    match surge(state.set, desired) {
        0 => {
            // Without one of both no update would ever move.
            let most = unavailable(state.set, desired).max(i32::from(desired > 0));
            (Vec::new(), replace(state, &pods, most))
        }
        most => surging(state, &pods, most, &runs),
    }
}

/// The new and the old pod of a node.
type Pair = (Option<Arc<Pod>>, Option<Arc<Pod>>);

/// `None` if there are several of one kind, which go first.
fn pair(state: &State<'_>, pods: &[Arc<Pod>]) -> Option<Pair> {
    let living = pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none());
    let (new, old): (Vec<_>, Vec<_>) =
        living.cloned().partition(|p| is_updated(state.set, p, state.hash));
    match (&new[..], &old[..]) {
        ([] | [_], [] | [_]) => Some((new.into_iter().next(), old.into_iter().next())),
        _ => None,
    }
}

/// Old pods that go: those that do not work, and as many others as may be missing at once.
fn replace(state: &State<'_>, pods: &ByNode, most: i32) -> Vec<Arc<Pod>> {
    let (mut missing, mut go, mut candidates) = (0, Vec::new(), Vec::new());
    for pods in pods.values() {
        match pair(state, pods) {
            None | Some((None, None) | (Some(_), Some(_))) => missing += 1,
            Some((Some(new), None)) => missing += i32::from(!is_available(state, &new)),
            Some((None, Some(old))) if !is_available(state, &old) => {
                missing += 1;
                go.push(old);
            }
            Some((None, Some(old))) => candidates.push(old),
        }
    }
    let room = usize::try_from(most - missing).unwrap_or(0);
    go.extend(candidates.into_iter().take(room));
    go
}

fn surging(
    state: &State<'_>,
    pods: &ByNode,
    most: i32,
    runs: &BTreeSet<&str>,
) -> (Vec<String>, Vec<Arc<Pod>>) {
    let (mut surging, mut available) = (0, 0_usize);
    let (mut create, mut candidates) = (Vec::new(), Vec::new());
    let (mut delete, mut misplaced) = (Vec::new(), Vec::new());
    for (node, pods) in pods {
        let Some((new, old)) = pair(state, pods) else {
            surging += 1;
            continue;
        };
        let counted = old.as_ref().or(new.as_ref());
        available += usize::from(counted.is_some_and(|p| is_available(state, p)));
        match (new, old) {
            (_, None) => {}
            (None, Some(old)) => match (is_available(state, &old), runs.contains(node.as_str())) {
                (false, false) => delete.push(old),
                (false, true) => create.push(node.clone()),
                (true, false) => misplaced.push(old),
                (true, true) => candidates.push(node.clone()),
            },
            (Some(new), Some(_)) if !is_available(state, &new) => surging += 1,
            (Some(_), Some(old)) => delete.push(old),
        }
    }
    // Where the set no longer belongs, pods go only as others become available.
    let spare = available.saturating_sub(runs.len());
    delete.extend(misplaced.into_iter().take(spare));
    let room = usize::try_from(most - surging).unwrap_or(0);
    create.extend(candidates.into_iter().take(room));
    (create, delete)
}
