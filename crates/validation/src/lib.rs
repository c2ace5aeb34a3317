//! The rules of built-in kinds beyond their schema, as pure functions over an object: defaults that
//! depend on other fields, validation, conversion between served versions. One file a kind or family.
//!
//! Everything that needs the request, other objects or time to act is a hook of the API server.

mod admission;
mod api_service;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod check;
mod core;
mod definition;
mod devices;
mod disabled;
mod flowcontrol;
mod formats;
mod gojson;
mod golang;
pub mod legacy;
mod meta;
mod networking;
mod policy;
mod rbac;
mod shared;
mod small;
mod storage;
mod value;
mod warnings;

pub mod convert;

pub use apps::count_template;
pub use batch::generate_selector as generate_job_selector;
pub use check::{At, Check};
pub use core::pod::{
    app_armor_profile, prepare_ephemeral, prepare_pod, prepare_pod_status, prepare_resize,
};
pub use core::qos::class as qos_class;
pub use definition::internal as internal_definition;
pub use disabled::drop_disabled;
pub use gojson::{not_text as go_not_text, syntax_fault as go_syntax_fault};
pub use meta::{annotations, dedup_owners};
pub use shared::quantity::is_extended as is_extended_resource;
pub use value::{items, items_mut, set_default, text};
pub use warnings::{custom_warnings, deprecation, warnings};

use api::registry::Resource;
use api::status::Cause;
use serde_json::Value;

