//! NodeRestriction: a kubelet writes its own node, what belongs to it, and the pods bound to it.
//!
//! Rule: `plugin/pkg/admission/noderestriction`, with the gates that are on in v1.36. What it needs
//! of the cluster comes through [`Cluster`]; the rest is pure.

mod claims;
mod nodes;
mod owned;
mod pods;
mod tokens;

use api::Status;
use auth::{Attributes, User};
use serde_json::Value;

use super::bare;
use crate::call::Call;
use crate::meta;

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
        }
    }
}

/// What the rules read and ask beside the request.
pub(super) trait Cluster {
    /// A stored object by group, version, resource and key.
    fn object(&self, what: (&str, &str, &str), key: &str) -> Option<Value>;
    /// Whether the requester has a right.
    fn allows(&self, attributes: &Attributes<'_>) -> bool;
}

impl Cluster for Call<'_> {
    fn object(&self, what: (&str, &str, &str), key: &str) -> Option<Value> {
        self.read(what, key)
    }

    fn allows(&self, attributes: &Attributes<'_>) -> bool {
        self.server.authorizer.check(self.user, attributes).is_ok()
    }
}

/// One request of a node.
pub(super) struct Asked<'a> {
    pub(super) node: &'a str,
    pub(super) user: &'a User,
    pub(super) operation: Operation,
    pub(super) resource: (&'a str, &'a str, &'a str),
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// The new state; null in a deletion.
    pub(super) object: &'a Value,
    /// The state before; null in a creation.
    pub(super) old: &'a Value,
    pub(super) cluster: &'a dyn Cluster,
}

/// Why a request is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The sentence after "is forbidden: ".
    Forbidden(String),
    Other(Box<Status>),
}

pub(super) type Verdict = Result<(), Refusal>;

fn forbid(why: impl Into<String>) -> Verdict {
    Err(Refusal::Forbidden(why.into()))
}

impl Asked<'_> {
    fn object(&self, resource: &str, key: &str) -> Result<Value, Refusal> {
        let found = self.cluster.object(("", "v1", resource), key);
        let name = key.rsplit('/').next().unwrap_or(key);
        // Found by an informer's list, whose errors name the kind.
        let kind = resource.trim_end_matches('s');
        found.ok_or_else(|| Refusal::Other(Box::new(Status::not_found("", kind, name))))
    }

    fn pod(&self, name: &str) -> Result<Value, Refusal> {
        self.object("pods", &format!("{}/{name}", self.namespace))
    }

    fn judge(&self) -> Verdict {
        let (group, resource, subresource) = self.resource;
        match (group, resource) {
            ("", "pods") => pods::judge(self, subresource),
            ("", "nodes") => nodes::judge(self),
            ("", "persistentvolumeclaims") => claims::judge(self, subresource),
            ("", "serviceaccounts") => tokens::judge(self, subresource),
            ("certificates.k8s.io", "podcertificaterequests") => {
                forbid("PodCertificateRequest feature gate is disabled")
            }
            ("certificates.k8s.io", "certificatesigningrequests") => owned::request(self),
            ("coordination.k8s.io", "leases") => owned::lease(self),
            ("storage.k8s.io", "csinodes") => owned::csi_node(self),
            ("resource.k8s.io", "resourceslices") => owned::slice(self),
            _ => Ok(()),
        }
    }
}

/// Refuses what a node may not do; anybody else is not looked at.
pub(crate) fn restrict(
    call: &Call<'_>,
    operation: Operation,
    (name, old, object): (&str, &Value, &Value),
) -> Result<(), Status> {
    let Some(node) = call.user.node() else { return Ok(()) };
    let row = call.row;
    let name = if name.is_empty() { meta::text(object, "name") } else { name };
    let forbidden = |why: &str| {
        let unnamed = [meta::text(object, "generateName"), "Unknown"];
        let mut names = std::iter::once(name).chain(unnamed);
        let name = names.find(|name| !name.is_empty()).unwrap_or("");
        Status::forbidden(row.group, row.name, name, why)
    };
    if node.is_empty() {
        return Err(forbidden(&format!("could not determine node from user {:?}", call.user.name)));
    }
    let asked = Asked {
        node,
        user: call.user,
        operation,
        resource: (row.group, row.name, row.subresource),
        namespace: &call.info.namespace,
        name,
        object,
        old,
        cluster: call,
    };
    asked.judge().map_err(|refusal| match refusal {
        Refusal::Forbidden(why) => forbidden(&why),
        Refusal::Other(status) => *status,
    })
}

/// Equal for one who does not tell a list that is empty from none.
fn same(a: &Value, b: &Value) -> bool {
    bare(a) == bare(b)
}
