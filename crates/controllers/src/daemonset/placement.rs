//! Whether a DaemonSet's pod belongs on a node.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};

use super::template::with_tolerations;
use crate::meta::name;
use crate::nodes::{matches, taints, tolerates};
use crate::pods;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// A pod belongs there.
    Run,
    /// None is started there, but one that runs stays.
    Continue,
    Never,
}

/// The set's pod, as it is held against nodes.
#[derive(Debug)]
pub(crate) struct Placer(PodSpec);

impl Placer {
    pub(crate) fn new(set: &DaemonSet) -> Placer {
        let template = set.spec.as_ref().and_then(|s| s.template.spec.clone());
        Placer(with_tolerations(template.unwrap_or_default()))
    }

    pub(crate) fn place(&self, node: &Node) -> Placement {
        let named = self.0.node_name.as_deref().filter(|n| !n.is_empty());
        if named.is_some_and(|n| n != name(&node.metadata)) || !matches(&self.0, node) {
            return Placement::Never;
        }
        match untolerated(&self.0, node) {
            (false, false) => Placement::Run,
            (false, true) => Placement::Continue,
            (true, _) => Placement::Never,
        }
    }
}

/// Whether a taint that the pod does not tolerate evicts it, or keeps it from starting.
fn untolerated(spec: &PodSpec, node: &Node) -> (bool, bool) {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let hurts = |effect: &str| {
        taints(node).iter().any(|t| t.effect == effect && !tolerates(tolerations, t))
    };
    (hurts("NoExecute"), hurts("NoSchedule"))
}

/// The node that the pod is on, or that its affinity names.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    let bound = pods::node(pod);
    if !bound.is_empty() {
        return Some(bound);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let mut names = fields.filter(|f| f.key == "metadata.name" && f.operator == "In");
    names.find_map(|f| f.values.as_deref()).and_then(|v| v.first()).map(String::as_str)
}
