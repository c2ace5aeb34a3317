//! The order in which surplus pods go: the least useful first.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::meta::uid;
use crate::pods::{active, node, phase, ready, ready_since};

/// Lower goes first; default 0.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts pods so that those to delete first come first. `related` are pods whose nodes count as
/// crowded: pods on nodes with many of them go earlier.
pub(crate) fn rank(mut pods: Vec<Arc<Pod>>, related: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|p| active(p) && !node(p).is_empty()) {
        *crowd.entry(node(pod)).or_insert(0) += 1;
    }
    pods.sort_by_cached_key(|pod| {
        let crowd = Reverse(crowd.get(node(pod)).copied().unwrap_or(0));
        (usefulness(pod), deletion_cost(pod), crowd, age(pod))
    });
    pods
}

/// Sorts pods by usefulness and age alone (upstream's ActivePods).
pub(crate) fn by_deletion_order(pods: &mut [Arc<Pod>]) {
    pods.sort_by_cached_key(|pod| (usefulness(pod), age(pod)));
}

fn usefulness(pod: &Pod) -> (bool, u8, bool) {
    let phase = match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    (!node(pod).is_empty(), phase, ready(pod))
}

fn deletion_cost(pod: &Pod) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST));
    text.and_then(|t| t.parse::<i32>().ok()).unwrap_or(0)
}

type Age = (Reverse<i64>, Reverse<i32>, Reverse<i64>, String);

/// Ready for a shorter time, more restarts, younger.
fn age(pod: &Pod) -> Age {
    let young = |t: Option<&Time>| Reverse(t.map_or(i64::MAX, |t| t.0.as_second()));
    let created = young(pod.metadata.creation_timestamp.as_ref());
    (young(ready_since(pod)), Reverse(restarts(pod)), created, uid(&pod.metadata).to_owned())
}

fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let all = status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    all.map(|c| c.restart_count).max().unwrap_or(0)
}
