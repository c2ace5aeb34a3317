//! Informers: one live, indexed, typed view of a collection, shared by all who ask for it.

use std::any::{Any, TypeId};
use std::collections::{BTreeSet, HashMap};
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use api::Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::watch;

use tasks::Tasks;

use crate::client::{Client, Resource};
use crate::follow::{Follow, FollowEvent};
use crate::mirror::{Key, Mirror};

/// One change of a followed collection.
#[derive(Debug, Clone)]
pub enum Change<K> {
    Added(Arc<K>),
    Updated { old: Arc<K>, new: Arc<K> },
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The object as it is now, or as it last was.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Change::Added(o) | Change::Deleted(o) | Change::Updated { new: o, .. } => o,
        }
    }

    /// The object as it was before, if it existed.
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Change::Added(_) => None,
            Change::Deleted(o) | Change::Updated { old: o, .. } => Some(o),
        }
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

struct Shared<K> {
    mirror: RwLock<Mirror<K>>,
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
    /// All changes up to this revision are in the mirror.
    revision: AtomicU64,
}

/// A live view. Clones are the same view. `metadata.managedFields` is dropped from what it holds:
/// nobody inside reads it, and it is a third of an average object.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> std::fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<Self>())
    }
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Informer<K> {
        Informer { shared: self.shared.clone() }
    }
}

/// A view of an [`Informer`] that does not keep it alive.
pub struct Listing<K>(Weak<Shared<K>>);

impl<K> std::fmt::Debug for Listing<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<Self>())
    }
}

impl<K> Clone for Listing<K> {
    fn clone(&self) -> Listing<K> {
        Listing(self.0.clone())
    }
}

impl<K: Resource> Listing<K> {
    /// All objects; none when the informer is gone.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.0.upgrade().map(|shared| Informer { shared }.list()).unwrap_or_default()
    }
}

/// What an index of `K` is keyed by. The type is the index's name.
pub trait IndexKey<K>: 'static {
    /// The values under which the object is found.
    fn values(object: &K) -> Vec<String>;
}

/// Finds objects by the values that `I` gives them.
pub struct Index<K, I> {
    informer: Informer<K>,
    key: PhantomData<fn() -> I>,
}

impl<K, I> std::fmt::Debug for Index<K, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<Self>())
    }
}

impl<K, I> Clone for Index<K, I> {
    fn clone(&self) -> Index<K, I> {
        Index { informer: self.informer.clone(), key: PhantomData }
    }
}

impl<K: Resource, I: IndexKey<K>> Index<K, I> {
    pub fn get(&self, value: &str) -> Vec<Arc<K>> {
        self.informer.read().by_index(TypeId::of::<I>(), value)
    }
}

impl<K: Resource> Informer<K> {
    /// Follows all objects of the kind.
    pub fn new(client: &Client, tasks: &Tasks) -> Informer<K> {
        Informer::selected(client, tasks, Follow::default())
    }

    /// Follows a part of the kind: `part`'s namespace and selectors are used, the rest is filled in.
    pub fn selected(client: &Client, tasks: &Tasks, part: Follow) -> Informer<K> {
        let id = K::id();
        let follow = Follow {
            group: id.group.into(),
            version: id.version.into(),
            resource: id.resource.into(),
            ..part
        };
        let shared = Arc::new(Shared {
            mirror: RwLock::new(Mirror::new()),
            handlers: Mutex::new(Vec::new()),
            synced: watch::Sender::new(false),
            revision: AtomicU64::new(0),
        });
        let (client, of) = (client.clone(), shared.clone());
        tasks.essential("informer", move || run(client.clone(), follow.clone(), of.clone()));
        Informer { shared }
    }

