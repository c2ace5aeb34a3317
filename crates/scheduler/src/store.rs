//! Objects that plugins read besides nodes and pods, as the informers last told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use client::Resource;
use devices::{Slice, Slices};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, ReplicationController, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
};

use tokio::sync::watch;

use crate::labels::{Labels, Selector, SelectorIndex};
use crate::ledger::Ledger;
use crate::resources::DEVICE_CLASS_PREFIX;

type Key = (String, String);

/// Objects of one kind, with what the scheduler assumes of them until the server tells.
#[derive(Debug)]
pub(crate) struct Store<K> {
    rows: RwLock<BTreeMap<Key, Row<K>>>,
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct Row<K> {
    told: Arc<K>,
    /// What it will be once a write of ours has happened.
    assumed: Option<Arc<K>>,
}

impl<K> Default for Store<K> {
    fn default() -> Store<K> {
        Store { rows: RwLock::default(), changes: watch::Sender::new(()) }
    }
}

impl<K: Resource> Store<K> {
    /// The object's latest state, assumed ones included.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let rows = self.read();
        let row = rows.get(&(namespace.to_owned(), name.to_owned()))?;
        Some(row.assumed.as_ref().unwrap_or(&row.told).clone())
    }

    /// The object as the server has it.
    pub(crate) fn told(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().get(&(namespace.to_owned(), name.to_owned())).map(|row| row.told.clone())
    }

    pub(crate) fn list(&self) -> Vec<Arc<K>> {
        self.read().values().map(|row| row.assumed.as_ref().unwrap_or(&row.told).clone()).collect()
    }

    /// The server has it so: an assumption ends.
    pub(crate) fn put(&self, object: Arc<K>) {
        let row = Row { told: object.clone(), assumed: None };
        self.write().insert(key(&*object), row);
        self.changes.send_replace(());
    }

    pub(crate) fn remove(&self, object: &K) {
        self.write().remove(&key(object));
        self.changes.send_replace(());
    }

    /// Tells of every change that the server told of.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Takes `object` for the state of an object that is there still in the version `object` was made from.
    pub(crate) fn assume(&self, object: Arc<K>) -> bool {
        let mut rows = self.write();
        let Some(row) = rows.get_mut(&key(&*object)) else { return false };
        if row.told.metadata().resource_version != object.metadata().resource_version {
            return false;
        }
        row.assumed = Some(object);
        true
    }

