//! The hooks of all configurations, renewed when a configuration changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use api::Object;
use auth::{Collection, Objects};
use validation::items;

use super::{Callers, Hook};

const GROUP: &str = "admissionregistration.k8s.io";
const RESOURCES: [&str; 2] = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
const KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// A configuration's hooks, by the state of the object that they were read from.
type Read = HashMap<(Box<str>, u64), Vec<Arc<Hook>>>;

/// The hooks at one time, in the order in which they are called: by the names of their configurations.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The last changes of both collections that are in it.
    seen: Option<[u64; 2]>,
    pub mutating: Vec<Arc<Hook>>,
    pub validating: Vec<Arc<Hook>>,
    read: Read,
}

/// The webhooks of a server.
pub struct Webhooks {
    /// Of mutating webhooks, and of validating ones.
    callers: [Arc<dyn Callers>; 2],
    collections: [Option<Arc<dyn Collection>>; 2],
    current: RwLock<Arc<Snapshot>>,
    /// Held while a snapshot is made.
    renewing: Mutex<()>,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Webhooks")
    }
}

impl Webhooks {
    /// With the callers of mutating webhooks, and of validating ones.
    pub fn new(objects: &dyn Objects, callers: [Arc<dyn Callers>; 2]) -> Webhooks {
        let collections = RESOURCES.map(|resource| objects.of(GROUP, resource));
        let (current, renewing) = (RwLock::default(), Mutex::default());
        Webhooks { callers, collections, current, renewing }
    }

    fn seen(&self) -> Option<[u64; 2]> {
        let last =
            |all: &Option<Arc<dyn Collection>>| all.as_ref().map_or(0, |all| all.last_change());
        Some(self.collections.each_ref().map(last))
    }

    /// The hooks of the configurations that are stored now.
    pub fn current(&self) -> Arc<Snapshot> {
        let seen = self.seen();
        let current = self.snapshot();
        if current.seen == seen {
            return current;
        }
        let _renewing = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.snapshot();
        if current.seen == seen {
            return current;
        }
        let renewed = Arc::new(self.renewed(&current, seen));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed.clone();
        renewed
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hooks of configurations that did not change keep their compiled conditions and connections. `seen` was
    /// read first: a change in between is found by the next request.
    fn renewed(&self, former: &Snapshot, seen: Option<[u64; 2]>) -> Snapshot {
        let mut read = Read::default();
        let mut all = |at: usize| -> Vec<Arc<Hook>> {
            let (collection, callers) = (&self.collections[at], &*self.callers[at]);
            let mut objects = collection.as_ref().map_or_else(Vec::new, |c| c.list("", &|_| true));
            objects.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
            let mut hooks = Vec::new();
            for object in objects {
                let state = (object.meta().uid.clone(), object.revision());
                let known = former.read.get(&state).cloned();
                let own = known.unwrap_or_else(|| hooks_of(KINDS[at], &object, callers));
                hooks.extend(own.iter().cloned());
                read.insert(state, own);
            }
            hooks
        };
        let (mutating, validating) = (all(0), all(1));
        Snapshot { seen, mutating, validating, read }
    }
}

fn hooks_of(kind: &'static str, object: &Object, callers: &dyn Callers) -> Vec<Arc<Hook>> {
    let tree = object.to_value();
    let name = &object.meta().name;
    let hooks = items(&tree, "webhooks").enumerate();
    hooks.map(|hook| Arc::new(Hook::read((kind, name), hook, callers))).collect()
}
