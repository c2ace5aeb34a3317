//! Pods: mirror pods of its own are created and deleted, and the status of pods here is written.

use auth::references;
use serde_json::Value;
use validation::items;

use super::{Asked, Judgement, Operation, Refusal, forbid, same};

const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn judge(asked: &Asked<'_>, subresource: &str) -> Judgement {
    match subresource {
        "" => whole(asked),
        "status" => status(asked),
        "eviction" => eviction(asked),
        other => forbid(format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        )),
    }
}

fn whole(asked: &Asked<'_>) -> Judgement {
    let node = asked.node;
    match asked.operation {
        Operation::Create => create(asked),
        Operation::Delete if asked.old["spec"]["nodeName"] != node => {
            forbid(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        Operation::Delete | Operation::Connect => Ok(()),
        Operation::Update => forbid(format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            asked.operation.name()
        )),
    }
}

fn create(asked: &Asked<'_>) -> Judgement {
    let (node, pod) = (asked.node, asked.object);
    if !pod["metadata"]["annotations"][MIRROR].is_string() {
        return forbid(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return forbid(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        ));
    }
    owner(asked)?;
    match references::of_api(pod) {
        Ok(None) => Ok(()),
        Ok(Some(found)) => {
            forbid(format!("node {node:?} can not create pods that reference {found}"))
        }
        Err(why) => forbid(format!("error checking mirror pod for API references: {why}")),
    }
}

/// A mirror pod has one owner: its Node, as it is now.
fn owner(asked: &Asked<'_>) -> Judgement {
    let node = asked.node;
    let owners: Vec<&Value> = items(&asked.object["metadata"], "ownerReferences").collect();
    let owner = match owners.as_slice() {
        [] => {
            return forbid(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        [owner] => *owner,
        _ => {
            return forbid(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            ));
        }
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return forbid(format!(
            "node {node:?} can only create pods with an owner reference set to itself"
        ));
    }
    if owner["controller"] != true {
        return forbid(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner["blockOwnerDeletion"] == true {
        return forbid(format!(
            "node {node:?} must not set blockOwnerDeletion on an owner reference"
        ));
    }
    let uid = asked.object("nodes", node)?["metadata"]["uid"].as_str().unwrap_or("").to_owned();
    let sent = owner["uid"].as_str().unwrap_or("");
    if sent != uid {
        return forbid(format!("node {node} UID mismatch: expected {sent} got {uid}"));
    }
    Ok(())
}

fn status(asked: &Asked<'_>) -> Judgement {
    let (node, old, new) = (asked.node, asked.old, asked.object);
    if asked.operation != Operation::Update {
        return forbid(format!("unexpected operation {:?}", asked.operation.name()));
    }
    if old["spec"]["nodeName"] != node {
        return forbid(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if !same(&old["metadata"]["labels"], &new["metadata"]["labels"]) {
        return forbid(format!("node {node:?} cannot update labels through pod status"));
    }
    let differs = |key: &str| !same(&old["status"][key], &new["status"][key]);
    if differs("resourceClaimStatuses") {
        return forbid(format!("node {node:?} cannot update resource claim statues"));
    }
    if differs("extendedResourceClaimStatus") {
        return forbid(format!("node {node:?} cannot update extended resource claim status"));
    }
    Ok(())
}

fn eviction(asked: &Asked<'_>) -> Judgement {
    if asked.operation != Operation::Create {
        return forbid(format!("unexpected operation {}", asked.operation.name()));
    }
    if asked.name.is_empty() {
        return Err(Refusal::Forbidden("could not determine pod from request data".into()));
    }
    if asked.pod(asked.name)?["spec"]["nodeName"] != asked.node {
        return forbid(format!(
            "node {} can only evict pods with spec.nodeName set to itself",
            asked.node
        ));
    }
    Ok(())
}
