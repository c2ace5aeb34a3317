//! Config maps and secrets that pods refer to: each is followed by itself, once for all pods, for as
//! long as a pod uses it. The node authoriser allows no more, and nothing is polled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use client::{Client, Follow, Informer, Resource, Tasks};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::pod::{Event, Handle};

/// A follow that has not given its state by then is reported as a fault of the object.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// The object's state is not known.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to sync {kind} cache: timed out waiting for {namespace}/{name}")]
pub(crate) struct NotSynced {
    kind: &'static str,
    namespace: String,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: &'static str,
    namespace: String,
    name: String,
}

/// Who asks: woken when the object changes.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) uid: String,
    pub(crate) handle: Handle,
}

enum View {
    ConfigMap(Informer<ConfigMap>),
    Secret(Informer<Secret>),
}

struct Entry {
    view: View,
    users: Mutex<HashMap<String, Handle>>,
    /// Set once the first state is in: only changes after it wake anybody.
    armed: AtomicBool,
    tasks: Tasks,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// All followed objects of the node.
pub(crate) struct Objects {
    client: Client,
    tasks: Tasks,
    entries: Mutex<HashMap<Key, Arc<Entry>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Objects {
    pub(crate) fn new(client: Client, tasks: Tasks) -> Objects {
        Objects { client, tasks, entries: Mutex::default() }
    }

    pub(crate) async fn config_map(
        &self,
        user: &User,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ConfigMap>>, NotSynced> {
        let key = Key { kind: "configmap", namespace: namespace.into(), name: name.into() };
        let entry = self.entry(&key, user, |c, t, f| View::ConfigMap(Informer::selected(c, t, f)));
        let View::ConfigMap(view) = &entry.view else { return Ok(None) };
        synced(view, &entry, &key).await?;
        Ok(view.get(namespace, name))
    }

    pub(crate) async fn secret(
        &self,
        user: &User,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Secret>>, NotSynced> {
        let key = Key { kind: "secret", namespace: namespace.into(), name: name.into() };
        let entry = self.entry(&key, user, |c, t, f| View::Secret(Informer::selected(c, t, f)));
        let View::Secret(view) = &entry.view else { return Ok(None) };
        synced(view, &entry, &key).await?;
        Ok(view.get(namespace, name))
    }

    /// The pod needs nothing any more.
    pub(crate) fn release(&self, uid: &str) {
        lock(&self.entries).retain(|_, entry| {
            let mut users = lock(&entry.users);
            users.remove(uid);
            !users.is_empty()
        });
    }

    fn entry(
        &self,
        key: &Key,
        user: &User,
        follow: impl FnOnce(&Client, &Tasks, Follow) -> View,
    ) -> Arc<Entry> {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(key.clone()).or_insert_with(|| {
            let tasks = self.tasks.child();
            let part = Follow {
                namespace: key.namespace.clone(),
                field_selector: format!("metadata.name={}", key.name),
                ..Follow::default()
            };
            let view = follow(&self.client, &tasks, part);
            let users = Mutex::default();
            let entry = Arc::new(Entry { view, users, armed: AtomicBool::new(false), tasks });
            let weak = Arc::downgrade(&entry);
            match &entry.view {
                View::ConfigMap(v) => v.on_change(move |_| wake(&weak)),
                View::Secret(v) => v.on_change(move |_| wake(&weak)),
            }
            entry
        });
        lock(&entry.users).insert(user.uid.clone(), user.handle.clone());
        entry.clone()
    }
}

fn wake(entry: &Weak<Entry>) {
    let Some(entry) = entry.upgrade().filter(|e| e.armed.load(Ordering::Acquire)) else { return };
    for handle in lock(&entry.users).values() {
        handle.send(Event::Reference);
    }
}

async fn synced<K: Resource>(
    view: &Informer<K>,
    entry: &Entry,
    key: &Key,
) -> Result<(), NotSynced> {
    if !view.is_synced() && tokio::time::timeout(SYNC_TIMEOUT, view.synced()).await.is_err() {
        let (namespace, name) = (key.namespace.clone(), key.name.clone());
        return Err(NotSynced { kind: key.kind, namespace, name });
    }
    entry.armed.store(true, Ordering::Release);
    Ok(())
}
