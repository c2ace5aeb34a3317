//! A pod as the scheduler sees it: computed once when it is seen, not once per node.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::selector::Operator;
use k8s_openapi::api::core::v1::{
    Pod, PodAffinityTerm, PodSpec, Toleration, WeightedPodAffinityTerm,
};
use serde_json::json;

use crate::labels::{Labels, Selector};
use crate::resources::{Resources, pod_estimate, pod_requests};

/// Host address, protocol, port.
pub(crate) type HostPort = (String, String, i32);

#[derive(Debug)]
pub(crate) struct PodInfo {
    pub(crate) pod: Arc<Pod>,
    /// Kept beside the pod, whose parts lie far apart: preemption reads them of many pods.
    priority: i32,
    started: jiff::Timestamp,
    pub(crate) requests: Resources,
    /// Requests, with something for containers that ask for nothing.
    pub(crate) estimate: Resources,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) affinity: Vec<Arc<Term>>,
    pub(crate) anti_affinity: Vec<Arc<Term>>,
    /// Positive weights attract, negative repel.
    pub(crate) preferred: Vec<(i64, Arc<Term>)>,
    /// Claims that its volumes name, generic ephemeral volumes' included.
    pub(crate) claims: Vec<String>,
    /// Pods with the same signature get the same answer from every filter and score that looks at
    /// one node only. Absent for pods with volumes, whose answers depend on other objects.
    pub(crate) signature: Option<Arc<str>>,
}

/// A pod (anti-)affinity term.
#[derive(Debug)]
pub(crate) struct Term {
    pub(crate) topology_key: String,
    pub(crate) selector: Selector,
    namespaces: BTreeSet<String>,
    namespace_selector: Selector,
    /// Whom the term selects, as a text that equal terms share; the topology key is not in it.
    pub(crate) identity: String,
}

