//! NamespaceLifecycle: nothing is created in a namespace that is absent or on its way out, and those that the
//! cluster cannot do without stay.
//!
//! Rule: `k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`.

use api::Status;
use api::status::cause;
use serde_json::Value;

use crate::attributes::{Attributes, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

/// Namespaces that are never deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation != Operation::Connect
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a mut Value) -> Decision<'a> {
        check(request, object).into()
    }
}

fn check(request: &Attributes<'_>, object: &Value) -> Verdict {
    let is_namespace = request.path() == ("", "namespaces", "");
    if request.operation == Operation::Delete {
        if is_namespace && IMMORTAL.contains(&request.name) {
            let why = "this namespace may not be deleted";
            return Err(Status::forbidden("", "namespaces", request.name, why));
        }
        return Ok(());
    }
    // Whether a namespace exists is not told to those who review their access to it.
    let is_review = request.row.name == "localsubjectaccessreviews";
    if request.row.name == "namespaces" || request.namespace().is_empty() || is_review {
        return Ok(());
    }
    let name = request.namespace();
    let Some(namespace) = request.cluster.get(("", "v1", "namespaces"), name) else {
        return Err(Status::not_found("", "namespaces", name));
    };
    if request.operation != Operation::Create || namespace.meta().deletion_timestamp.is_none() {
        return Ok(());
    }
    let why =
        format!("unable to create new content in namespace {name} because it is being terminated");
    let detail = format!("namespace {name} is being terminated");
    let cause = cause("NamespaceTerminating", "metadata.namespace", detail);
    Err(request.forbid(object, &why).with_causes(vec![cause]))
}
