//! What the resource pipeline works with: the store, the tables of resources, and what allocates.

use std::sync::Arc;
use std::time::Duration;

use api::Object;
use api::registry::{Registry, Resource};
use api::schema::Schema;
use store::{Collection, Store, Write, WriteError};

use crate::admission::{Admission, CHECKS};
use extensions::Customs;
use strategy::allocate::Allocators;
use strategy::{BuiltIns, ResourceStrategy};

/// Settings of the pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long events are kept after their last write (`--event-ttl`).
    pub event_ttl: Duration,
    /// Shortest life of a watch whose client names none (`--min-request-timeout`).
    pub watch_min: Duration,
    /// Whether the versions of the past are served.
    pub legacy: bool,
}

/// The resources of one server, built in and custom.
pub struct Resources {
    pub store: Store,
    pub registry: &'static Registry,
    pub schema: &'static Schema,
    pub customs: Arc<Customs>,
    pub allocators: Arc<Allocators>,
    pub admission: Admission,
    pub settings: Settings,
    built_ins: BuiltIns,
}

impl Resources {
    pub fn new(
        store: Store,
        allocators: Allocators,
        (admission, customs): (Admission, Arc<Customs>),
        settings: Settings,
    ) -> Resources {
        let registry = Registry::built_in();
        Resources {
            store,
            registry,
            schema: Schema::built_in(),
            customs,
            allocators: Arc::new(allocators),
            admission,
            settings,
            built_ins: BuiltIns::of(registry, &CHECKS),
        }
    }

    /// The row that a path names and the strategy of its resource.
    pub fn find(
        &self,
        (group, version, name): (&str, &str, &str),
        subresource: &str,
    ) -> Option<(&'static Resource, Arc<dyn ResourceStrategy>)> {
        let built_in = self.registry.find(group, version, name, subresource);
        if let Some(row) = built_in.filter(|row| row.legacy.is_none() || self.settings.legacy) {
            return Some((row, self.strategy(row)));
        }
        let (row, served) = self.customs.find((group, version, name), subresource)?;
        Some((row, served))
    }

    /// The strategy of a built-in row.
    pub fn strategy(&self, row: &'static Resource) -> Arc<dyn ResourceStrategy> {
        self.built_ins.of_row(row)
    }

    /// Every row that is served right now.
    pub fn rows(&self) -> Vec<&'static Resource> {
        let installed = self.customs.installed();
        let custom = installed.all().iter().flat_map(|served| served.rows());
        let legacy = self.registry.legacy().iter().filter(|_| self.settings.legacy);
        self.registry.rows().iter().chain(custom).chain(legacy).collect()
    }

    /// The collection of a resource that is stored.
    pub fn collection(&self, row: &Resource) -> Arc<Collection> {
        self.store.collection(&row.prefix).expect("every stored resource was registered at start")
    }

    /// The collection of a built-in resource.
    pub fn collection_of(&self, group: &str, version: &str, resource: &str) -> Arc<Collection> {
        let row = self.registry.find(group, version, resource, "").expect("a built-in resource");
        self.collection(row)
    }

    /// Writes an object of a resource; events expire by themselves where the store sees to that.
    pub async fn write(&self, row: &Resource, write: Write) -> Result<Arc<Object>, WriteError> {
        let is_event = row.name == "events" && ["", "events.k8s.io"].contains(&row.group);
        match is_event && self.store.is_shared() {
            true => self.store.write_for(write, self.settings.event_ttl).await,
            false => self.store.write(write).await,
        }
    }
}