impl PodInfo {
    pub(crate) fn new(pod: Arc<Pod>) -> PodInfo {
        let default = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&default);
        let affinity = spec.affinity.as_ref();
        let attract = affinity.and_then(|a| a.pod_affinity.as_ref());
        let repel = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let terms = |terms: Option<&Vec<PodAffinityTerm>>| -> Vec<Arc<Term>> {
            terms.into_iter().flatten().map(|t| Arc::new(Term::new(t, &pod))).collect()
        };
        let weighted = |terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| {
            let term = |t: &WeightedPodAffinityTerm| {
                (sign * i64::from(t.weight), Arc::new(Term::new(&t.pod_affinity_term, &pod)))
            };
            terms.into_iter().flatten().map(term).collect::<Vec<_>>()
        };
        let preferred = attract
            .map(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
            .map(|t| weighted(t, 1));
        let avoided = repel
            .map(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
            .map(|t| weighted(t, -1));
        let start = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
        PodInfo {
            priority: spec.priority.unwrap_or(0),
            started: start.map_or(jiff::Timestamp::MAX, |t| t.0),
            requests: pod_requests(&pod),
            estimate: pod_estimate(&pod),
            ports: host_ports(spec),
            affinity: terms(
                attract
                    .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            anti_affinity: terms(
                repel.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred: preferred.into_iter().chain(avoided).flatten().collect(),
            claims: claims(&pod, spec),
            signature: signature(spec),
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

    pub(crate) fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    pub(crate) fn priority(&self) -> i32 {
        self.priority
    }

    pub(crate) fn terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    pub(crate) fn tolerations(&self) -> &[Toleration] {
        self.spec().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
    }

    pub(crate) fn scheduler_name(&self) -> &str {
        scheduler_name(&self.pod)
    }

    pub(crate) fn nominated_node(&self) -> Option<&str> {
        let node = self.pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
        node.filter(|n| !n.is_empty())
    }

    /// When it started; a pod that has not started is younger than all that have.
    pub(crate) fn started(&self) -> jiff::Timestamp {
        self.started
    }
}

pub(crate) fn scheduler_name(pod: &Pod) -> &str {
    let name = pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref());
    name.filter(|n| !n.is_empty()).unwrap_or("default-scheduler")
}

/// The node that the pod is bound to.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty())
}

impl Term {
    fn new(term: &PodAffinityTerm, pod: &Pod) -> Term {
        let mut selector = Selector::of(term.label_selector.as_ref());
        let labels = pod.metadata.labels.as_ref();
        for (keys, operator) in
            [(&term.match_label_keys, Operator::In), (&term.mismatch_label_keys, Operator::NotIn)]
        {
            for key in keys.iter().flatten() {
                // The server merges the keys into the selector of pods it admits.
                let merged = term.label_selector.as_ref().is_some_and(|s| {
                    let expressions = s.match_expressions.iter().flatten();
                    expressions.into_iter().any(|e| e.key == *key)
                });
                if let (false, Some(value)) = (merged, labels.and_then(|l| l.get(key))) {
                    selector.require(key, operator, value);
                }
            }
        }
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.extend(pod.metadata.namespace.clone());
        }
        let namespace_selector = Selector::of(term.namespace_selector.as_ref());
        Term::build(term.topology_key.clone(), selector, namespaces, namespace_selector)
    }

    /// Selects pods of one namespace.
    pub(crate) fn in_namespace(topology_key: &str, selector: Selector, namespace: &str) -> Term {
        let namespaces = BTreeSet::from([namespace.to_owned()]);
        Term::build(topology_key.to_owned(), selector, namespaces, Selector::of(None))
    }

    fn build(
        topology_key: String,
        selector: Selector,
        namespaces: BTreeSet<String>,
        namespace_selector: Selector,
    ) -> Term {
        let listed: Vec<&str> = namespaces.iter().map(String::as_str).collect();
        let identity = format!(
            "{}\u{4}{}\u{4}{}",
            listed.join("\u{2}"),
            namespace_selector.identity(),
            selector.identity()
        );
        Term { topology_key, selector, namespaces, namespace_selector, identity }
    }

    /// Whether whom it selects depends on namespaces' labels.
    pub(crate) fn depends_on_namespaces(&self) -> bool {
        self.namespace_selector != Selector::of(None) && !self.namespace_selector.is_empty()
    }

    /// Whether the term selects this pod; `namespace_labels` are those of the pod's namespace.
    pub(crate) fn matches(&self, pod: &PodInfo, namespace_labels: Option<&Labels>) -> bool {
        self.matches_pod(&pod.pod, namespace_labels)
    }

    /// [`Term::matches`] for a pod that nothing was computed of.
    pub(crate) fn matches_pod(&self, pod: &Pod, namespace_labels: Option<&Labels>) -> bool {
        let chosen = self.namespaces.contains(pod.metadata.namespace.as_deref().unwrap_or(""))
            || self.namespace_selector.is_empty()
            || self.namespace_selector.matches(namespace_labels);
        chosen && self.selector.matches(pod.metadata.labels.as_ref())
    }

    /// Whether it selects pods of a namespace with these labels.
    pub(crate) fn selects_namespace(&self, labels: Option<&Labels>) -> bool {
        self.namespace_selector.matches(labels)
    }
}

/// The ports of the node that the pod's containers and sidecars ask for.
pub(crate) fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
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

fn claims(pod: &Pod, spec: &PodSpec) -> Vec<String> {
    let name = pod.metadata.name.as_deref().unwrap_or("");
    let volumes = spec.volumes.iter().flatten();
    let claims = volumes.filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{name}-{}", v.name)),
        (None, None) => None,
    });
    claims.collect()
}

fn signature(spec: &PodSpec) -> Option<Arc<str>> {
    let depends = |v: &k8s_openapi::api::core::v1::Volume| {
        let plain = v.config_map.is_some()
            || v.secret.is_some()
            || v.projected.is_some()
            || v.empty_dir.is_some()
            || v.downward_api.is_some()
            || v.host_path.is_some();
        !plain
    };
    let claims = spec.resource_claims.as_ref().is_some_and(|c| !c.is_empty());
    if claims || spec.volumes.iter().flatten().any(depends) {
        return None;
    }
    let container = |c: &k8s_openapi::api::core::v1::Container| {
        json!([c.image, c.restart_policy, c.resources, c.ports])
    };
    let containers: Vec<_> = spec.containers.iter().map(container).collect();
    let inits: Vec<_> = spec.init_containers.iter().flatten().map(container).collect();
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let text = json!([
        containers,
        inits,
        spec.node_name,
        spec.node_selector,
        affinity,
        spec.tolerations,
        spec.overhead,
        spec.resources,
    ]);
    Some(text.to_string().into())
}
