//! The versions of a request's object: rules name resources in versions that the request may not have used.

use std::pin::Pin;

use api::Status;
use api::registry::Resource;
use serde_json::Value;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The versions in which the resource of a request is served, and its objects in them.
pub trait Versions: Send + Sync {
    /// The rows of the same stored resource, and of the same subresource, in other groups and versions
    /// (upstream's `EquivalentResourceMapper`).
    fn equivalents(&self) -> Vec<&'static Resource>;

    /// An object of one of these rows as one of another. Null stays null.
    fn convert<'a>(
        &'a self,
        object: Value,
        from: &'a Resource,
        to: &'a Resource,
    ) -> BoxFuture<'a, Result<Value, Status>>;

    /// A tree that a patch made of an object of the row, decoded and with defaults. Fields that a custom
    /// resource's schema does not know are still there; those that a built-in type does not know are refused
    /// if `strict`, and left out otherwise.
    fn patched(&self, row: &Resource, tree: Value, strict: bool) -> Result<Value, Status>;

    /// A partial object laid over an object of the row by the rules of server-side apply. It must not have
    /// lists, maps or structs that can be replaced only as one.
    fn merge(&self, row: &Resource, live: &Value, partial: &Value) -> Result<Value, String>;

    /// An object of the request's own row after its patches, without the fields that its schema does not know.
    fn pruned(&self, object: Value) -> Result<Value, Status>;
}

/// A resource with one version, for the tests of this crate.
#[cfg(test)]
pub(crate) struct Single;

#[cfg(test)]
impl Versions for Single {
    fn equivalents(&self) -> Vec<&'static Resource> {
        Vec::new()
    }

    fn convert<'a>(
        &'a self,
        object: Value,
        _: &'a Resource,
        _: &'a Resource,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(std::future::ready(Ok(object)))
    }

    fn patched(&self, _: &Resource, tree: Value, _: bool) -> Result<Value, Status> {
        Ok(tree)
    }

    fn merge(&self, _: &Resource, live: &Value, partial: &Value) -> Result<Value, String> {
        let mut merged = live.clone();
        api::patch::apply_merge_patch(&mut merged, partial);
        Ok(merged)
    }

    fn pruned(&self, object: Value) -> Result<Value, Status> {
        Ok(object)
    }
}
