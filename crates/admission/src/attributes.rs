//! One request, as plugins see it.

use std::sync::Arc;

use api::registry::Resource;
use api::selector::LabelSelector;
use api::{Object, Status};
use auth::{Authorizer, RequestInfo, User};
use jiff::Timestamp;
use serde_json::Value;

use crate::reinvocation::Reinvocation;
pub use crate::versions::BoxFuture;
use crate::versions::Versions;

/// The operation on the object, as upstream names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// A connection to the object: exec, attach, port-forward, proxy.
    Connect,
}

impl Operation {
    /// As refusals and webhooks name it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// Group, version and plural of a built-in resource.
pub type Gvr = (&'static str, &'static str, &'static str);

/// The cluster, as plugins read and, for quotas, write it.
pub trait Cluster: Send + Sync {
    /// A stored object by its key: `namespace/name`, or the name alone for cluster-scoped ones.
    fn get(&self, resource: Gvr, key: &str) -> Option<Arc<Object>>;
    /// The stored objects whose keys start with `prefix`.
    fn list(&self, resource: Gvr, prefix: &str) -> Vec<Arc<Object>>;
    /// The resource whose objects are of this kind, built in or custom, if it is served.
    fn row_of_kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static Resource>;
    /// A stored object of any resource, in the version of the row.
    fn read<'a>(
        &'a self,
        row: &'static Resource,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Value>, Status>>;
    /// The stored objects of any resource whose keys start with `prefix` and whose labels match.
    fn read_all<'a>(
        &'a self,
        row: &'static Resource,
        prefix: &'a str,
        labels: &'a LabelSelector,
    ) -> BoxFuture<'a, Result<Vec<Value>, Status>>;
    /// Whether an object of any resource is stored.
    fn exists(&self, row: &Resource, key: &str) -> bool;
    /// Makes a namespace, unless it is there by now.
    fn create_namespace<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Status>>;
    /// Records an event about a configuration of webhooks: its kind and name, reason, message.
    fn report(&self, about: (&'static str, &str), reason: &'static str, message: &str);
    fn authorizer(&self) -> &Authorizer;
    /// Writes `tree` in place of `stored`; false when another write came between.
    fn replace<'a>(
        &'a self,
        resource: Gvr,
        stored: &'a Object,
        tree: Value,
    ) -> BoxFuture<'a, Result<bool, Status>>;
}

/// A request, apart from the object that it writes.
pub struct Attributes<'a> {
    pub operation: Operation,
    pub user: &'a User,
    pub info: &'a RequestInfo,
    /// The row of the path: a resource or a subresource.
    pub row: &'a Resource,
    /// The object's name; empty when the server generates it.
    pub name: &'a str,
    /// The state before; `None` in a creation and a connection.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    /// The request's options (`CreateOptions`, …), null for a connection. Built when asked for.
    pub options: &'a (dyn Fn() -> Value + Sync),
    pub now: Timestamp,
    /// When the client stops waiting, if it said so.
    pub deadline: Option<tokio::time::Instant>,
    pub cluster: &'a dyn Cluster,
    /// The object in other versions, and changed objects read again.
    pub versions: &'a dyn Versions,
    pub reinvocation: &'a Reinvocation,
    /// Tells the client something.
    pub warn: &'a (dyn Fn(String) + Sync),
    /// Adds an annotation to the request's audit event: key (`plugin/name`), value. The first value of a
    /// key stays.
    pub annotate: &'a (dyn Fn(&str, String) + Sync),
}

impl Attributes<'_> {
    /// Group, plural and subresource of the path as plugins know them: those of a version of the past by its
    /// successor.
    pub fn path(&self) -> (&str, &str, &str) {
        (self.row.current().group, self.row.name, self.row.subresource)
    }

    pub fn namespace(&self) -> &str {
        &self.info.namespace
    }

    /// A stored object's present state as a tree.
    pub fn read(&self, resource: Gvr, key: &str) -> Option<Value> {
        self.cluster.get(resource, key).map(|object| object.to_value())
    }

    /// Refuses the request (upstream's `NewForbidden`).
    pub fn forbid(&self, object: &Value, why: &str) -> Status {
        let meta = |key| api::tree::metadata_text(object, key);
        let names = [self.name, meta("name"), meta("generateName"), "Unknown"];
        let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or("");
        Status::forbidden(self.row.group, self.row.name, name, why)
    }
}
