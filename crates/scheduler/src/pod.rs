//! A pod as the scheduler sees it: computed once when it is seen, not once per node.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::selector::Operator;
use k8s_openapi::api::core::v1::{
    Pod, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};

use crate::cluster::Cluster;
use crate::matching::{Labels, Selector};
use crate::resources::{Resources, pod_estimate, pod_requests};

/// Host address, protocol, port.
pub(crate) type HostPort = (String, String, i32);

#[derive(Debug)]
pub(crate) struct PodInfo {
    pub(crate) pod: Arc<Pod>,
    pub(crate) requests: Resources,
    pub(crate) estimate: Resources,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) affinity: Vec<Term>,
    pub(crate) anti_affinity: Vec<Term>,
    /// Positive weights attract, negative repel.
    pub(crate) preferred: Vec<(i64, Term)>,
    pub(crate) spread: Vec<Spread>,
}

/// A pod (anti-)affinity term.
#[derive(Debug)]
pub(crate) struct Term {
    pub(crate) topology_key: String,
    selector: Selector,
    namespaces: BTreeSet<String>,
    namespace_selector: Selector,
}

/// A topology spread constraint.
#[derive(Debug)]
pub(crate) struct Spread {
    pub(crate) topology_key: String,
    pub(crate) max_skew: i64,
    pub(crate) min_domains: i64,
    pub(crate) selector: Selector,
    /// `DoNotSchedule`, as opposed to `ScheduleAnyway`.
    pub(crate) hard: bool,
    pub(crate) honor_affinity: bool,
    pub(crate) honor_taints: bool,
}

impl PodInfo {
    pub(crate) fn new(pod: Arc<Pod>) -> PodInfo {
        let spec = pod.spec.clone().unwrap_or_default();
        let affinity = spec.affinity.clone().unwrap_or_default();
        let attract = affinity.pod_affinity.unwrap_or_default();
        let repel = affinity.pod_anti_affinity.unwrap_or_default();
        let terms = |terms: Option<Vec<PodAffinityTerm>>| -> Vec<Term> {
            terms.iter().flatten().map(|t| Term::new(t, &pod)).collect()
        };
        let weighted = |terms: Option<Vec<WeightedPodAffinityTerm>>, sign: i64| {
            let term = |t: &WeightedPodAffinityTerm| {
                (sign * i64::from(t.weight), Term::new(&t.pod_affinity_term, &pod))
            };
            terms.iter().flatten().map(term).collect::<Vec<_>>()
        };
        let mut preferred =
            weighted(attract.preferred_during_scheduling_ignored_during_execution, 1);
        preferred.extend(weighted(repel.preferred_during_scheduling_ignored_during_execution, -1));
        let spread = spec.topology_spread_constraints.iter().flatten();
        PodInfo {
            requests: pod_requests(&pod),
            estimate: pod_estimate(&pod),
            ports: host_ports(&spec),
            affinity: terms(attract.required_during_scheduling_ignored_during_execution),
            anti_affinity: terms(repel.required_during_scheduling_ignored_during_execution),
            preferred,
            spread: spread.map(|c| Spread::new(c, &pod)).collect(),
            pod,
        }
    }

    pub(crate) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or("")
    }

    pub(crate) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("")
    }

    pub(crate) fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or("")
    }

    pub(crate) fn labels(&self) -> Option<&Labels> {
        self.pod.metadata.labels.as_ref()
    }

    pub(crate) fn priority(&self) -> i32 {
        self.pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
    }

    pub(crate) fn terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    pub(crate) fn tolerations(&self) -> &[Toleration] {
        let spec = self.pod.spec.as_ref();
        spec.and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
    }

    /// The controller that made it.
    pub(crate) fn owner(&self) -> Option<&str> {
        let owners = self.pod.metadata.owner_references.as_deref().unwrap_or_default();
        owners.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.as_str())
    }
}

impl Term {
    fn new(term: &PodAffinityTerm, pod: &Pod) -> Term {
        let mut selector = Selector::of(term.label_selector.as_ref());
        let labels = pod.metadata.labels.as_ref();
        for (keys, operator) in
            [(&term.match_label_keys, Operator::In), (&term.mismatch_label_keys, Operator::NotIn)]
        {
            for key in keys.iter().flatten() {
                if let Some(value) = labels.and_then(|l| l.get(key)) {
                    selector.require(key, operator, value);
                }
            }
        }
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.extend(pod.metadata.namespace.clone());
        }
        Term {
            topology_key: term.topology_key.clone(),
            selector,
            namespaces,
            namespace_selector: Selector::of(term.namespace_selector.as_ref()),
        }
    }

    /// Whether the term speaks of this pod.
    pub(crate) fn matches(&self, pod: &PodInfo, cluster: &Cluster) -> bool {
        let namespace = pod.namespace();
        let chosen = self.namespaces.contains(namespace)
            || self.namespace_selector.matches(cluster.namespace_labels(namespace));
        chosen && self.selector.matches(pod.labels())
    }
}

impl Spread {
    fn new(constraint: &TopologySpreadConstraint, pod: &Pod) -> Spread {
        let mut selector = Selector::of(constraint.label_selector.as_ref());
        let labels = pod.metadata.labels.as_ref();
        for key in constraint.match_label_keys.iter().flatten() {
            if let Some(value) = labels.and_then(|l| l.get(key)) {
                selector.require(key, Operator::In, value);
            }
        }
        Spread {
            topology_key: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
            selector,
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let wanted = ports.filter_map(|p| {
        let port = p.host_port.filter(|port| *port > 0)?;
        let address = p.host_ip.clone().filter(|ip| !ip.is_empty());
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
        Some((address.unwrap_or_else(|| "0.0.0.0".into()), protocol, port))
    });
    wanted.collect()
}
