//! Preemption: the least important pods whose end would make room for a more important one.
//!
//! Every choice is checked with all filters on a copy of the picture. Disruption budgets are not
//! weighed: a victim's budget neither spares it nor makes another node preferable.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::filter::{Prepared, Refusal};
use crate::plan::tally;
use crate::pod::PodInfo;

/// Where room can be made, and by whose end.
#[derive(Debug)]
pub(crate) struct Victims {
    pub(crate) node: String,
    pub(crate) pods: Vec<Arc<PodInfo>>,
}

impl PartialEq for Victims {
    fn eq(&self, other: &Victims) -> bool {
        let uids = |v: &Victims| v.pods.iter().map(|p| p.uid().to_owned()).collect::<Vec<_>>();
        self.node == other.node && uids(self) == uids(other)
    }
}

/// The cheapest preemption, or the sentence that says why none helps.
pub(crate) fn plan(
    prepared: &Prepared<'_>,
    total: usize,
    refused: &BTreeMap<&str, Refusal>,
) -> Result<Victims, String> {
    let pod = prepared.pod;
    let policy = pod.pod.spec.as_ref().and_then(|s| s.preemption_policy.as_deref());
    if policy == Some("Never") {
        return Err("not eligible due to preemptionPolicy=Never.".into());
    }
    if waits_for_victims(prepared.cluster, pod) {
        return Err("not eligible due to a terminating pod on the nominated node.".into());
    }
    let mut reasons = Vec::new();
    let mut options = Vec::new();
    for (name, refusal) in refused {
        if refusal.final_ {
            reasons.push("Preemption is not helpful for scheduling");
            continue;
        }
        match victims_on(prepared.cluster, pod, name) {
            Some(pods) => options.push(Victims { node: (*name).to_owned(), pods }),
            None => reasons.push("No preemption victims found for incoming pod"),
        }
    }
    let cheapest = options.into_iter().min_by_key(cost);
    cheapest.ok_or_else(|| format!("0/{total} nodes are available: {}", tally(reasons.into_iter())))
}

/// Victims of an earlier round are still ending.
fn waits_for_victims(cluster: &Cluster, pod: &PodInfo) -> bool {
    let nominated = pod.pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
    let info = nominated.and_then(|name| cluster.nodes.get(name));
    info.is_some_and(|info| {
        info.pods.values().any(|p| p.terminating() && p.priority() < pod.priority())
    })
}

/// Least important highest victim, then least importance in sum, then fewest.
fn cost(victims: &Victims) -> (i32, i64, usize) {
    let priorities = || victims.pods.iter().map(|p| p.priority());
    let sum = priorities().map(|p| i64::from(p) + i64::from(i32::MAX) + 1).sum();
    (priorities().max().unwrap_or(i32::MIN), sum, victims.pods.len())
}

fn victims_on(cluster: &Cluster, pod: &PodInfo, name: &str) -> Option<Vec<Arc<PodInfo>>> {
    let info = cluster.nodes.get(name)?;
    let mut lower: Vec<Arc<PodInfo>> =
        info.pods.values().filter(|p| p.priority() < pod.priority()).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    let mut emptied = Trial::new(cluster, pod, name);
    lower.iter().for_each(|p| emptied.remove(p));
    if !emptied.fits(pod) {
        return None;
    }
    // The most important, and among them the longest running, may stay if the pod fits still.
    lower.sort_by_key(|p| (-i64::from(p.priority()), started(p), p.uid().to_owned()));
    let mut victims = Vec::new();
    for candidate in lower {
        emptied.add(&candidate);
        if !emptied.fits(pod) {
            emptied.remove(&candidate);
            victims.push(candidate);
        }
    }
    Some(victims)
}

fn started(pod: &PodInfo) -> Option<jiff::Timestamp> {
    pod.pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0)
}

/// A copy of the cluster's picture in which one node's pods change.
struct Trial {
    cluster: Cluster,
    name: String,
}

impl Trial {
    fn new(cluster: &Cluster, pod: &PodInfo, name: &str) -> Trial {
        Trial { cluster: cluster.trial(pod, name), name: name.to_owned() }
    }

    fn remove(&mut self, pod: &PodInfo) {
        self.cluster.remove_pod(pod.uid());
    }

    fn add(&mut self, pod: &Arc<PodInfo>) {
        self.cluster.place(&self.name.clone(), pod.clone());
    }

    fn fits(&self, pod: &PodInfo) -> bool {
        let prepared = Prepared::new(&self.cluster, pod);
        self.cluster.nodes.get(&self.name).is_some_and(|i| prepared.check(&self.name, i).is_ok())
    }
}
