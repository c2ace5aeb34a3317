//! NodeDeclaredFeatures: a pod that needs a feature goes to nodes whose kubelet declares it.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::names;
use crate::event::{Action, ClusterEvent, Interest, Object, Resource};
use crate::framework::{Code, Cycle, Gap, Plugin, Points, PreFilter, Preparing, Verdict, reject};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

#[derive(Debug)]
pub(crate) struct NodeDeclaredFeatures;

/// What the pod needs.
#[derive(Debug, Clone)]
struct Needs(Vec<&'static str>);

fn restarts_all(container: &Container) -> bool {
    let rules = container.restart_policy_rules.iter().flatten();
    rules.into_iter().any(|rule| rule.action == "RestartAllContainers")
}

/// The features that the pod's spec asks of its node.
fn needs(spec: &PodSpec) -> Vec<&'static str> {
    let mut all = Vec::new();
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    if containers.any(restarts_all) {
        all.push("RestartAllContainersOnContainerExits");
    }
    if spec.host_network == Some(true) && spec.host_users == Some(false) {
        all.push("UserNamespacesHostNetworkSupport");
    }
    all
}

fn missing(needs: &Needs, node: &NodeInfo) -> Vec<&'static str> {
    let status = node.node.as_ref().and_then(|node| node.status.as_ref());
    let declared = status.and_then(|s| s.declared_features.as_deref()).unwrap_or_default();
    let lacks = |feature: &&&'static str| !declared.iter().any(|own| own == **feature);
    needs.0.iter().filter(lacks).copied().collect()
}

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        names::NODE_DECLARED_FEATURES
    }

    fn points(&self) -> Points {
        Points::PRE_FILTER.and(Points::FILTER)
    }

    fn events(&self) -> &'static [Interest] {
        &[
            (Resource::Node, Action::ADD),
            (Resource::Node, Action::NODE_FEATURES),
            (Resource::Pod, Action::UPDATE),
        ]
    }

    fn queueing_hint(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        let Object::Pod((Some(old), Some(new))) = &event.object else { return true };
        let of = |pod: &k8s_openapi::api::core::v1::Pod| pod.spec.as_ref().map(needs);
        new.metadata.uid == pod.pod.metadata.uid && of(old) != of(new)
    }

    fn pre_filter(&self, cycle: &mut Preparing<'_>) -> PreFilter {
        let needs = cycle.pod.spec().map(needs).unwrap_or_default();
        if needs.is_empty() {
            return PreFilter::Skip;
        }
        cycle.state.set(Needs(needs));
        PreFilter::Continue
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        let Some(needs) = cycle.state.get::<Needs>() else { return Ok(()) };
        if missing(needs, node).is_empty() {
            return Ok(());
        }
        let why = "node(s) didn't match Pod's required features";
        Err(reject(Code::Unresolvable, self.name(), why))
    }

    fn gap(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Option<Gap> {
        let missing = missing(cycle.state.get::<Needs>()?, node);
        let remedy = format!("a kubelet that declares {}", missing.join(", "));
        Some(Gap { distance: missing.len() as f64, remedy })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Bed, node, pod};

    #[test]
    fn a_pod_goes_where_its_features_are_declared() {
        let features = json!({"status": {"declaredFeatures":
            ["RestartAllContainersOnContainerExits"]}});
        let mut bed = Bed::new(&[node("a", json!({})), node("b", features)]);
        let rules = json!([{"action": "RestartAllContainers", "exitCodes":
            {"operator": "In", "values": [1]}}]);
        let restarts =
            json!({"spec": {"containers": [{"name": "c", "restartPolicyRules": rules}]}});
        assert_eq!(bed.answer(&pod("p", "1", restarts)), "b");
        let users = json!({"spec": {"hostNetwork": true, "hostUsers": false}});
        let answer = bed.answer(&pod("p", "1", users));
        assert!(
            answer.starts_with(
                "0/2 nodes are available: 2 node(s) didn't match Pod's required features."
            ),
            "{answer}"
        );
    }
}
