//! A node's own Node: neither its taints nor its owners, and only the labels of kubelets.

use crate::node_labels;

use super::{Asked, Judgement, Operation, forbid, same};

pub(super) fn judge(asked: &Asked<'_>) -> Judgement {
    let (node, name) = (asked.node, asked.name);
    if name != node {
        return forbid(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    match asked.operation {
        Operation::Create => create(asked),
        Operation::Update => update(asked),
        Operation::Delete | Operation::Connect => Ok(()),
    }
}

fn create(asked: &Asked<'_>) -> Judgement {
    let node = asked.node;
    if !asked.object["spec"]["configSource"].is_null() {
        return forbid(format!(
            "node {node:?} is not allowed to create pods with a non-nil configSource"
        ));
    }
    match forbidden_labels(asked).as_slice() {
        [] => Ok(()),
        labels => forbid(format!(
            "node {node:?} is not allowed to set the following labels: {}",
            labels.join(", ")
        )),
    }
}

fn update(asked: &Asked<'_>) -> Judgement {
    let (node, old, new) = (asked.node, asked.old, asked.object);
    let source = &new["spec"]["configSource"];
    if !source.is_null() && !same(source, &old["spec"]["configSource"]) {
        return forbid(format!(
            "node {node:?} is not allowed to update configSource to a new non-nil configSource"
        ));
    }
    if !same(&new["spec"]["taints"], &old["spec"]["taints"]) {
        return forbid(format!("node {node:?} is not allowed to modify taints"));
    }
    if !same(&new["metadata"]["ownerReferences"], &old["metadata"]["ownerReferences"]) {
        return forbid(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    match forbidden_labels(asked).as_slice() {
        [] => Ok(()),
        labels => forbid(format!("is not allowed to modify labels: {}", labels.join(", "))),
    }
}

fn forbidden_labels(asked: &Asked<'_>) -> Vec<String> {
    let of = |object: &serde_json::Value| object["metadata"]["labels"].clone();
    node_labels::forbidden(&of(asked.object), &of(asked.old))
}
