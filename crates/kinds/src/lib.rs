//! What built-in kinds demand and show beyond their schema, as pure functions over an object: defaults
//! that depend on other fields, validation, printer columns. One file a kind or family.
//!
//! Everything that needs the request, other objects or time to act is a hook of the API server.

mod apps;
mod batch;
mod check;
mod core;
mod formats;
mod gojson;
mod golang;
mod meta;
mod rbac;
mod shared;
mod value;

pub mod table;

pub use check::{At, Check};
pub use core::qos::class as qos_class;
pub use value::{items, items_mut, set_default, text};

use api::registry::Resource;
use api::status::Cause;
use serde_json::Value;

/// One kind's rules. [`PLAIN`] has none beyond its metadata.
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
}

/// A kind with no rules of its own.
pub const PLAIN: Kind = Kind {
    name: api::names::dns_subdomain,
    default: |_| {},
    create: |_| {},
    update: |_| {},
    status: |_| {},
    again: false,
};

static UNRULED: Kind = PLAIN;
static SEGMENT_NAMED: Kind = Kind { name: api::names::path_segment, ..PLAIN };

/// The rules of a resource; its subresources share them.
pub fn of(row: &Resource) -> &'static Kind {
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
        ("rbac.authorization.k8s.io", _) => &rbac::KIND,
        ("apiregistration.k8s.io", _) => &SEGMENT_NAMED,
        _ => &UNRULED,
    }
}

/// Faults of a new object.
pub fn validate_create(row: &Resource, object: &Value) -> Vec<Cause> {
    let kind = of(row);
    let check = Check::of(row);
    let root = check.root(object, None);
    meta::create(&root.get("metadata"), row.namespaced, kind.name);
    (kind.create)(&root);
    check.into_causes()
}

/// Faults of a change, through the resource or through one of its subresources.
pub fn validate_update(row: &Resource, object: &Value, old: &Value) -> Vec<Cause> {
    let kind = of(row);
    let check = Check::of(row);
    let root = check.root(object, Some(old));
    meta::update(&root.get("metadata"));
    if kind.again && row.subresource != "status" {
        meta::again(&root.get("metadata"), kind.name);
    }
    match row.subresource {
        "status" => (kind.status)(&root),
        _ => (kind.update)(&root),
    }
    check.into_causes()
}
