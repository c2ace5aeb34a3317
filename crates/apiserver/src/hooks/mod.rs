//! Hooks of kinds: steps of a request that a kind adds to its schema and its pure rules (crate
//! `validation`). One table of hooks, and one file a kind that has any.

mod definition;
mod namespace;
mod node;
mod pod;
mod request;
mod service;
mod small;

use std::pin::Pin;

use api::Status;
use api::registry::{Registry, Resource};
use serde_json::Value;

use crate::call::Call;

type PrepareCreate = fn(&Call<'_>, &mut Value) -> Result<(), Status>;
type PrepareUpdate = fn(&Call<'_>, &Value, &mut Value) -> Result<(), Status>;

pub(crate) type Booking<'a> = Pin<Box<dyn Future<Output = Result<(), Status>> + Send + 'a>>;
type Book = for<'a> fn(&'a Call<'_>, &'a mut Value) -> Booking<'a>;

/// The places where a kind may act. All have a harmless default.
pub(crate) struct Hooks {
    prepare_create: PrepareCreate,
    /// Old and new state; runs for subresources with the subresource in the call.
    prepare_update: PrepareUpdate,
    /// Rules that `validation` cannot hold, because they are about more than the kind's own data.
    pub(crate) validate: fn(&validation::At<'_>),
    /// May this be deleted at all?
    pub(crate) check_delete: fn(&Call<'_>, &Value) -> Result<(), Status>,
    /// Seconds of grace for a deletion that asks for so much.
    pub(crate) grace: fn(&Value, Option<i64>) -> i64,
    /// Deletion was asked for and written into the object.
    pub(crate) deleting: fn(&Call<'_>, &mut Value),
    /// Books what the object was given where several servers share the store; may replace what the
    /// server chose. Runs right before the object is written.
    pub(crate) book: Option<Book>,
    /// What an object no longer holds, or held when it was deleted, is given back.
    pub(crate) releases: bool,
    /// A deletion that says nothing of dependents leaves them (kinds older than garbage collection).
    pub(crate) orphans: bool,
    /// A deletion that does not say what becomes of dependents is warned about.
    pub(crate) warns_of_orphans: bool,
    /// A finished deletion answers with the object.
    pub(crate) returns_deleted: bool,
    /// PUT of what does not exist creates it.
    pub(crate) create_on_update: bool,
    /// PUT need not name the revision that it replaces.
    pub(crate) unconditional: bool,
}

pub(crate) const DEFAULT: Hooks = Hooks {
    prepare_create: |_, _| Ok(()),
    prepare_update: |_, _, _| Ok(()),
    validate: |_| {},
    check_delete: |_, _| Ok(()),
    grace: |_, _| 0,
    deleting: |_, _| {},
    book: None,
    releases: false,
    orphans: false,
    warns_of_orphans: false,
    returns_deleted: false,
    create_on_update: false,
    unconditional: true,
};

static NONE: Hooks = DEFAULT;
static CREATE_ON_UPDATE: Hooks = Hooks { create_on_update: true, ..DEFAULT };
static LEASE: Hooks = Hooks { create_on_update: true, unconditional: false, ..DEFAULT };
static CONDITIONAL: Hooks = Hooks { unconditional: false, ..DEFAULT };
static ORPHANING: Hooks = Hooks { orphans: true, ..DEFAULT };
static RETURNED: Hooks = Hooks { returns_deleted: true, ..DEFAULT };
static CONDITIONAL_RETURNED: Hooks = Hooks { returns_deleted: true, ..CONDITIONAL };

/// The hooks of a resource (its subresources share them).
pub(crate) fn of(row: &Resource) -> &'static Hooks {
    match (row.group, row.name) {
        ("", "pods") => &pod::HOOKS,
        ("", "replicationcontrollers") => &ORPHANING,
        ("", "services") => &service::HOOKS,
        ("", "namespaces") => &namespace::HOOKS,
        ("", "nodes") => &node::HOOKS,
        ("apiextensions.k8s.io", "customresourcedefinitions") => &definition::HOOKS,
        ("apiregistration.k8s.io", "apiservices") => &small::API_SERVICE,
        ("apps", "daemonsets") => &small::DAEMON_SET,
        ("batch", "jobs") => &small::JOB,
        ("", "limitranges") => &small::LIMIT_RANGE,
        ("", "persistentvolumes") => &small::VOLUME,
        ("certificates.k8s.io", "certificatesigningrequests") => &request::HOOKS,
        ("coordination.k8s.io", "leases") => &LEASE,
        ("", "serviceaccounts") => &small::SERVICE_ACCOUNT,
        ("", "secrets") => &small::SECRET,
        ("apps", "deployments") => &small::DEPLOYMENT,
        ("", "persistentvolumeclaims" | "podtemplates" | "resourcequotas")
        | ("storage.k8s.io", "storageclasses" | "volumeattributesclasses")
        | ("resource.k8s.io", _) => &RETURNED,
        ("storage.k8s.io", "volumeattachments" | "csidrivers" | "csinodes") => {
            &CONDITIONAL_RETURNED
        }
        ("storage.k8s.io", "csistoragecapacities")
        | ("admissionregistration.k8s.io" | "policy", _)
        | ("node.k8s.io", "runtimeclasses")
        | ("certificates.k8s.io" | "coordination.k8s.io", _) => &CONDITIONAL,
        ("", "endpoints" | "events") | ("events.k8s.io", "events") => &CREATE_ON_UPDATE,
        ("rbac.authorization.k8s.io", _) => &CREATE_ON_UPDATE,
        _ => &NONE,
    }
}

/// Owners that are named twice are kept once, and told.
fn dedup_owners(call: &Call<'_>, object: &mut Value) {
    let duplicates = validation::dedup_owners(object);
    if duplicates.is_empty() {
        return;
    }
    let when = match call.info.verb {
        "patch" => " after mutating admission happens",
        _ => "",
    };
    let uids = duplicates.join(", ");
    call.warn(format!(".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}"));
}

/// Prepares a new object as its kind wants it (upstream's `PrepareForCreate`).
pub(crate) fn prepare_create(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    dedup_owners(call, object);
    if call.custom.is_none() {
        validation::drop_disabled(call.row, object, None);
    }
    (of(call.row).prepare_create)(call, object)
}

/// Prepares a changed object as its kind wants it (upstream's `PrepareForUpdate`).
pub(crate) fn prepare_update(
    call: &Call<'_>,
    old: &Value,
    object: &mut Value,
) -> Result<(), Status> {
    dedup_owners(call, object);
    if call.custom.is_none() {
        validation::drop_disabled(call.row, object, Some(old));
    }
    (of(call.row).prepare_update)(call, old, object)
}

/// Books what a new or changed object was given, where servers share the store.
pub(crate) async fn book(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    match of(call.main_row()).book.filter(|_| call.server.store.is_shared()) {
        Some(book) => book(call, object).await,
        None => Ok(()),
    }
}

/// Gives back what the first state held and the second (absent when the object is gone) does not.
pub(crate) async fn release(call: &Call<'_>, old: &Value, kept: Option<&Value>) {
    if of(call.main_row()).releases {
        call.server.allocators.release(old, kept).await;
    }
}

/// True for resources whose status is a subresource of its own.
pub(crate) fn has_status(row: &Resource) -> bool {
    Registry::built_in().find(row.group, row.version, row.name, "status").is_some()
}

/// A new object has no status but its zero value; nodes bring theirs.
pub(crate) fn reset_status(call: &Call<'_>, object: &mut Value) {
    if !call.has_status() || call.row.name == "nodes" {
        return;
    }
    let shape = call.shape();
    let zero = call.schema().zero(&shape);
    let Some(map) = object.as_object_mut() else { return };
    match zero.get("status") {
        Some(status) => drop(map.insert("status".into(), status.clone())),
        None => drop(map.remove("status")),
    }
}
