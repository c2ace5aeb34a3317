//! Roles and bindings grant nothing that their writer does not hold.
//!
//! Rule: `pkg/registry/rbac/*/policybased`. Who may `escalate` a role or `bind` it is not asked; nor
//! is who only lets the garbage collector do its work.

use api::Status;
use auth::{Inquiry, MASTERS, RoleRef, Rule, escalation};
use serde_json::Value;

use crate::attributes::{Attributes, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

const GROUP: &str = "rbac.authorization.k8s.io";
/// Metadata that concerns only the garbage collector and the server.
const COLLECTED: [&str; 5] =
    ["ownerReferences", "finalizers", "selfLink", "managedFields", "resourceVersion"];

/// Upstream checks this in the storage of these resources, after the last plugin has changed the object.
pub(super) struct RbacEscalation;

impl Plugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        writes && request.row.group == GROUP && !request.user.in_group(MASTERS)
    }

    fn mutate<'a>(&'a self, request: &'a Attributes<'a>, object: &'a mut Value) -> Decision<'a> {
        let object: &'a Value = object;
        let old = request.old.unwrap_or(&Value::Null);
        Decision::asking(request, move |asked| check(request, asked, old, object))
    }
}

/// Refuses a role or binding that gives more than the requester has. `old` is null for a new one.
fn check(request: &Attributes<'_>, asked: &Inquiry<'_>, old: &Value, new: &Value) -> Verdict {
    if !old.is_null() && only_collected(old, new) {
        return Ok(());
    }
    match request.row.name {
        "roles" | "clusterroles" => role(request, asked, old, new),
        "rolebindings" | "clusterrolebindings" => binding(request, asked, new),
        _ => Ok(()),
    }
}

pub(super) fn only_collected(old: &Value, new: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        let meta = object.get_mut("metadata").and_then(Value::as_object_mut);
        if let Some(meta) = meta {
            COLLECTED.iter().for_each(|key| drop(meta.remove(*key)));
        }
        super::bare(&object)
    };
    rest(old) == rest(new)
}

fn role(request: &Attributes<'_>, asked: &Inquiry<'_>, old: &Value, new: &Value) -> Verdict {
    let escalate = auth::Attributes { verb: "escalate", ..auth::Attributes::of(request.info) };
    if asked.ask(request.user, &escalate).is_allowed() {
        return Ok(());
    }
    let rules: Option<Vec<Rule>> = serde_json::from_value(new["rules"].clone())
        .map_err(|e| Status::bad_request(format!("rules: {e}")))?;
    confirm(request, new, &rules.unwrap_or_default())?;
    if request.row.name == "clusterroles" && (gathers(old) || gathers(new)) {
        let why = "must have cluster-admin privileges to use the aggregationRule";
        confirm(request, new, &Rule::everything()).map_err(|_| forbidden(request, new, why))?;
    }
    Ok(())
}

/// An aggregated role: its writer cannot know which rules it will have.
fn gathers(role: &Value) -> bool {
    role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|all| !all.is_empty())
}

fn binding(request: &Attributes<'_>, asked: &Inquiry<'_>, new: &Value) -> Verdict {
    let role: RoleRef = serde_json::from_value(new["roleRef"].clone())
        .map_err(|e| Status::bad_request(format!("roleRef: {e}")))?;
    let namespace = if request.row.namespaced { request.namespace() } else { "" };
    let resource = match role.kind.as_str() {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        _ => "",
    };
    let bind = auth::Attributes {
        verb: "bind",
        group: &role.api_group,
        resource,
        namespace,
        name: &role.name,
        ..auth::Attributes::default()
    };
    if !resource.is_empty() && asked.ask(request.user, &bind).is_allowed() {
        return Ok(());
    }
    let rules = request.cluster.authorizer().role(&role, namespace)?;
    confirm(request, new, &rules)
}

/// The requester holds all of these rules where the object is.
fn confirm(request: &Attributes<'_>, object: &Value, rules: &[Rule]) -> Verdict {
    let namespace = if request.row.namespaced { request.namespace() } else { "" };
    let held = request.cluster.authorizer().held(request.user, namespace);
    escalation::confirm(request.user, &held, rules).map_err(|why| forbidden(request, object, &why))
}

fn forbidden(request: &Attributes<'_>, object: &Value, why: &str) -> Status {
    request.forbid(object, why)
}
