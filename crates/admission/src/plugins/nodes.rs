//! Nodes: taints of new ones, their topology labels on pods, and the features that pods need of them.

use api::quantity::Quantity;
use api::status::Cause;
use serde_json::{Value, json};
use validation::set_default;

use crate::attributes::{Attributes, Operation};
use crate::plugin::{Decision, Plugin, Verdict};
use crate::quota::{self, Measured};

const NODES: (&str, &str, &str) = ("", "v1", "nodes");

/// A new node is tainted until it says that it is ready (`plugin/pkg/admission/nodetaint`).
pub(super) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation == Operation::Create && request.path() == ("", "nodes", "")
    }

    fn mutate<'a>(&'a self, _: &'a Attributes<'a>, node: &'a mut Value) -> Decision<'a> {
        let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
        set_default(&mut node["spec"], "taints", json!([]));
        if let Some(list) = node["spec"]["taints"].as_array_mut()
            && !list.iter().any(|t| t["key"] == taint["key"])
        {
            list.push(taint);
        }
        Decision::ALLOWED
    }
}

/// Copies zone and region of a pod's node to the pod when it is bound, or created bound (KEP-4742,
/// `plugin/pkg/admission/podtopologylabels`).
pub(super) struct PodTopologyLabels;

const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation == Operation::Create
            && matches!(request.path(), ("", "pods", "" | "binding"))
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a mut Value) -> Decision<'a> {
        let node = match request.row.subresource {
            "binding" if object["target"]["kind"] != "Node" => return Decision::ALLOWED,
            "binding" => &object["target"]["name"],
            _ => &object["spec"]["nodeName"],
        };
        let node = node.as_str().filter(|name| !name.is_empty());
        let Some(node) = node.and_then(|name| request.cluster.get(NODES, name)) else {
            return Decision::ALLOWED;
        };
        for key in TOPOLOGY {
            if let Some(value) = node.meta().label(key) {
                set_default(&mut object["metadata"], "labels", json!({}));
                object["metadata"]["labels"][key] = value.into();
            }
        }
        Decision::ALLOWED
    }
}

/// A pod is resized on a node that exists (`plugin/pkg/admission/nodedeclaredfeatures`).
pub(super) struct NodeDeclaredFeatureValidator;

impl Plugin for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation == Operation::Update && request.path() == ("", "pods", "resize")
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a Value) -> Decision<'a> {
        has_node(request, pod).into()
    }
}

fn has_node(request: &Attributes<'_>, pod: &Value) -> Verdict {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or("");
    match node.is_empty() || request.cluster.get(NODES, node).is_some() {
        true => Ok(()),
        false => Err(request.forbid(pod, &format!("node {node:?} not found"))),
    }
}

/// A pod is not resized beyond what its node can give (`plugin/pkg/admission/podresize`).
pub(super) struct PodResizeValidator;

impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation == Operation::Update && request.path() == ("", "pods", "resize")
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, pod: &'a Value) -> Decision<'a> {
        check_resize(request, pod).into()
    }
}

fn check_resize(request: &Attributes<'_>, pod: &Value) -> Verdict {
    let name = pod["spec"]["nodeName"].as_str().unwrap_or("");
    let generation = |pod: &Value| pod["metadata"]["generation"].as_i64();
    let is_same = request.old.is_some_and(|old| generation(old) == generation(pod));
    if name.is_empty() || is_same {
        return Ok(());
    }
    let Some(node) = request.read(NODES, name) else {
        return Err(request.forbid(pod, &format!("node {name:?} not found")));
    };
    let refuse = |why: String, reason: &str| {
        let cause = Cause { reason: reason.into(), ..Cause::default() };
        Err(request.forbid(pod, &why).with_causes(vec![cause]))
    };
    let system = node["metadata"]["labels"]["kubernetes.io/os"].as_str().unwrap_or("linux");
    if system != "linux" {
        let why =
            format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
        return refuse(why, "UnsupportedPlatform");
    }
    let wanted = Measured::of("", "pods", pod).usage(request.now);
    let given = quota::amounts(&node["status"]["allocatable"]);
    let number = |resource: &str, quantity: &Quantity| match resource {
        "cpu" => quantity.milli_value(),
        _ => quantity.value(),
    };
    let too_much = ["cpu", "memory"].into_iter().filter_map(|resource| {
        let wanted = number(resource, wanted.get(&format!("requests.{resource}"))?);
        let given = given.get(resource).map_or(0, |given| number(resource, given));
        (wanted > given).then(|| format!("{resource}, requested: {wanted}, allocatable: {given}"))
    });
    let too_much: Vec<String> = too_much.collect();
    if too_much.is_empty() {
        return Ok(());
    }
    let why = too_much.join("; ");
    refuse(format!("node didn't have enough allocatable resources: {why}"), "NodeCapacity")
}
