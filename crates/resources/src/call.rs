//! One request about a resource: its context, the resource's strategy, and the transaction it runs in.

use std::sync::Arc;

use api::registry::Resource;
use api::{Object, Status};
use auth::RequestInfo;
use serde_json::Value;
use store::{Write, WriteError};

use crate::resources::Resources;
use strategy::context::RequestContext;
use strategy::transaction::Transaction;
use strategy::{ResourceStrategy, Step, Views};

pub struct Call<'a> {
    pub context: RequestContext<'a>,
    /// The row of the path: a resource or a subresource.
    pub row: &'static Resource,
    pub strategy: Arc<dyn ResourceStrategy>,
    pub transaction: Transaction<'a>,
    pub resources: &'a Resources,
    /// The object in other versions, as field management needs it.
    pub views: Views,
    /// A request that was admitted already, which this one is a part of.
    pub is_admitted: bool,
}

impl<'a> Call<'a> {
    pub fn new(
        resources: &'a Resources,
        context: RequestContext<'a>,
        (row, strategy): (&'static Resource, Arc<dyn ResourceStrategy>),
    ) -> Call<'a> {
        Call {
            context,
            row,
            strategy,
            transaction: Transaction::new(&resources.allocators),
            resources,
            views: Views::default(),
            is_admitted: false,
        }
    }

    /// This request, as hooks see it.
    pub fn step(&self) -> Step<'_> {
        Step { context: &self.context, row: self.row, transaction: &self.transaction }
    }

    /// A request about a built-in resource in the course of this one.
    pub fn about<'b>(
        &'b self,
        info: &'b RequestInfo,
        row: &'static Resource,
    ) -> Result<Call<'b>, Status> {
        let RequestContext { user, query, manager, .. } = &self.context;
        let context = RequestContext::new(user, (info, query), manager)?;
        let call = Call::new(self.resources, context, (row, self.resources.strategy(row)));
        Ok(Call { is_admitted: true, ..call })
    }

    pub fn pods_row(&self) -> &'static Resource {
        self.resources.registry.find("", "v1", "pods", "").expect("pods are built in")
    }

    /// The resource itself, when the path names a subresource.
    pub fn main_row(&self) -> &'static Resource {
        self.strategy.resource()
    }

    /// The stored object that the request is about.
    pub fn stored(&self) -> Option<Arc<Object>> {
        let row = self.main_row();
        if self.context.info.name.is_empty() || row.prefix.is_empty() {
            return None;
        }
        self.resources.collection(row).get(&self.key())
    }

    /// Stored objects in the form in which this path's selectors select them.
    pub async fn selectable(&self, objects: Vec<Arc<Object>>) -> Result<Vec<Arc<Object>>, Status> {
        match self.strategy.selects_in_version() {
            true => self.strategy.read_all(objects, Some(self.row.list_kind)).await,
            false => Ok(objects),
        }
    }

    /// Fetches the views that field management missed; false when it missed none.
    pub async fn fetch_views(&self) -> bool {
        self.strategy.fetch(&self.views).await
    }

    /// Key of the object that the path names.
    pub fn key(&self) -> String {
        self.row.key(&self.context.info.namespace, &self.context.info.name)
    }

    /// The group of the kind that refusals name: events are the core group's.
    pub fn group(&self) -> &'static str {
        if self.row.group == "events.k8s.io" { "" } else { self.row.group }
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(self.row.group, self.row.name, &self.context.info.name)
    }

    /// Refuses an object that is not valid in place of `old`; warns about one that is.
    pub fn validate(
        &self,
        (kind, name): (&str, &str),
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let causes = self.strategy.validate(self.row, object, old);
        if !causes.is_empty() {
            return Err(Status::invalid(self.group(), kind, name, causes));
        }
        let warnings = self.strategy.warnings(self.row, object, old);
        warnings.into_iter().for_each(|warning| self.context.warn(warning));
        Ok(())
    }

    /// Writes an object, with the allocations made for it in doubt meanwhile.
    pub async fn write(&self, row: &Resource, write: Write) -> Result<Arc<Object>, WriteError> {
        self.transaction.writing(self.resources.write(row, write)).await
    }

    /// The stored object's present state as a tree, of any built-in resource.
    pub fn read(&self, (group, version, resource): (&str, &str, &str), key: &str) -> Option<Value> {
        self.resources.collection_of(group, version, resource).get(key).map(|o| o.to_value())
    }
}