    pub(crate) fn forget_assumed(&self, object: &K) {
        if let Some(row) = self.write().get_mut(&key(object)) {
            row.assumed = None;
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Key, Row<K>>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Key, Row<K>>> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key<K: Resource>(object: &K) -> Key {
    let meta = object.metadata();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// Services by the selectors they have, because every pod is looked up in them.
#[derive(Debug, Default)]
pub(crate) struct Services {
    namespaces: RwLock<HashMap<String, NamespaceServices>>,
}

#[derive(Debug, Default)]
struct NamespaceServices {
    selectors: SelectorIndex,
    services: BTreeMap<u32, (String, Labels)>,
    next: u32,
}

impl Services {
    pub(crate) fn put(&self, service: &Service) {
        self.remove(service);
        let selector = service.spec.as_ref().and_then(|s| s.selector.clone());
        // A service without a selector selects nothing.
        let Some(labels) = selector else { return };
        let mut namespaces = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
        let space = namespaces.entry(namespace(service)).or_default();
        let id = space.next;
        space.next = space.next.wrapping_add(1);
        space.selectors.insert(&Selector::of_labels(&labels), id);
        let name = service.metadata.name.clone().unwrap_or_default();
        space.services.insert(id, (name, labels));
    }

    pub(crate) fn remove(&self, service: &Service) {
        let mut namespaces = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
        let Some(space) = namespaces.get_mut(&namespace(service)) else { return };
        let name = service.metadata.name.as_deref().unwrap_or("");
        let found = space.services.iter().find(|(_, (other, _))| other == name);
        if let Some((id, (_, labels))) = found.map(|(id, found)| (*id, found.clone())) {
            space.selectors.remove(&Selector::of_labels(&labels), id);
            space.services.remove(&id);
        }
        if space.services.is_empty() {
            namespaces.remove(&namespace(service));
        }
    }

    /// The labels that all services that select the pod ask for, together.
    pub(crate) fn selector_labels(&self, namespace: &str, labels: Option<&Labels>) -> Labels {
        let namespaces = self.namespaces.read().unwrap_or_else(PoisonError::into_inner);
        let mut merged = Labels::new();
        let Some(space) = namespaces.get(namespace) else { return merged };
        for id in space.selectors.candidates(labels) {
            let Some((_, wanted)) = space.services.get(&id) else { continue };
            if wanted.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v)) {
                merged.extend(wanted.clone());
            }
        }
        merged
    }
}

fn namespace(service: &Service) -> String {
    service.metadata.namespace.clone().unwrap_or_default()
}

/// ResourceSlices as the allocator reads them.
#[derive(Debug, Default)]
pub(crate) struct SliceStore {
    rows: RwLock<SliceRows>,
}

#[derive(Debug, Default)]
struct SliceRows {
    /// By name; the error is that of a slice that cannot be read.
    by_name: BTreeMap<String, Result<Arc<Slice>, String>>,
    /// All of them, until one changes.
    all: Option<Result<Arc<Slices>, String>>,
}

impl SliceStore {
    pub(crate) fn put(&self, slice: &ResourceSlice) {
        let read = Slice::new(slice).map(Arc::new);
        let name = slice.metadata.name.clone().unwrap_or_default();
        self.change(|by_name| drop(by_name.insert(name, read)));
    }

    pub(crate) fn remove(&self, slice: &ResourceSlice) {
        let name = slice.metadata.name.as_deref().unwrap_or("");
        self.change(|by_name| drop(by_name.remove(name)));
    }

    /// All slices; the error is that of one that cannot be read.
    pub(crate) fn all(&self) -> Result<Arc<Slices>, String> {
        let rows = &mut *self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let gather = || {
            let slices: Result<Vec<_>, String> = rows.by_name.values().cloned().collect();
            Ok(Arc::new(Slices::new(slices?)))
        };
        rows.all.get_or_insert_with(gather).clone()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Result<Arc<Slice>, String>>)) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut rows.by_name);
        rows.all = None;
    }
}

/// All stores.
#[derive(Debug, Default)]
pub(crate) struct Listers {
    pub(crate) services: Services,
    pub(crate) replication_controllers: Store<ReplicationController>,
    pub(crate) replica_sets: Store<ReplicaSet>,
    pub(crate) stateful_sets: Store<StatefulSet>,
    pub(crate) budgets: Store<PodDisruptionBudget>,
    pub(crate) volumes: Store<PersistentVolume>,
    pub(crate) claims: Store<PersistentVolumeClaim>,
    pub(crate) classes: Store<StorageClass>,
    pub(crate) csi_nodes: Store<CSINode>,
    pub(crate) csi_drivers: Store<CSIDriver>,
    pub(crate) capacities: Store<CSIStorageCapacity>,
    pub(crate) attachments: Store<VolumeAttachment>,
    pub(crate) resource_claims: Store<ResourceClaim>,
    pub(crate) device_classes: Store<DeviceClass>,
    pub(crate) slices: SliceStore,
    pub(crate) ledger: Ledger,
}

impl Listers {
    /// A claim as the informer tells it.
    pub(crate) fn put_resource_claim(&self, claim: &Arc<ResourceClaim>) {
        self.ledger.told(claim);
        self.resource_claims.put(claim.clone());
    }

    pub(crate) fn remove_resource_claim(&self, claim: &ResourceClaim) {
        self.ledger.gone(claim);
        self.resource_claims.remove(claim);
    }

    /// The class that backs the extended resource. Of several, the newest: that is how a resource moves from
    /// one class to another.
    pub(crate) fn class_of_resource(&self, resource: &str) -> Option<Arc<DeviceClass>> {
        if let Some(class) = resource.strip_prefix(DEVICE_CLASS_PREFIX) {
            return self.device_classes.get("", class);
        }
        let backs = |class: &Arc<DeviceClass>| {
            class.spec.extended_resource_name.as_deref() == Some(resource)
        };
        let classes = self.device_classes.list().into_iter().filter(backs);
        classes.min_by_key(|class| {
            let made = class.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (Reverse(made), class.metadata.name.clone())
        })
    }
}
