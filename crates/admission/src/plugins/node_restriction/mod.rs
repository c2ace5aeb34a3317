//! NodeRestriction: a kubelet writes its own node, what belongs to it, and the pods bound to it.
//!
//! Rule: `plugin/pkg/admission/noderestriction`, with the gates that are on in v1.36. What it needs
//! of the cluster comes through [`Rights`]; the rest is pure.

mod claims;
mod nodes;
mod owned;
mod pods;
mod tokens;

use api::Status;
use api::tree::metadata_text;
use auth::{Inquiry, User};
use serde_json::Value;

use super::bare;
use crate::attributes::{Attributes, Gvr, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

/// NodeRestriction. Users that are not nodes are not looked at.
pub(super) struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation != Operation::Connect && request.user.node().is_some()
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a mut Value) -> Decision<'a> {
        let object: &'a Value = object;
        Decision::asking(request, move |asked| restrict(request, asked, object))
    }
}

/// The rules read and ask this beside the request.
trait Rights {
    /// A stored object by group, version, resource and key.
    fn object(&self, what: Gvr, key: &str) -> Option<Value>;
    /// Whether the requester has a right.
    fn allows(&self, attributes: &auth::Attributes<'_>) -> bool;
}

struct Requester<'a>(&'a Attributes<'a>, &'a Inquiry<'a>);

impl Rights for Requester<'_> {
    fn object(&self, what: Gvr, key: &str) -> Option<Value> {
        self.0.read(what, key)
    }

    fn allows(&self, attributes: &auth::Attributes<'_>) -> bool {
        self.1.ask(self.0.user, attributes).is_allowed()
    }
}

/// One request of a node.
struct Asked<'a> {
    node: &'a str,
    user: &'a User,
    operation: Operation,
    resource: (&'a str, &'a str, &'a str),
    namespace: &'a str,
    name: &'a str,
    /// The new state; null in a deletion.
    object: &'a Value,
    /// The state before; null in a creation.
    old: &'a Value,
    cluster: &'a dyn Rights,
}

/// Why a request is refused.
#[derive(Debug)]
enum Refusal {
    /// The sentence after "is forbidden: ".
    Forbidden(String),
    Other(Box<Status>),
}

type Judgement = Result<(), Refusal>;

fn forbid(why: impl Into<String>) -> Judgement {
    Err(Refusal::Forbidden(why.into()))
}

impl Asked<'_> {
    fn object(&self, resource: &'static str, key: &str) -> Result<Value, Refusal> {
        let found = self.cluster.object(("", "v1", resource), key);
        let name = key.rsplit('/').next().unwrap_or(key);
        // Found by an informer's list, whose errors name the kind.
        let kind = resource.trim_end_matches('s');
        found.ok_or_else(|| Refusal::Other(Box::new(Status::not_found("", kind, name))))
    }

    fn pod(&self, name: &str) -> Result<Value, Refusal> {
        self.object("pods", &format!("{}/{name}", self.namespace))
    }

    fn judge(&self) -> Judgement {
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

fn restrict(request: &Attributes<'_>, inquiry: &Inquiry<'_>, object: &Value) -> Verdict {
    let Some(node) = request.user.node() else { return Ok(()) };
    if node.is_empty() {
        let why = format!("could not determine node from user {:?}", request.user.name);
        return Err(request.forbid(object, &why));
    }
    let name = if request.name.is_empty() { metadata_text(object, "name") } else { request.name };
    let asked = Asked {
        node,
        user: request.user,
        operation: request.operation,
        resource: request.path(),
        namespace: request.namespace(),
        name,
        object,
        old: request.old.unwrap_or(&Value::Null),
        cluster: &Requester(request, inquiry),
    };
    asked.judge().map_err(|refusal| match refusal {
        Refusal::Forbidden(why) => request.forbid(object, &why),
        Refusal::Other(status) => *status,
    })
}

/// Equal for one who does not tell a list that is empty from none.
fn same(a: &Value, b: &Value) -> bool {
    bare(a) == bare(b)
}
