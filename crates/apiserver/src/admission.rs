//! The admission chain of a server, over the cluster that its plugins see.

use std::sync::Arc;

use ::admission::{BoxFuture, Chain, Cluster, Gvr};
use api::registry::{Registry, Resource};
use api::{Draft, Object, Status};
use auth::Authorizer;
use serde_json::Value;
use store::{Expect, Store, Write, WriteError};

use crate::write_failure::write_failure;

/// The chain of a server, and the cluster that its plugins see.
pub(crate) struct Admission {
    pub(crate) chain: Chain,
    pub(crate) cluster: StoredCluster,
}

impl Admission {
    pub(crate) fn new(store: Store, authorizer: Arc<Authorizer>) -> Admission {
        let cluster = StoredCluster { store, registry: Registry::built_in(), authorizer };
        Admission { chain: Chain::default(), cluster }
    }
}

/// The store as plugins see it.
pub(crate) struct StoredCluster {
    store: Store,
    registry: &'static Registry,
    authorizer: Arc<Authorizer>,
}

impl StoredCluster {
    fn row(&self, (group, version, name): Gvr) -> &'static Resource {
        self.registry.find(group, version, name, "").expect("plugins read built-in resources")
    }

    async fn write(&self, resource: Gvr, stored: &Object, tree: Value) -> Result<bool, Status> {
        let row = self.row(resource);
        let Some(collection) = self.store.collection(&row.prefix) else { return Ok(false) };
        let meta = stored.meta();
        let write = Write {
            collection,
            key: row.key(&meta.namespace, &meta.name),
            expect: Expect::Revision(stored.revision()),
            draft: Some(Draft::new(&tree, row.selectable)),
        };
        match self.store.write(write).await {
            Ok(_) => Ok(true),
            Err(WriteError::Conflict(_)) => Ok(false),
            Err(other) => Err(write_failure(other, row, &meta.name)),
        }
    }
}

impl Cluster for StoredCluster {
    fn get(&self, resource: Gvr, key: &str) -> Option<Arc<Object>> {
        self.store.collection(&self.row(resource).prefix)?.get(key)
    }

    fn list(&self, resource: Gvr, prefix: &str) -> Vec<Arc<Object>> {
        let collection = self.store.collection(&self.row(resource).prefix);
        // The present state never expires.
        let page = collection.and_then(|all| all.list(prefix, None, 0, usize::MAX, &|_| true).ok());
        page.map(|page| page.objects).unwrap_or_default()
    }

    fn exists(&self, row: &Resource, key: &str) -> bool {
        self.store.collection(&row.prefix).is_some_and(|all| all.get(key).is_some())
    }

    fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    fn replace<'a>(
        &'a self,
        resource: Gvr,
        stored: &'a Object,
        tree: Value,
    ) -> BoxFuture<'a, Result<bool, Status>> {
        Box::pin(self.write(resource, stored, tree))
    }
}
