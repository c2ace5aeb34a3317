//! Strategies: everything about a resource that the pipeline does not know. Built-in kinds ([`BuiltIn`])
//! and custom resources (`custom::Served`) are two implementations; no verb tells them apart.

pub mod allocate;
mod built_in;
pub mod columns;
pub mod conditions;
pub mod context;
pub mod decode;
mod hooks;
mod kinds;
pub mod meta;
pub mod offload;
pub mod query;
mod reset_fields;
pub mod transaction;
pub mod type_names;
mod views;
pub mod write_failure;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use api::apply::{Filter, Versions};
use api::registry::Resource;
use api::schema::{Schema, Shape};
use api::status::Cause;
use api::{Draft, Object, Status};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub use self::built_in::BuiltIns;
pub use self::hooks::{Booking, Check, DEFAULT, Hooks};
pub use self::reset_fields::plain as plain_reset_fields;
pub use self::views::Views;
use crate::context::RequestContext;
use crate::decode::{Found, Input};
use crate::transaction::Transaction;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a resource keeps what its `/scale` shows, as dotted paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// The selector as text; `None` where `spec.selector` is a selector object.
    pub selector: Option<String>,
}

impl ScalePaths {
    /// Sets the wanted number of replicas, making the maps on its way.
    pub fn set_replicas(&self, object: &mut Value, number: i64) {
        let mut place = object;
        for key in self.spec_replicas.split('.') {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[key];
        }
        *place = number.into();
    }
}

/// The types of a resource's objects, and their shape in them.
pub enum Types {
    BuiltIn(&'static Schema, Shape),
    Compiled(Arc<custom::Compiled>),
}

impl Types {
    pub fn schema(&self) -> &Schema {
        match self {
            Types::BuiltIn(schema, _) => schema,
            Types::Compiled(compiled) => &compiled.schema,
        }
    }

    pub fn shape(&self) -> &Shape {
        match self {
            Types::BuiltIn(_, shape) => shape,
            Types::Compiled(compiled) => &compiled.root,
        }
    }
}

/// One request, as far as hooks see it.
pub struct Step<'a> {
    pub context: &'a RequestContext<'a>,
    /// The row of the path: a resource or a subresource.
    pub row: &'static Resource,
    pub transaction: &'a Transaction<'a>,
}

/// One resource's types, rules and stored form. Subresources share the strategy of their resource; methods
/// that differ by subresource take the row of the path.
pub trait ResourceStrategy: Debug + Send + Sync {
    /// The row of the resource itself.
    fn resource(&self) -> &'static Resource;
    /// The types of its objects.
    fn types(&self) -> Types;
    /// Rules that act in the course of a request.
    fn hooks(&self) -> &Hooks;

    /// Fails when objects cannot be served at present.
    fn check_served(&self) -> Result<(), Status> {
        Ok(())
    }
    /// The warning that every request for this version gets.
    fn deprecation(&self, row: &Resource) -> Option<String>;
    /// Cancelled when the resource is no longer served as it is now.
    fn retired(&self) -> CancellationToken {
        CancellationToken::new()
    }

    /// Makes an object of a request's body, or of a tree that was put together from parts.
    fn decode(&self, row: &'static Resource, input: Input<'_>) -> Result<Found, Status>;
    /// Media types of patches, as the refusal of others lists them.
    fn patch_types(&self) -> &'static str;
    fn takes_strategic_merge(&self) -> bool;
    /// Fills in defaults: those of the schema, then those that depend on other fields. Refuses an object
    /// to which defaults would add more than a body may have.
    fn default(&self, row: &Resource, object: &mut Value) -> Result<(), Status>;
    /// Removes fields of features that are off, unless the former object has them.
    fn drop_disabled(&self, _row: &Resource, _object: &mut Value, _old: Option<&Value>) {}
    /// Brings an object into the one form that is stored (upstream's `Canonicalize`).
    fn canonicalize(&self, object: &mut Value);
    /// Whether the status is written through a path of its own.
    fn has_status(&self) -> bool;
    /// Whether a change of the status alone is no new generation.
    fn skips_status(&self) -> bool {
        true
    }
    /// The fields that a write to this path may own (upstream's `GetResetFields`).
    fn reset_fields(&self, row: &Resource) -> Filter;
    /// Faults of an object that is about to be stored in place of `old`.
    fn validate(&self, row: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause>;
    /// Warnings about a valid object.
    fn warnings(&self, row: &Resource, object: &Value, old: Option<&Value>) -> Vec<String>;
    fn scale_paths(&self) -> ScalePaths;

    /// Whether trees of objects that are on their way to the store may be folded (`api::apply::folded`): all that
    /// reads them either knows of it or looks at other fields.
    fn folds_managers(&self) -> bool {
        false
    }

    /// Whether objects' managers may have entries in this version.
    fn serves(&self, api_version: &str) -> bool;
    /// Objects in other versions, where versions name fields differently.
    fn versions<'v>(&'v self, _views: &'v Views) -> Option<Box<dyn Versions + 'v>> {
        None
    }
    /// Fetches the views that a computation missed; false when it missed none.
    fn fetch<'v>(&'v self, _views: &'v Views) -> BoxFuture<'v, bool> {
        Box::pin(std::future::ready(false))
    }

    /// A stored object in this version.
    fn read<'s>(&'s self, object: &'s Object) -> BoxFuture<'s, Result<Value, Status>>;
    /// The same, folded where the strategy folds managers: for changes.
    fn read_folded<'s>(&'s self, object: &'s Object) -> BoxFuture<'s, Result<Value, Status>> {
        self.read(object)
    }
    /// An object of this version in its stored form.
    fn draft<'s>(&'s self, object: &'s Value) -> BoxFuture<'s, Result<Draft, Status>>;
    /// Whether objects are selected, and indexed, in the form of this version rather than as stored.
    fn selects_in_version(&self) -> bool {
        false
    }
    /// Stored objects in the form of this version, for a list of this kind; asked for when
    /// [`ResourceStrategy::selects_in_version`].
    fn read_all<'s>(
        &'s self,
        objects: Vec<Arc<Object>>,
        _list_kind: Option<&'s str>,
    ) -> BoxFuture<'s, Result<Vec<Arc<Object>>, Status>> {
        Box::pin(std::future::ready(Ok(objects)))
    }
    /// The same for watchers, of which many want the same objects.
    fn read_watched<'s>(
        &'s self,
        objects: Vec<Arc<Object>>,
    ) -> BoxFuture<'s, Result<Vec<Arc<Object>>, Status>> {
        self.read_all(objects, None)
    }

    /// Whether responses show something else than what is stored, other than by type.
    fn is_converted(&self) -> bool;
    /// A stored object's JSON in this version, where that needs no webhook.
    fn json(&self, object: &Object) -> Bytes;
    /// The same of a tree.
    fn show(&self, object: &mut Value);
    /// Whether items of lists carry their type, and lists always a `continue`.
    fn has_typed_items(&self) -> bool;
    /// Refuses a field that selectors cannot name.
    fn unknown_field(&self, field: &str) -> Status;
    /// `columnDefinitions` of tables.
    fn columns(&self, row: &Resource) -> Vec<Value>;
    /// An object's cells and, where there are some, the conditions of its row.
    fn cells(&self, row: &Resource, object: &Value) -> (Vec<Value>, Option<Value>);
}
