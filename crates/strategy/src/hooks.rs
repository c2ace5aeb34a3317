//! Hooks of kinds: steps of a request that a kind adds to its schema and its pure rules (crate
//! `validation`). One table of hooks, and one file a kind that has any.

use api::Status;
use api::registry::Resource;
use serde_json::Value;

use super::kinds::{definition, namespace, pod, request, service, small};
use super::{BoxFuture, Step};

type PrepareCreate = fn(&Step<'_>, &mut Value) -> Result<(), Status>;
type PrepareUpdate = fn(&Step<'_>, &Value, &mut Value) -> Result<(), Status>;

pub type Booking<'a> = BoxFuture<'a, Result<(), Status>>;
type Book = for<'a> fn(&'a Step<'_>, &'a mut Value) -> Booking<'a>;

/// The places where a kind may act. All have a harmless default.
#[derive(Debug, Clone, Copy)]
pub struct Hooks {
    pub prepare_create: PrepareCreate,
    pub prepare_update: PrepareUpdate,
    /// Rules that `validation` cannot hold, because they are about more than the kind's own data.
    pub validate: fn(&validation::At<'_>),
    /// Seconds of grace for a deletion that asks for so much.
    pub grace: fn(&Value, Option<i64>) -> i64,
    /// Deletion was asked for and written into the object.
    pub deleting: fn(&Step<'_>, &mut Value),
    /// Books what the object was given where several servers share the store; may replace what the
    /// server chose. Runs right before the object is written.
    pub book: Option<Book>,
    /// What an object no longer holds, or held when it was deleted, is given back.
    pub releases: bool,
    /// A deletion that says nothing of dependents leaves them (kinds older than garbage collection).
    pub orphans: bool,
    /// A deletion that does not say what becomes of dependents is warned about.
    pub warns_of_orphans: bool,
    /// A finished deletion answers with the object.
    pub returns_deleted: bool,
    /// PUT of what does not exist creates it.
    pub create_on_update: bool,
    /// PUT need not name the revision that it replaces.
    pub unconditional: bool,
    /// A write of the status changes no labels, annotations, owners and finalizers.
    pub status_keeps_metadata: bool,
    /// A new object keeps the status it is sent with.
    pub brings_status: bool,
    /// Metadata whose change counts as a new generation.
    pub generation_metadata: &'static str,
    /// The generation stays the first.
    pub has_fixed_generation: bool,
}

pub const DEFAULT: Hooks = Hooks {
    prepare_create: |_, _| Ok(()),
    prepare_update: |_, _, _| Ok(()),
    validate: |_| {},
    grace: |_, _| 0,
    deleting: |_, _| {},
    book: None,
    releases: false,
    orphans: false,
    warns_of_orphans: false,
    returns_deleted: false,
    create_on_update: false,
    unconditional: true,
    status_keeps_metadata: false,
    brings_status: false,
    generation_metadata: "",
    has_fixed_generation: false,
};

const CREATE_ON_UPDATE: Hooks = Hooks { create_on_update: true, ..DEFAULT };
const LEASE: Hooks = Hooks { create_on_update: true, unconditional: false, ..DEFAULT };
const CONDITIONAL: Hooks = Hooks { unconditional: false, ..DEFAULT };
const ORPHANING: Hooks = Hooks { orphans: true, ..DEFAULT };
const RETURNED: Hooks = Hooks { returns_deleted: true, ..DEFAULT };
const CONDITIONAL_RETURNED: Hooks = Hooks { returns_deleted: true, ..CONDITIONAL };

/// Resources through whose status no metadata is written.
const STATUS_KEEPS_METADATA: [&str; 12] = [
    "apiservices",
    "devicetaintrules",
    "flowschemas",
    "podgroups",
    "prioritylevelconfigurations",
    "resourceclaims",
    "resourcepoolstatusrequests",
    "servicecidrs",
    "storageversionmigrations",
    "storageversions",
    "validatingadmissionpolicies",
    "volumeattachments",
];

/// Rules of a resource that need more than this crate knows: its group, its name, and the check.
pub type Check = (&'static str, &'static str, fn(&validation::At<'_>));

/// The hooks of a resource (its subresources share them), with the check that is for it.
pub(crate) fn of(row: &Resource, checks: &[Check]) -> Hooks {
    let hooks = of_kind(row.current());
    let own = checks.iter().find(|(group, name, _)| (*group, *name) == (row.group, row.name));
    Hooks {
        status_keeps_metadata: STATUS_KEEPS_METADATA.contains(&row.name),
        validate: own.map_or(hooks.validate, |(.., check)| *check),
        ..hooks
    }
}

fn of_kind(row: &Resource) -> Hooks {
    match (row.group, row.name) {
        ("", "pods") => pod::HOOKS,
        ("", "replicationcontrollers") => ORPHANING,
        ("", "services") => service::HOOKS,
        ("", "namespaces") => namespace::HOOKS,
        ("", "nodes") => Hooks { brings_status: true, ..DEFAULT },
        ("admissionregistration.k8s.io", _) => CONDITIONAL,
        ("apiextensions.k8s.io", "customresourcedefinitions") => definition::HOOKS,
        ("apiregistration.k8s.io", "apiservices") => small::API_SERVICE,
        ("apps", "daemonsets") => small::DAEMON_SET,
        ("batch", "jobs") => small::JOB,
        ("", "limitranges") => small::LIMIT_RANGE,
        ("", "persistentvolumes") => small::VOLUME,
        ("certificates.k8s.io", "certificatesigningrequests") => request::HOOKS,
        ("coordination.k8s.io", "leases") => LEASE,
        ("", "serviceaccounts") => small::SERVICE_ACCOUNT,
        ("", "secrets") => small::SECRET,
        ("apps", "deployments") => small::DEPLOYMENT,
        ("", "persistentvolumeclaims" | "podtemplates" | "resourcequotas")
        | ("storage.k8s.io", "storageclasses" | "volumeattributesclasses")
        | ("resource.k8s.io", _) => RETURNED,
        ("storage.k8s.io", "volumeattachments" | "csidrivers" | "csinodes") => CONDITIONAL_RETURNED,
        ("storage.k8s.io", "csistoragecapacities")
        | ("policy", _)
        | ("node.k8s.io", "runtimeclasses")
        | ("certificates.k8s.io" | "coordination.k8s.io", _) => CONDITIONAL,
        ("", "endpoints" | "events") | ("events.k8s.io", "events") => CREATE_ON_UPDATE,
        ("rbac.authorization.k8s.io", _) => CREATE_ON_UPDATE,
        ("discovery.k8s.io", "endpointslices") => {
            Hooks { generation_metadata: "labels", ..DEFAULT }
        }
        ("scheduling.k8s.io", "priorityclasses") => Hooks { has_fixed_generation: true, ..DEFAULT },
        _ => DEFAULT,
    }
}
