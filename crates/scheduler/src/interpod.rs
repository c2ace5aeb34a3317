//! Pod affinity and anti-affinity, required (filter) and preferred (score).
//!
//! Counting looks at all pods only when the pod has required terms itself; what other pods demand
//! is read from the nodes known to hold such pods.

use std::collections::{HashMap, HashSet};

use crate::cluster::{Cluster, NodeInfo};
use crate::filter::{Filter, Refusal, refuse};
use crate::pod::{PodInfo, Term};

/// What a term of a pod that is already there counts for in scoring (upstream's default of
/// `hardPodAffinityWeight`).
const HARD_WEIGHT: i64 = 1;

type Pair = (String, String);

/// Topology pairs (label key and value) by what they hold.
#[derive(Debug, Default)]
pub(crate) struct Interpod {
    /// Where a pod that is already there refuses this one.
    refused: HashSet<Pair>,
    /// Where a pod that this one wants is, all its terms at once.
    wanted: HashSet<Pair>,
    /// Where a pod that this one avoids is.
    avoided: HashSet<Pair>,
}

impl Interpod {
    pub(crate) fn new(cluster: &Cluster, pod: &PodInfo) -> Interpod {
        let mut out = Interpod::default();
        for info in cluster.repelling.iter().filter_map(|name| cluster.nodes.get(name)) {
            let terms = info.pods.values().flat_map(|p| &p.anti_affinity);
            let hits = terms.filter(|t| t.matches(pod, cluster));
            out.refused.extend(hits.filter_map(|t| pair(t, info)));
        }
        if pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
            return out;
        }
        for (_, info) in cluster.ready_nodes() {
            for other in info.pods.values() {
                if all_match(pod, other, cluster) {
                    out.wanted.extend(pod.affinity.iter().filter_map(|t| pair(t, info)));
                }
                let hits = pod.anti_affinity.iter().filter(|t| t.matches(other, cluster));
                out.avoided.extend(hits.filter_map(|t| pair(t, info)));
            }
        }
        out
    }

    pub(crate) fn check(
        &self,
        cluster: &Cluster,
        pod: &PodInfo,
        info: &NodeInfo,
    ) -> Result<(), Refusal> {
        if !self.satisfied(cluster, pod, info) {
            let why = "node(s) didn't match pod affinity rules";
            return Err(refuse(Filter::Interpod, true, why));
        }
        let here = |t: &Term| pair(t, info).is_some_and(|p| self.avoided.contains(&p));
        if pod.anti_affinity.iter().any(here) {
            let why = "node(s) didn't match pod anti-affinity rules";
            return Err(refuse(Filter::Interpod, false, why));
        }
        if self.refused.iter().any(|(key, value)| info.label(key) == Some(value)) {
            let why = "node(s) didn't satisfy existing pods anti-affinity rules";
            return Err(refuse(Filter::Interpod, false, why));
        }
        Ok(())
    }

    fn satisfied(&self, cluster: &Cluster, pod: &PodInfo, info: &NodeInfo) -> bool {
        if pod.affinity.is_empty() {
            return true;
        }
        if pod.affinity.iter().any(|t| info.label(&t.topology_key).is_none()) {
            return false;
        }
        let present = |t: &Term| pair(t, info).is_some_and(|p| self.wanted.contains(&p));
        // The first pod of a group that wants its own kind may go anywhere.
        pod.affinity.iter().all(present) || self.wanted.is_empty() && all_match(pod, pod, cluster)
    }
}

fn all_match(pod: &PodInfo, other: &PodInfo, cluster: &Cluster) -> bool {
    !pod.affinity.is_empty() && pod.affinity.iter().all(|t| t.matches(other, cluster))
}

fn pair(term: &Term, info: &NodeInfo) -> Option<Pair> {
    let value = info.label(&term.topology_key)?;
    Some((term.topology_key.clone(), value.to_owned()))
}

/// Weights by topology pair; `None` when no preference speaks of this pod.
pub(crate) fn preferences(cluster: &Cluster, pod: &PodInfo) -> Option<HashMap<Pair, i64>> {
    let mut weights: HashMap<Pair, i64> = HashMap::new();
    let mut note = |term: &Term, info: &NodeInfo, weight: i64| {
        if let Some(pair) = pair(term, info) {
            *weights.entry(pair).or_insert(0) += weight;
        }
    };
    if !pod.preferred.is_empty() {
        for (_, info) in cluster.ready_nodes() {
            for other in info.pods.values() {
                for (weight, term) in
                    pod.preferred.iter().filter(|(_, t)| t.matches(other, cluster))
                {
                    note(term, info, *weight);
                }
            }
        }
    }
    for info in cluster.attracting.iter().filter_map(|name| cluster.nodes.get(name)) {
        for other in info.pods.values() {
            let hard = other.affinity.iter().map(|t| (HARD_WEIGHT, t));
            let soft = other.preferred.iter().map(|(weight, t)| (*weight, t));
            for (weight, term) in hard.chain(soft).filter(|(_, t)| t.matches(pod, cluster)) {
                note(term, info, weight);
            }
        }
    }
    (!weights.is_empty()).then_some(weights)
}
