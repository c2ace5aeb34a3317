//! The port through which authentication and authorization read stored objects.

use std::sync::Arc;

use api::Object;

/// The stored objects of one resource.
pub trait Collection: Send + Sync {
    /// The object with this key: `namespace/name`, or the name alone for cluster-scoped ones.
    fn get(&self, key: &str) -> Option<Arc<Object>>;

    /// The objects whose keys start with `prefix` and that `keep` accepts.
    fn list(&self, prefix: &str, keep: &dyn Fn(&Object) -> bool) -> Vec<Arc<Object>>;

    /// As [`Collection::list`], of those whose selectable `field` has this value.
    fn list_by(&self, field: (&str, &str), prefix: &str) -> Vec<Arc<Object>>;

    /// Revision of the last change to any of them.
    fn last_change(&self) -> u64;
}

/// All stored objects.
pub trait Objects: Send + Sync {
    /// The objects of a built-in resource, by group and plural name.
    fn of(&self, group: &str, resource: &str) -> Option<Arc<dyn Collection>>;
}
