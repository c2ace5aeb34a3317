//! A topology spread constraint, and the defaults of pods that have none.

use std::sync::Arc;

use api::selector::Operator;
use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};

use crate::index::Query;
use crate::labels::{Labels, Selector, node_matches, restricts_nodes, untolerated_taint};
use crate::node::NodeInfo;
use crate::pod::{PodInfo, Term};
use crate::snapshot::Snapshot;
use crate::store::Listers;

pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

#[derive(Debug)]
pub(super) struct Constraint {
    pub(super) topology_key: String,
    pub(super) max_skew: i64,
    pub(super) min_domains: i64,
    honor_affinity: bool,
    pub(super) honor_taints: bool,
    term: Arc<Term>,
}

impl Constraint {
    fn new(constraint: &TopologySpreadConstraint, pod: &Pod) -> Constraint {
        let mut selector = Selector::of(constraint.label_selector.as_ref());
        let labels = pod.metadata.labels.as_ref();
        for key in constraint.match_label_keys.iter().flatten() {
            if let Some(value) = labels.and_then(|l| l.get(key)) {
                selector.require(key, Operator::In, value);
            }
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let key = constraint.topology_key.as_str();
        Constraint {
            topology_key: key.to_owned(),
            max_skew: i64::from(constraint.max_skew),
            min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
            term: Arc::new(Term::in_namespace(key, selector, namespace)),
        }
    }

    fn default(constraint: &DefaultConstraint, selector: &Selector, namespace: &str) -> Constraint {
        let key = constraint.topology_key.as_str();
        Constraint {
            topology_key: key.to_owned(),
            max_skew: constraint.max_skew,
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
            term: Arc::new(Term::in_namespace(key, selector.clone(), namespace)),
        }
    }

    /// The pods that are counted. An empty selector counts none.
    pub(super) fn query(&self) -> Query {
        let empty = self.term.selector.is_empty();
        let none = || Arc::new(Term::in_namespace("", Selector::of(None), ""));
        let term = if empty { none() } else { self.term.clone() };
        Query { terms: vec![term], terminating: false }
    }

    pub(super) fn selects(&self, pod: &PodInfo, namespace: Option<&Labels>) -> bool {
        self.term.matches(pod, namespace)
    }

    pub(super) fn selects_labels(&self, labels: Option<&Labels>) -> bool {
        self.term.selector.matches(labels)
    }

    /// Whether the node's pods count for this pod.
    pub(super) fn includes_node(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let (Some(node), Some(spec)) = (&node.node, pod.spec()) else { return false };
        (!self.honor_affinity || node_matches(spec, node))
            && (!self.honor_taints || untolerated_taint(node, pod.tolerations()).is_none())
    }

    /// Whether no node has to be asked for [`Constraint::includes_node`].
    pub(super) fn counts_every_node(&self, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        let restricted = pod.spec().is_some_and(restricts_nodes);
        !(self.honor_affinity && restricted || self.honor_taints && snapshot.has_tainted_nodes())
    }
}

/// A constraint for pods that have none of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DefaultConstraint {
    pub(crate) topology_key: String,
    pub(crate) max_skew: i64,
    /// `DoNotSchedule`, as opposed to `ScheduleAnyway`.
    pub(crate) hard: bool,
}

pub(crate) fn system_defaults() -> Vec<DefaultConstraint> {
    let soft =
        |key: &str, max_skew| DefaultConstraint { topology_key: key.into(), max_skew, hard: false };
    vec![soft(HOSTNAME, 3), soft(ZONE, 5)]
}

#[derive(Debug)]
pub(super) struct Defaults {
    pub(super) list: Vec<DefaultConstraint>,
    /// The list is the system's: nodes that lack a key are scored still.
    pub(super) system: bool,
    pub(super) listers: Arc<Listers>,
}

impl Defaults {
    /// The pod's constraints that must (or only should) hold.
    pub(super) fn constraints(&self, pod: &PodInfo, hard: bool) -> Vec<Arc<Constraint>> {
        let own = own(pod);
        if !own.is_empty() {
            let wanted =
                |c: &&TopologySpreadConstraint| (c.when_unsatisfiable == "DoNotSchedule") == hard;
            let build = |c| Arc::new(Constraint::new(c, &pod.pod));
            return own.iter().filter(wanted).map(build).collect();
        }
        let defaults: Vec<&DefaultConstraint> =
            self.list.iter().filter(|c| c.hard == hard).collect();
        if defaults.is_empty() {
            return Vec::new();
        }
        let selector = self.selector(pod);
        if selector.is_empty() {
            return Vec::new();
        }
        let build = |c| Arc::new(Constraint::default(c, &selector, pod.namespace()));
        defaults.into_iter().map(build).collect()
    }

    /// Whether nodes that lack a constraint's key are left out of the score.
    pub(super) fn requires_all_keys(&self, pod: &PodInfo) -> bool {
        !own(pod).is_empty() || !self.system
    }

    /// The pods that the same services and set select.
    fn selector(&self, pod: &PodInfo) -> Selector {
        let namespace = pod.namespace();
        let mut labels = self.listers.services.selector_labels(namespace, pod.labels());
        let owners = pod.pod.metadata.owner_references.as_deref().unwrap_or_default();
        let owner = owners.iter().find(|o| o.controller == Some(true));
        let Some(owner) = owner else { return Selector::of_labels(&labels) };
        let set = match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => {
                let found = self.listers.replication_controllers.get(namespace, &owner.name);
                let spec = found.as_ref().and_then(|c| c.spec.as_ref());
                labels.extend(spec.and_then(|s| s.selector.clone()).unwrap_or_default());
                None
            }
            ("apps/v1", "ReplicaSet") => {
                let found = self.listers.replica_sets.get(namespace, &owner.name);
                found.and_then(|s| Some(Selector::of(Some(&s.spec.as_ref()?.selector))))
            }
            ("apps/v1", "StatefulSet") => {
                let found = self.listers.stateful_sets.get(namespace, &owner.name);
                found.and_then(|s| Some(Selector::of(Some(&s.spec.as_ref()?.selector))))
            }
            _ => None,
        };
        let mut selector = Selector::of_labels(&labels);
        if let Some(set) = set {
            selector.and(set);
        }
        selector
    }
}

fn own(pod: &PodInfo) -> &[TopologySpreadConstraint] {
    pod.spec().and_then(|s| s.topology_spread_constraints.as_deref()).unwrap_or_default()
}
