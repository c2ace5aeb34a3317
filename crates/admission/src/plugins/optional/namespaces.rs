//! NamespaceExists and NamespaceAutoProvision.
//!
//! Rules: `plugin/pkg/admission/namespace/{exists,autoprovision}`.

use api::Status;
use serde_json::Value;

use crate::attributes::{Attributes, Gvr, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

const NAMESPACES: Gvr = ("", "v1", "namespaces");

/// Whether a request is about an object in a namespace that is not there.
fn is_absent(request: &Attributes<'_>) -> bool {
    let name = request.namespace();
    !name.is_empty()
        && (request.row.group, request.row.name) != ("", "namespaces")
        && request.cluster.get(NAMESPACES, name).is_none()
}

/// Refuses changes in namespaces that do not exist.
pub(crate) struct NamespaceExists;

impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation != Operation::Connect
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, _: &'a Value) -> Decision<'a> {
        match is_absent(request) {
            true => Err(Status::not_found("", "namespaces", request.namespace())).into(),
            false => Decision::ALLOWED,
        }
    }
}

/// Makes the namespace of a new object.
pub(crate) struct NamespaceAutoProvision;

impl Plugin for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation == Operation::Create && !request.dry_run
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a mut Value) -> Decision<'a> {
        match is_absent(request) {
            true => Decision::Later(Box::pin(provide(request, object))),
            false => Decision::ALLOWED,
        }
    }
}

async fn provide(request: &Attributes<'_>, object: &Value) -> Verdict {
    let made = request.cluster.create_namespace(request.namespace()).await;
    made.map_err(|status| request.forbid(object, &status.message))
}
