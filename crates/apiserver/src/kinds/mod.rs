//! What a kind does beyond its schema: one table of hooks, one file a kind that has any.

mod apps;
mod namespace;
mod node;
mod pod;
mod service;

use api::Status;
use api::registry::{Registry, Resource};
use api::status::Cause;
use serde_json::Value;

use crate::call::Call;
use crate::meta;

type PrepareCreate = fn(&Call<'_>, &mut Value) -> Result<(), Status>;
type PrepareUpdate = fn(&Call<'_>, &Value, &mut Value) -> Result<(), Status>;

/// The places where a kind may act. All have a harmless default.
pub(crate) struct Hooks {
    /// Defaults that depend on other fields.
    pub(crate) default: fn(&mut Value),
    pub(crate) prepare_create: PrepareCreate,
    /// Old and new state; runs for subresources with the subresource in the call.
    pub(crate) prepare_update: PrepareUpdate,
    /// New state, and the old one on updates.
    pub(crate) validate: fn(&Value, Option<&Value>) -> Vec<Cause>,
    /// May this be deleted at all?
    pub(crate) check_delete: fn(&Call<'_>, &Value) -> Result<(), Status>,
    /// Seconds of grace for a deletion that asks for so much.
    pub(crate) grace: fn(&Value, Option<i64>) -> i64,
    /// Deletion was asked for and written into the object.
    pub(crate) deleting: fn(&Call<'_>, &mut Value),
    /// The first state is no longer stored (or never was): give back what it held, except what the
    /// second still holds.
    pub(crate) released: fn(&Call<'_>, &Value, Option<&Value>),
    /// A finished deletion answers with the object.
    pub(crate) returns_deleted: bool,
    /// PUT of what does not exist creates it.
    pub(crate) create_on_update: bool,
}

pub(crate) const DEFAULT: Hooks = Hooks {
    default: |_| {},
    prepare_create: |_, _| Ok(()),
    prepare_update: |_, _, _| Ok(()),
    validate: |_, _| Vec::new(),
    check_delete: |_, _| Ok(()),
    grace: |_, _| 0,
    deleting: |_, _| {},
    released: |_, _, _| {},
    returns_deleted: false,
    create_on_update: false,
};

static NONE: Hooks = DEFAULT;
static CREATE_ON_UPDATE: Hooks = Hooks { create_on_update: true, ..DEFAULT };

/// The hooks of a resource (its subresources share them).
pub(crate) fn hooks(row: &Resource) -> &'static Hooks {
    match (row.group, row.name) {
        ("", "pods") => &pod::HOOKS,
        ("", "services") => &service::HOOKS,
        ("", "namespaces") => &namespace::HOOKS,
        ("", "nodes") => &node::HOOKS,
        ("apps", "deployments") => &apps::DEPLOYMENT,
        ("apps", "replicasets" | "statefulsets" | "daemonsets")
        | ("", "replicationcontrollers" | "podtemplates") => &apps::TEMPLATED,
        ("batch", "jobs" | "cronjobs") => &apps::TEMPLATED,
        ("", "endpoints" | "events")
        | ("coordination.k8s.io", "leases")
        | ("events.k8s.io", "events") => &CREATE_ON_UPDATE,
        ("rbac.authorization.k8s.io", _) => &apps::RBAC,
        ("", "secrets") => &apps::SECRET,
        _ => &NONE,
    }
}

/// True for resources whose status is a subresource of its own.
pub(crate) fn has_status(row: &Resource) -> bool {
    Registry::built_in().find(row.group, row.version, row.name, "status").is_some()
}

/// A new object has no status but its zero value; nodes bring theirs.
pub(crate) fn reset_status(call: &Call<'_>, object: &mut Value) {
    let row = call.row;
    if !has_status(row) || row.name == "nodes" {
        return;
    }
    let shape = call.shape();
    let zero = call.server.schema.zero(&shape);
    let Some(map) = object.as_object_mut() else { return };
    match zero.get("status") {
        Some(status) => drop(map.insert("status".into(), status.clone())),
        None => drop(map.remove("status")),
    }
}

/// `required` fields of a list of named things, and such small checks share this.
pub(crate) fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

pub(crate) fn items_mut<'a>(
    value: &'a mut Value,
    key: &str,
) -> impl Iterator<Item = &'a mut Value> {
    let list = value.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// Sets a field that is absent.
pub(crate) fn set_default(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        let unset = map.get(key).is_none_or(|v| v.is_null() || v == "");
        if unset {
            map.insert(key.into(), value.into());
        }
    }
}

/// The cause that says a field may not change.
pub(crate) fn immutable(field: &str, value: &Value) -> Cause {
    meta::invalid(field, value, "field is immutable")
}
