//! Roles and bindings grant nothing that their writer does not hold.
//!
//! Rule: `pkg/registry/rbac/*/policybased`. Who may `escalate` a role or `bind` it is not asked; nor
//! is who only lets the garbage collector do its work.

use api::Status;
use auth::{Attributes, MASTERS, RoleRef, Rule, escalation};
use serde_json::Value;

use crate::call::Call;
use crate::meta;

const GROUP: &str = "rbac.authorization.k8s.io";
/// What only the garbage collector and the server care for.
const COLLECTED: [&str; 5] =
    ["ownerReferences", "finalizers", "selfLink", "managedFields", "resourceVersion"];

/// Refuses a role or binding that gives more than the requester has. `old` is null for a new one.
pub(super) fn check(call: &Call<'_>, old: &Value, new: &Value) -> Result<(), Status> {
    if call.row.group != GROUP || call.user.in_group(MASTERS) {
        return Ok(());
    }
    if !old.is_null() && only_collected(old, new) {
        return Ok(());
    }
    match call.row.name {
        "roles" | "clusterroles" => role(call, old, new),
        "rolebindings" | "clusterrolebindings" => binding(call, new),
        _ => Ok(()),
    }
}

fn only_collected(old: &Value, new: &Value) -> bool {
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

fn role(call: &Call<'_>, old: &Value, new: &Value) -> Result<(), Status> {
    let escalate = Attributes { verb: "escalate", ..Attributes::of(call.info) };
    if call.server.authorizer.check(call.user, &escalate).is_ok() {
        return Ok(());
    }
    let rules: Option<Vec<Rule>> = serde_json::from_value(new["rules"].clone())
        .map_err(|e| Status::bad_request(format!("rules: {e}")))?;
    confirm(call, new, &rules.unwrap_or_default())?;
    if call.row.name == "clusterroles" && (gathers(old) || gathers(new)) {
        let why = "must have cluster-admin privileges to use the aggregationRule";
        confirm(call, new, &everything()).map_err(|_| forbidden(call, new, why))?;
    }
    Ok(())
}

/// A role that takes the rules of others: whoever writes it cannot know which.
fn gathers(role: &Value) -> bool {
    role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|all| !all.is_empty())
}

fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    let resources = Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() };
    [resources, Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() }]
}

fn binding(call: &Call<'_>, new: &Value) -> Result<(), Status> {
    let role: RoleRef = serde_json::from_value(new["roleRef"].clone())
        .map_err(|e| Status::bad_request(format!("roleRef: {e}")))?;
    let namespace = if call.row.namespaced { call.info.namespace.as_str() } else { "" };
    let resource = match role.kind.as_str() {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        _ => "",
    };
    let bind = Attributes {
        verb: "bind",
        group: &role.api_group,
        resource,
        namespace,
        name: &role.name,
        ..Attributes::default()
    };
    if !resource.is_empty() && call.server.authorizer.check(call.user, &bind).is_ok() {
        return Ok(());
    }
    let rules = call.server.authorizer.role(&role, namespace)?;
    confirm(call, new, &rules)
}

/// The requester holds all of these rules where the object is.
fn confirm(call: &Call<'_>, object: &Value, rules: &[Rule]) -> Result<(), Status> {
    let namespace = if call.row.namespaced { call.info.namespace.as_str() } else { "" };
    let held = call.server.authorizer.rules(call.user, namespace);
    escalation::confirm(call.user, &held, rules).map_err(|why| forbidden(call, object, &why))
}

fn forbidden(call: &Call<'_>, object: &Value, why: &str) -> Status {
    Status::forbidden(GROUP, call.row.name, meta::text(object, "name"), why)
}