    /// `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().get(&(namespace.to_owned(), name.to_owned()))
    }

    pub fn list(&self) -> Vec<Arc<K>> {
        self.read().all()
    }

    /// The same for those who must not keep the view alive: its handlers may hold what they are kept in.
    pub fn listing(&self) -> Listing<K> {
        Listing(Arc::downgrade(&self.shared))
    }

    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read().namespace(namespace)
    }

    /// The index of this kind by `I`, filled at its first use; later uses share it.
    pub fn index<I: IndexKey<K>>(&self) -> Index<K, I> {
        let mut mirror = self.shared.mirror.write().unwrap_or_else(PoisonError::into_inner);
        mirror.add_index(TypeId::of::<I>(), I::values);
        Index { informer: self.clone(), key: PhantomData }
    }

    /// Whether a change at `revision` (a resource version) is in the view. Versions that are no
    /// numbers, which no server gives, count as not in view.
    pub fn has_seen(&self, revision: &str) -> bool {
        let seen = self.shared.revision.load(Ordering::Acquire);
        revision.parse::<u64>().is_ok_and(|revision| revision <= seen)
    }

    /// Calls `handler` with every change from now on, after the view has it, and first with an
    /// `Added` for each object already there. It runs on the informer's task: queue a key, return.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        // The handlers' lock is held over the replay, so that no change falls between.
        let mut handlers = self.shared.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        for object in self.list() {
            handler(&Change::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// Resolves once the first snapshot is complete.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives in `shared`, which `self` holds.
        let _open = synced.wait_for(|done| *done).await;
    }

    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Mirror<K>> {
        self.shared.mirror.read().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run<K: Resource>(client: Client, follow: Follow, shared: Arc<Shared<K>>) {
    let mut follower = client.follow(follow);
    // While a snapshot comes in: the keys not mentioned yet, deleted when it is complete.
    let mut unseen: Option<BTreeSet<Key>> = None;
    while let Some(event) = follower.next().await {
        match event {
            FollowEvent::Reset => unseen = Some(shared.known_keys()),
            FollowEvent::Put(object) => shared.put(&object, unseen.as_mut()),
            FollowEvent::Delete(object) => {
                // A snapshot comes in the order of names, changes in the order of revisions.
                let revision = if unseen.is_some() { 0 } else { object.meta().revision };
                shared.remove(&key_of(&object), revision);
            }
            FollowEvent::Synced(revision) => {
                for key in unseen.take().into_iter().flatten() {
                    shared.remove(&key, 0);
                }
                shared.revision.fetch_max(revision, Ordering::Release);
                shared.synced.send_replace(true);
            }
        }
    }
}

fn key_of(object: &Object) -> Key {
    (object.meta().namespace.to_string(), object.meta().name.to_string())
}

impl<K: Resource> Shared<K> {
    fn known_keys(&self) -> BTreeSet<Key> {
        self.mirror.read().unwrap_or_else(PoisonError::into_inner).keys().into_iter().collect()
    }

    fn put(&self, object: &Object, unseen: Option<&mut BTreeSet<Key>>) {
        let key = key_of(object);
        let revision = if unseen.is_some() { 0 } else { object.meta().revision };
        if let Some(unseen) = unseen {
            unseen.remove(&key);
        }
        let mut typed = match K::decode(object.json()) {
            Ok(typed) => typed,
            Err(error) => {
                tracing::error!(kind = K::KIND, ?object, %error, "object not decoded: its informer keeps the former state");
                return;
            }
        };
        strip(typed.metadata_mut());
        let new = Arc::new(typed);
        let handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.write().put(key, new.clone());
        // Before the handlers: what they queue asks whether this change was seen.
        self.revision.fetch_max(revision, Ordering::Release);
        match old {
            Some(old) if old.metadata().resource_version == new.metadata().resource_version => {}
            // Another object of the same name: its predecessor is gone.
            Some(old) if old.metadata().uid != new.metadata().uid => {
                notify(&handlers, &Change::Deleted(old));
                notify(&handlers, &Change::Added(new));
            }
            Some(old) => notify(&handlers, &Change::Updated { old, new }),
            None => notify(&handlers, &Change::Added(new)),
        }
    }

    fn remove(&self, key: &Key, revision: u64) {
        let handlers = self.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.write().remove(key);
        self.revision.fetch_max(revision, Ordering::Release);
        if let Some(old) = old {
            notify(&handlers, &Change::Deleted(old));
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Mirror<K>> {
        self.mirror.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handler that panics concerns itself only: the others, and the view, go on.
fn notify<K>(handlers: &[Handler<K>], change: &Change<K>) {
    for handler in handlers {
        let handled = std::panic::catch_unwind(AssertUnwindSafe(|| handler(change)));
        if handled.is_err() {
            tracing::error!(kind = std::any::type_name::<K>(), "a change handler panicked");
        }
    }
}

fn strip(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
}

/// One informer a kind, shared by everybody in the process.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    tasks: Tasks,
    shared: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send>>>>,
}

impl std::fmt::Debug for Informers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Informers")
    }
}

impl Informers {
    pub fn new(client: Client, tasks: Tasks) -> Informers {
        Informers { client, tasks, shared: Arc::default() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer of all objects of `K`, started at its first use.
    pub fn of<K: Resource>(&self) -> Informer<K> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = shared
            .entry(TypeId::of::<K>())
            .or_insert_with(|| Box::new(Informer::<K>::new(&self.client, &self.tasks)));
        slot.downcast_ref::<Informer<K>>().expect("the slot is keyed by its type").clone()
    }
}
