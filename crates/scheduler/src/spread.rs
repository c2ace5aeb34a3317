//! Topology spread: the hard constraints as a filter, the soft ones as a score.
//!
//! Pods without constraints of their own are spread over nodes and zones by their controller; upstream
//! finds their fellows by the selectors of services and sets instead, which comes to the
//! same for pods that one controller made.

use std::collections::{HashMap, HashSet};

use crate::cluster::{Cluster, NodeInfo};
use crate::filter::{Filter, Refusal, refuse};
use crate::matching::{node_matches, tolerates};
use crate::pod::{PodInfo, Spread};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Upstream's default constraints: key and skew.
const DEFAULTS: [(&str, f64); 2] = [(HOSTNAME, 3.0), (ZONE, 5.0)];

/// For each hard constraint, the matching pods by domain.
#[derive(Debug, Default)]
pub(crate) struct SpreadCounts {
    hard: Vec<HashMap<String, i64>>,
}

impl SpreadCounts {
    pub(crate) fn new(cluster: &Cluster, pod: &PodInfo) -> SpreadCounts {
        let hard: Vec<&Spread> = pod.spread.iter().filter(|c| c.hard).collect();
        SpreadCounts { hard: count(cluster, pod, &hard) }
    }

    pub(crate) fn check(&self, pod: &PodInfo, info: &NodeInfo) -> Result<(), Refusal> {
        let hard = pod.spread.iter().filter(|c| c.hard);
        for (constraint, counts) in hard.zip(&self.hard) {
            let Some(value) = info.label(&constraint.topology_key) else {
                let why =
                    "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(refuse(Filter::Spread, true, why));
            };
            let domains = i64::try_from(counts.len()).unwrap_or(i64::MAX);
            let enough = domains >= constraint.min_domains;
            let least = if enough { counts.values().min().copied().unwrap_or(0) } else { 0 };
            let itself = i64::from(constraint.selector.matches(pod.labels()));
            let here = counts.get(value).copied().unwrap_or(0);
            if here + itself - least > constraint.max_skew {
                let why = "node(s) didn't match pod topology spread constraints";
                return Err(refuse(Filter::Spread, false, why));
            }
        }
        Ok(())
    }
}

fn count(cluster: &Cluster, pod: &PodInfo, constraints: &[&Spread]) -> Vec<HashMap<String, i64>> {
    let mut counts = vec![HashMap::new(); constraints.len()];
    if constraints.is_empty() {
        return counts;
    }
    for (_, info) in cluster.ready_nodes() {
        if constraints.iter().any(|c| info.label(&c.topology_key).is_none()) {
            continue;
        }
        for (constraint, counts) in constraints.iter().zip(&mut counts) {
            if !eligible(constraint, pod, info) {
                continue;
            }
            let value = info.label(&constraint.topology_key).unwrap_or("");
            *counts.entry(value.to_owned()).or_insert(0) += fellows(constraint, pod, info);
        }
    }
    counts
}

fn eligible(constraint: &Spread, pod: &PodInfo, info: &NodeInfo) -> bool {
    let (Some(node), Some(spec)) = (&info.node, &pod.pod.spec) else { return false };
    if constraint.honor_affinity && !node_matches(spec, node) {
        return false;
    }
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let hard = taints.iter().filter(|t| t.effect != "PreferNoSchedule");
    !constraint.honor_taints || hard.into_iter().all(|t| tolerates(pod.tolerations(), t))
}

fn fellows(constraint: &Spread, pod: &PodInfo, info: &NodeInfo) -> i64 {
    let same = info.pods.values().filter(|other| {
        other.namespace() == pod.namespace()
            && !other.terminating()
            && constraint.selector.matches(other.labels())
    });
    i64::try_from(same.count()).unwrap_or(i64::MAX)
}

/// Raw scores of feasible nodes: fewer is better. `None` where a node lacks a key.
pub(crate) fn soft_scores(
    cluster: &Cluster,
    pod: &PodInfo,
    nodes: &[(&str, &NodeInfo)],
) -> Option<Vec<Option<i64>>> {
    let soft: Vec<&Spread> = pod.spread.iter().filter(|c| !c.hard).collect();
    if !pod.spread.is_empty() {
        return (!soft.is_empty()).then(|| by_constraints(cluster, pod, &soft, nodes));
    }
    pod.owner().map(|owner| by_owner(cluster, owner, nodes))
}

fn by_constraints(
    cluster: &Cluster,
    pod: &PodInfo,
    soft: &[&Spread],
    nodes: &[(&str, &NodeInfo)],
) -> Vec<Option<i64>> {
    let counts = count(cluster, pod, soft);
    let score = |info: &NodeInfo| {
        let mut sum = 0.0;
        for (constraint, counts) in soft.iter().zip(&counts) {
            let value = info.label(&constraint.topology_key)?;
            let here = counts.get(value).copied().unwrap_or(0) as f64;
            sum += here * weight(counts.len()) + (constraint.max_skew - 1) as f64;
        }
        Some(sum.round() as i64)
    };
    nodes.iter().map(|(_, info)| score(info)).collect()
}

fn by_owner(cluster: &Cluster, owner: &str, nodes: &[(&str, &NodeInfo)]) -> Vec<Option<i64>> {
    let own = |info: &NodeInfo| info.by_owner.get(owner).copied().unwrap_or(0);
    let zoned: HashSet<&str> = nodes.iter().filter_map(|(_, info)| info.label(ZONE)).collect();
    let mut zones: HashMap<&str, i64> = HashMap::new();
    if !zoned.is_empty() {
        for (_, info) in cluster.ready_nodes() {
            *zones.entry(info.label(ZONE).unwrap_or("")).or_insert(0) += own(info);
        }
    }
    let score = |info: &NodeInfo| {
        let mut sum = own(info) as f64 * weight(nodes.len()) + (DEFAULTS[0].1 - 1.0);
        if let Some(zone) = info.label(ZONE) {
            let here = zones.get(zone).copied().unwrap_or(0) as f64;
            sum += here * weight(zoned.len()) + (DEFAULTS[1].1 - 1.0);
        }
        Some(sum.round() as i64)
    };
    nodes.iter().map(|(_, info)| score(info)).collect()
}

/// The more domains, the more one pod in a domain says.
fn weight(domains: usize) -> f64 {
    (domains as f64 + 2.0).ln()
}
