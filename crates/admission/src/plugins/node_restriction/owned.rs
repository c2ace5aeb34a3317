//! Objects that bear the node's name, or name the node: leases, CSI nodes, resource slices, requests
//! for certificates.

use super::{Asked, Judgement, Operation, forbid};
use crate::plugins::certificates;

const LEASES: &str = "kube-node-lease";
/// Signers whose certificates make a node.
const NODE_SIGNERS: [&str; 2] =
    ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

pub(super) fn lease(asked: &Asked<'_>) -> Judgement {
    if asked.namespace != LEASES {
        return forbid(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    if asked.name != asked.node {
        return forbid("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

pub(super) fn csi_node(asked: &Asked<'_>) -> Judgement {
    if asked.name != asked.node {
        return forbid("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

/// Changes are the authoriser's; it does not see what is created, nor each of many that are deleted.
pub(super) fn slice(asked: &Asked<'_>) -> Judgement {
    let of = |object: &serde_json::Value| object["spec"]["nodeName"] == asked.node;
    match asked.operation {
        Operation::Create if !of(asked.object) => {
            forbid("can only create ResourceSlice with the same NodeName as the requesting node")
        }
        Operation::Delete if !of(asked.old) => {
            forbid("can only delete ResourceSlice with the same NodeName as the requesting node")
        }
        _ => Ok(()),
    }
}

/// A node asks for certificates in its own name.
pub(super) fn request(asked: &Asked<'_>) -> Judgement {
    let spec = &asked.object["spec"];
    let signer = spec["signerName"].as_str().unwrap_or("");
    if asked.operation != Operation::Create || !NODE_SIGNERS.contains(&signer) {
        return Ok(());
    }
    match certificates::common_name(spec["request"].as_str().unwrap_or("")) {
        Err(why) => forbid(format!("unable to parse csr: {why}")),
        Ok(name) if name == asked.user.name => Ok(()),
        Ok(_) => forbid(format!("can only create a node CSR with CN=system:node:{}", asked.node)),
    }
}
