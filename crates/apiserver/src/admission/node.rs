//! NodeRestriction: a kubelet writes its own node and the pods bound to it, nothing else.

use api::Status;
use serde_json::Value;

use crate::call::Call;
use crate::meta;

pub(super) fn restrict(call: &Call<'_>, old: Option<&Value>, object: &Value) -> Result<(), Status> {
    let Some(node) = call.user.node() else { return Ok(()) };
    let refuse =
        |why: String| Err(Status::forbidden(call.row.group, call.row.name, &call.info.name, &why));
    match (call.row.group, call.row.name) {
        ("", "nodes") if meta::text(object, "name") != node => {
            let other = meta::text(object, "name");
            refuse(format!("node {node:?} is not allowed to modify node {other:?}"))
        }
        ("", "pods") => {
            let bound = old.unwrap_or(object)["spec"]["nodeName"].as_str().unwrap_or("");
            if bound != node {
                return refuse(format!(
                    "node {node:?} can only create or change pods with spec.nodeName set to itself"
                ));
            }
            let mirror =
                object["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string();
            if old.is_none() && !mirror {
                return refuse(format!(
                    "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
                ));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
