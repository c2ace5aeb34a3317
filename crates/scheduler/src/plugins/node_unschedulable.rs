//! NodeUnschedulable: cordoned nodes take only pods that tolerate it.

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

use super::names;
use crate::event::{Action, ClusterEvent, Interest, Resource};
use crate::framework::{Code, Cycle, Gap, Plugin, Points, Verdict, reject};
use crate::labels::tolerates;
use crate::node::NodeInfo;
use crate::pod::PodInfo;

#[derive(Debug)]
pub(crate) struct NodeUnschedulable;

fn admits(node: &Node, tolerations: &[Toleration]) -> bool {
    if node.spec.as_ref().and_then(|s| s.unschedulable) != Some(true) {
        return true;
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    tolerates(tolerations, &taint)
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        names::NODE_UNSCHEDULABLE
    }

    fn points(&self) -> Points {
        Points::FILTER
    }

    fn is_node_local(&self) -> bool {
        true
    }

    fn events(&self) -> &'static [Interest] {
        const NODE: Action = Action::ADD;
        const TAINT: Action = Action::NODE_TAINT;
        &[(Resource::Node, NODE), (Resource::Node, TAINT), (Resource::Pod, Action::POD_TOLERATION)]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        if let Some((_, Some(new))) = event.pod() {
            return new.metadata.uid == pod.pod.metadata.uid;
        }
        let Some((old, Some(new))) = event.node() else { return false };
        let before = old.as_ref().is_some_and(|old| admits(old, pod.tolerations()));
        !before && admits(new, pod.tolerations())
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        if node.node.as_ref().is_none_or(|n| admits(n, cycle.pod.tolerations())) {
            return Ok(());
        }
        Err(reject(Code::Unresolvable, self.name(), "node(s) were unschedulable"))
    }

    fn gap(&self, _: &Cycle<'_>, _: &NodeInfo) -> Option<Gap> {
        Some(Gap { distance: 1.0, remedy: "uncordon it".into() })
    }
}
