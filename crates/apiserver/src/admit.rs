//! The way of requests through the admission chain.

use std::sync::Arc;

use admission::{Attributes, BoxFuture, Chain, Cluster, Gvr, Operation};
use api::registry::{Registry, Resource};
use api::{Draft, Object, Status};
use auth::Authorizer;
use serde_json::Value;
use store::{Expect, Store, Write, WriteError};

use crate::call::Call;
use crate::verbs::write_failure;

/// The chain of a server, and the cluster that its plugins see.
pub(crate) struct Admission {
    chain: Chain,
    cluster: StoredCluster,
}

impl Admission {
    pub(crate) fn new(store: Store, authorizer: Arc<Authorizer>) -> Admission {
        let cluster = StoredCluster { store, registry: Registry::built_in(), authorizer };
        Admission { chain: Chain::default(), cluster }
    }
}

/// An object on its way through the chain.
pub(crate) struct Admitted<'a> {
    pub(crate) operation: Operation,
    /// Empty when the server generates it.
    pub(crate) name: &'a str,
    pub(crate) old: Option<&'a Value>,
}

impl<'a> Admitted<'a> {
    pub(crate) fn created(name: &'a str) -> Admitted<'a> {
        Admitted { operation: Operation::Create, name, old: None }
    }

    pub(crate) fn updated(name: &'a str, old: &'a Value) -> Admitted<'a> {
        Admitted { operation: Operation::Update, name, old: Some(old) }
    }

    pub(crate) fn deleted(name: &'a str, old: &'a Value) -> Admitted<'a> {
        Admitted { operation: Operation::Delete, name, old: Some(old) }
    }

    pub(crate) fn connected(name: &'a str) -> Admitted<'a> {
        Admitted { operation: Operation::Connect, name, old: None }
    }

    /// The phase in which plugins change the object.
    pub(crate) async fn mutate(&self, call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
        if call.is_admitted {
            return Ok(());
        }
        let warn = |text: String| call.context.warn(text);
        let admission = &call.resources.admission;
        admission.chain.mutate(&self.attributes(call, &warn), object).await
    }

    /// The phase in which plugins refuse a complete and valid object.
    pub(crate) async fn validate(&self, call: &Call<'_>, object: &Value) -> Result<(), Status> {
        if call.is_admitted {
            return Ok(());
        }
        let warn = |text: String| call.context.warn(text);
        let admission = &call.resources.admission;
        admission.chain.validate(&self.attributes(call, &warn), object).await
    }

    /// Both phases, for what is answered rather than stored.
    pub(crate) async fn admit(&self, call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
        self.mutate(call, object).await?;
        self.validate(call, object).await
    }

    fn attributes<'b>(
        &'b self,
        call: &'b Call<'_>,
        warn: &'b (dyn Fn(String) + Sync),
    ) -> Attributes<'b> {
        let context = &call.context;
        Attributes {
            operation: self.operation,
            user: context.user,
            info: context.info,
            row: call.row,
            name: self.name,
            old: self.old,
            dry_run: context.dry_run,
            now: context.now,
            cluster: &call.resources.admission.cluster,
            warn,
        }
    }
}

/// The store as plugins see it.
struct StoredCluster {
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