/// One kind's rules. [`PLAIN`] has none beyond its metadata.
#[derive(Debug)]
pub struct Kind {
    /// Syntax of its names.
    pub name: fn(&str) -> Vec<String>,
    /// Defaults that depend on other fields; run after those of the schema.
    pub default: fn(&mut Value),
    /// What must hold of a new object.
    pub create: fn(&At<'_>),
    /// What must hold of an object after an update, and of the change itself ([`At::old`]).
    pub update: fn(&At<'_>),
    /// The same for a write to `/status`.
    pub status: fn(&At<'_>),
    /// An update checks the metadata once more, as that of a new object.
    pub again: bool,
    /// An update is checked as a new object, too, and before the rest.
    pub anew: bool,
}

/// A kind with no rules of its own.
pub const PLAIN: Kind = Kind {
    name: api::names::dns_subdomain,
    default: |_| {},
    create: |_| {},
    update: |_| {},
    status: |_| {},
    again: false,
    anew: false,
};

static UNRULED: Kind = PLAIN;

/// The rules of a resource; its subresources share them.
pub fn of(row: &Resource) -> &'static Kind {
    let row = row.current();
    match (row.group, row.name) {
        ("", "pods") => &core::pod::KIND,
        ("", "podtemplates") => &apps::TEMPLATE,
        ("", "replicationcontrollers") => &apps::CONTROLLER,
        ("", "services") => &core::service::KIND,
        ("", "endpoints") => &core::endpoints::KIND,
        ("", "namespaces") => &core::namespace::KIND,
        ("", "nodes") => &core::node::KIND,
        ("", "secrets") => &core::config::SECRET,
        ("", "configmaps") => &core::config::CONFIG_MAP,
        ("", "limitranges") => &core::limits::LIMIT_RANGE,
        ("", "resourcequotas") => &core::limits::QUOTA,
        ("", "persistentvolumes") => &core::persistent_volume::KIND,
        ("", "persistentvolumeclaims") => &core::claim::KIND,
        ("", "events") | ("events.k8s.io", "events") => &core::event::KIND,
        ("apps", "deployments") => &apps::DEPLOYMENT,
        ("apps", "replicasets") => &apps::REPLICA_SET,
        ("apps", "daemonsets") => &apps::DAEMON_SET,
        ("apps", "statefulsets") => &apps::STATEFUL_SET,
        ("apps", "controllerrevisions") => &apps::REVISION,
        ("batch", "jobs") => &batch::JOB,
        ("batch", "cronjobs") => &batch::CRON_JOB,
        ("autoscaling", "horizontalpodautoscalers") => &autoscaling::KIND,
        ("networking.k8s.io", "networkpolicies") => &networking::NETWORK_POLICY,
        ("networking.k8s.io", "ingresses") => &networking::INGRESS,
        ("networking.k8s.io", "ingressclasses") => &networking::INGRESS_CLASS,
        ("networking.k8s.io", "ipaddresses") => &networking::IP_ADDRESS,
        ("networking.k8s.io", "servicecidrs") => &networking::SERVICE_CIDR,
        ("policy", "poddisruptionbudgets") => &policy::KIND,
        ("coordination.k8s.io", "leases") => &small::LEASE,
        ("node.k8s.io", "runtimeclasses") => &small::RUNTIME_CLASS,
        ("scheduling.k8s.io", "priorityclasses") => &small::PRIORITY_CLASS,
        ("discovery.k8s.io", "endpointslices") => &small::ENDPOINT_SLICE,
        ("rbac.authorization.k8s.io", "roles") => &rbac::ROLE,
        ("rbac.authorization.k8s.io", "clusterroles") => &rbac::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "rolebindings") => &rbac::BINDING,
        ("rbac.authorization.k8s.io", "clusterrolebindings") => &rbac::CLUSTER_BINDING,
        ("storage.k8s.io", "storageclasses") => &storage::CLASS,
        ("storage.k8s.io", "volumeattachments") => &storage::ATTACHMENT,
        ("storage.k8s.io", "volumeattributesclasses") => &storage::ATTRIBUTES,
        ("storage.k8s.io", "csistoragecapacities") => &storage::CAPACITY,
        ("storage.k8s.io", "csidrivers") => &storage::DRIVER,
        ("storage.k8s.io", "csinodes") => &storage::NODE,
        ("certificates.k8s.io", "certificatesigningrequests") => &certificates::KIND,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => &flowcontrol::SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => &flowcontrol::LEVEL,
        ("admissionregistration.k8s.io", name) => match name {
            "validatingadmissionpolicies" => &admission::VALIDATING,
            "mutatingadmissionpolicies" => &admission::MUTATING,
            "validatingadmissionpolicybindings" => &admission::BINDING,
            "mutatingadmissionpolicybindings" => &admission::MUTATING_BINDING,
            _ => &admission::WEBHOOKS,
        },
        ("resource.k8s.io", "resourceclaims") => &devices::CLAIM,
        ("resource.k8s.io", "resourceclaimtemplates") => &devices::TEMPLATE,
        ("resource.k8s.io", "deviceclasses") => &devices::CLASS,
        ("resource.k8s.io", "resourceslices") => &devices::SLICE,
        ("apiextensions.k8s.io", _) => &definition::KIND,
        ("apiregistration.k8s.io", _) => &api_service::KIND,
        _ => &UNRULED,
    }
}

/// Faults of a new object.
pub fn validate_create(row: &Resource, object: &Value) -> Vec<Cause> {
    let kind = of(row);
    let object = &*convert::checked(row, object);
    let row = row.current();
    let check = Check::of(row);
    let root = check.root(object, None);
    let strict = meta::has_strict_finalizers(row);
    meta::create(&root.get("metadata"), row.namespaced, strict, kind.name);
    (kind.create)(&root);
    check.into_causes()
}

/// Faults of a change, through the resource or through one of its subresources.
pub fn validate_update(row: &Resource, object: &Value, old: &Value) -> Vec<Cause> {
    let kind = of(row);
    let (object, old) = (&*convert::checked(row, object), &*convert::checked(row, old));
    let row = row.current();
    let check = Check::of(row);
    let root = check.root(object, Some(old));
    if kind.anew && row.subresource.is_empty() {
        let strict = meta::has_strict_finalizers(row);
        meta::create(&root.get("metadata"), row.namespaced, strict, kind.name);
        (kind.create)(&root);
    }
    meta::update(&root.get("metadata"), row);
    if kind.again && row.subresource != "status" {
        meta::again(&root.get("metadata"), row, kind.name);
    }
    match row.subresource {
        "status" => (kind.status)(&root),
        _ => (kind.update)(&root),
    }
    check.into_causes()
}
