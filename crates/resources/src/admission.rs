//! The admission chain of a server, over the cluster that its plugins see.

use std::sync::{Arc, OnceLock};

use ::admission::policies::{self, Policies};
use ::admission::{BoxFuture, Chain, Cluster, Gvr, Setup};
use api::registry::{Registry, Resource};
use api::selector::LabelSelector;
use api::{Draft, Object, Status};
use auth::Authorizer;
use client::{EventType, Recorder};
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::Value;
use store::{Expect, Store, Write, WriteError};

use crate::admission_options::{self, AdmissionOptions};
use extensions::Customs;
use strategy::write_failure::write_failure;
use strategy::{BuiltIns, Check, ResourceStrategy};

/// The group of admission's configurations.
const GROUP: &str = "admissionregistration.k8s.io";
/// Expressions of admission's configurations must compile.
pub(crate) const CHECKS: [Check; 4] = [
    (GROUP, "validatingadmissionpolicies", policies::check_validating),
    (GROUP, "mutatingadmissionpolicies", policies::check_mutating),
    (GROUP, "validatingwebhookconfigurations", policies::check_webhooks),
    (GROUP, "mutatingwebhookconfigurations", policies::check_webhooks),
];

/// The chain of a server, and the cluster that its plugins see.
pub struct Admission {
    pub chain: Chain,
    pub cluster: StoredCluster,
}

impl Admission {
    /// The error says what of the options cannot be used.
    pub fn new(
        store: Store,
        (authorizer, objects): (Arc<Authorizer>, &dyn auth::Objects),
        customs: Arc<Customs>,
        (options, services): (&AdmissionOptions, &Arc<dyn webhook::Services>),
    ) -> Result<Admission, String> {
        let registry = Registry::built_in();
        let built_ins = BuiltIns::of(registry, &CHECKS);
        let cluster = StoredCluster {
            store,
            registry,
            authorizer,
            customs,
            built_ins,
            recorder: OnceLock::new(),
        };
        let setup = Setup {
            selection: &options.selection,
            configuration: &options.configuration,
            policies: Some(Arc::new(Policies::new(objects))),
            webhooks: Some(Arc::new(options.webhooks(objects, services)?)),
            reach: &|path| admission_options::reach(path, services),
        };
        Ok(Admission { chain: Chain::new(&setup)?, cluster })
    }
}

/// The store as plugins see it.
pub struct StoredCluster {
    store: Store,
    registry: &'static Registry,
    authorizer: Arc<Authorizer>,
    customs: Arc<Customs>,
    built_ins: BuiltIns,
    /// Records events, once the server can write them.
    recorder: OnceLock<Recorder>,
}

impl StoredCluster {
    /// From now on events are recorded.
    pub fn record_by(&self, recorder: Recorder) {
        // A second start of the same server records by the first one's.
        drop(self.recorder.set(recorder));
    }

    fn strategy(&self, row: &'static Resource) -> Option<Arc<dyn ResourceStrategy>> {
        let path = (row.group, row.version, row.name);
        match self.registry.find(row.group, row.version, row.name, "") {
            Some(_) => Some(self.built_ins.of_row(row)),
            None => Some(self.customs.find(path, "")?.1),
        }
    }

    /// An object as its version shows it.
    async fn shown(&self, row: &'static Resource, object: &Object) -> Result<Value, Status> {
        let strategy = self.strategy(row).ok_or_else(Status::no_such_path)?;
        let mut tree = strategy.read(object).await?;
        tree["apiVersion"] = row.api_version().into();
        tree["kind"] = row.kind.into();
        Ok(tree)
    }

    async fn read_one(&self, row: &'static Resource, key: &str) -> Result<Option<Value>, Status> {
        let found = self.store.collection(&row.prefix).and_then(|all| all.get(key));
        match found {
            Some(object) => self.shown(row, &object).await.map(Some),
            None => Ok(None),
        }
    }

    async fn read_selected(
        &self,
        row: &'static Resource,
        prefix: &str,
        labels: &LabelSelector,
    ) -> Result<Vec<Value>, Status> {
        let collection = self.store.collection(&row.prefix);
        let selected = |object: &Object| labels.matches(object.meta());
        let page = collection.and_then(|all| all.list(prefix, None, 0, usize::MAX, &selected).ok());
        let mut all = Vec::new();
        for object in page.map(|page| page.objects).unwrap_or_default() {
            all.push(self.shown(row, &object).await?);
        }
        Ok(all)
    }

    fn row(&self, (group, version, name): Gvr) -> &'static Resource {
        self.registry.find(group, version, name, "").expect("plugins read built-in resources")
    }

    async fn make_namespace(&self, name: &str) -> Result<(), Status> {
        let row = self.row(("", "v1", "namespaces"));
        let Some(collection) = self.store.collection(&row.prefix) else { return Ok(()) };
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let tree = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": now, "labels": {"kubernetes.io/metadata.name": name}},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        });
        let draft = Some(Draft::new(&tree, row.selectable));
        let write = Write { collection, key: name.to_owned(), expect: Expect::Absent, draft };
        match self.store.write(write).await {
            Ok(_) | Err(WriteError::Conflict(_)) => Ok(()),
            Err(other) => Err(write_failure(other, row, name)),
        }
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

    fn row_of_kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
        if let Some(row) = self.registry.by_kind(group, version, kind) {
            return Some(row).filter(|row| !row.prefix.is_empty());
        }
        let installed = self.customs.installed();
        let rows = installed.all().iter().map(|served| served.row);
        rows.into_iter().find(|row| (row.group, row.version, row.kind) == (group, version, kind))
    }

    fn read<'a>(
        &'a self,
        row: &'static Resource,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Value>, Status>> {
        Box::pin(self.read_one(row, key))
    }

    fn read_all<'a>(
        &'a self,
        row: &'static Resource,
        prefix: &'a str,
        labels: &'a LabelSelector,
    ) -> BoxFuture<'a, Result<Vec<Value>, Status>> {
        Box::pin(self.read_selected(row, prefix, labels))
    }

    fn exists(&self, row: &Resource, key: &str) -> bool {
        self.store.collection(&row.prefix).is_some_and(|all| all.get(key).is_some())
    }

    fn create_namespace<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.make_namespace(name))
    }

    fn report(&self, (kind, name): (&'static str, &str), reason: &'static str, message: &str) {
        let Some(recorder) = self.recorder.get() else { return };
        let (group, version) = ("admissionregistration.k8s.io", "v1");
        let row = self.registry.by_kind(group, version, kind);
        let stored = row.and_then(|row| self.store.collection(&row.prefix)?.get(name));
        let about = ObjectReference {
            api_version: Some(format!("{group}/{version}")),
            kind: Some(kind.to_owned()),
            name: Some(name.to_owned()),
            uid: stored.map(|object| object.meta().uid.to_string()),
            ..ObjectReference::default()
        };
        recorder.event(&about, EventType::Warning, reason, message);
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
