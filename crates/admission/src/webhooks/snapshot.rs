//! The hooks of all configurations, renewed when a configuration changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use api::Object;
use validation::items;

use super::{Callers, Hook};
use crate::attributes::{Cluster, Gvr};

const GROUP: &str = "admissionregistration.k8s.io";
const MUTATING: Gvr = (GROUP, "v1", "mutatingwebhookconfigurations");
const VALIDATING: Gvr = (GROUP, "v1", "validatingwebhookconfigurations");

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
    /// Callers of mutating webhooks, and of validating ones.
    pub fn new(mutating: Arc<dyn Callers>, validating: Arc<dyn Callers>) -> Webhooks {
        let callers = [mutating, validating];
        Webhooks { callers, current: RwLock::default(), renewing: Mutex::default() }
    }

    /// The hooks of the configurations that are stored now.
    pub fn current(&self, cluster: &dyn Cluster) -> Arc<Snapshot> {
        let seen = Some([MUTATING, VALIDATING].map(|resource| cluster.last_change(resource)));
        let current = self.snapshot();
        if current.seen == seen {
            return current;
        }
        let _renewing = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.snapshot();
        if current.seen == seen {
            return current;
        }
        let renewed = Arc::new(self.renewed(&current, cluster, seen));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed.clone();
        renewed
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hooks of configurations that did not change keep their compiled conditions and connections.
    fn renewed(
        &self,
        former: &Snapshot,
        cluster: &dyn Cluster,
        seen: Option<[u64; 2]>,
    ) -> Snapshot {
        let mut read = Read::default();
        let mut all = |resource: Gvr, callers: &dyn Callers| -> Vec<Arc<Hook>> {
            let mut objects = cluster.list(resource, "");
            objects.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
            let mut hooks = Vec::new();
            for object in objects {
                let state = (object.meta().uid.clone(), object.revision());
                let known = former.read.get(&state).cloned();
                let own = known.unwrap_or_else(|| hooks_of(resource, &object, callers));
                hooks.extend(own.iter().cloned());
                read.insert(state, own);
            }
            hooks
        };
        let [of_mutating, of_validating] = &self.callers;
        let mutating = all(MUTATING, &**of_mutating);
        let validating = all(VALIDATING, &**of_validating);
        Snapshot { seen, mutating, validating, read }
    }
}

fn hooks_of(resource: Gvr, object: &Object, callers: &dyn Callers) -> Vec<Arc<Hook>> {
    let tree = object.to_value();
    let kind = match resource {
        MUTATING => "MutatingWebhookConfiguration",
        _ => "ValidatingWebhookConfiguration",
    };
    let name = &object.meta().name;
    let hooks = items(&tree, "webhooks").enumerate();
    hooks.map(|hook| Arc::new(Hook::read((kind, name), hook, callers))).collect()
}
