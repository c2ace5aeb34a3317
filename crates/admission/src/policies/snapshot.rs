//! The compiled policies of a server, and how they follow the store.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use api::Object;
use auth::{Collection, Objects};

use super::binding::Binding;
use super::mutating::Mutations;
use super::policy::{Evaluator, Policy};
use super::validating::Validations;

/// A policy and its bindings, each in the order of their names.
#[derive(Debug)]
pub(crate) struct Bound<E> {
    pub(crate) policy: Arc<Policy<E>>,
    pub(crate) bindings: Vec<Arc<Binding>>,
}

/// The policies at one time.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The last change of each collection when the snapshot was made.
    versions: [u64; 4],
    pub(crate) validating: Vec<Bound<Validations>>,
    pub(crate) mutating: Vec<Bound<Mutations>>,
}

fn bound<E: Evaluator>(
    former: &[Bound<E>],
    policies: &[Arc<Object>],
    bindings: &[Arc<Object>],
) -> Vec<Bound<E>> {
    let known: HashMap<_, _> =
        former.iter().map(|bound| (bound.policy.state.clone(), &bound.policy)).collect();
    let mut by_policy: HashMap<Box<str>, Vec<Arc<Binding>>> = HashMap::new();
    for binding in bindings {
        let binding = Binding::read(&binding.to_value());
        by_policy.entry(binding.policy.clone()).or_default().push(Arc::new(binding));
    }
    let mut all: Vec<Bound<E>> = Vec::new();
    for object in policies {
        let Some(mut bindings) = by_policy.remove(&*object.meta().name) else { continue };
        bindings.sort_by(|a, b| a.name.cmp(&b.name));
        let state = (object.meta().uid.clone(), object.revision());
        let policy = match known.get(&state) {
            Some(policy) => (*policy).clone(),
            None => Arc::new(Policy::compile(&object.to_value(), state)),
        };
        all.push(Bound { policy, bindings });
    }
    all.sort_by(|a, b| a.policy.name.cmp(&b.policy.name));
    all
}

const GROUP: &str = "admissionregistration.k8s.io";
const RESOURCES: [&str; 4] = [
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// The present snapshot. Each request compares the collections' last changes with those it was made of; the
/// first request after a change makes the next snapshot, and compiles what changed.
pub struct Policies {
    collections: [Option<Arc<dyn Collection>>; 4],
    current: RwLock<Arc<Snapshot>>,
    /// Held while a snapshot is made, so that it is made once.
    renewing: Mutex<()>,
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Policies").field(&self.present().versions).finish()
    }
}

impl Policies {
    pub fn new(objects: &dyn Objects) -> Policies {
        Policies {
            collections: RESOURCES.map(|resource| objects.of(GROUP, resource)),
            current: RwLock::default(),
            renewing: Mutex::default(),
        }
    }

    fn present(&self) -> Arc<Snapshot> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn versions(&self) -> [u64; 4] {
        self.collections.each_ref().map(|all| all.as_ref().map_or(0, |all| all.last_change()))
    }

    /// The policies as they are stored right now.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        let versions = self.versions();
        let present = self.present();
        if present.versions == versions {
            return present;
        }
        let _only = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.present();
        if present.versions == versions {
            return present;
        }
        let new = Arc::new(self.renewed(&present));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new.clone();
        new
    }

    /// Compiles what `former` does not have yet. The versions are read first: a change in between is found by
    /// the next request.
    fn renewed(&self, former: &Snapshot) -> Snapshot {
        let versions = self.versions();
        let lists = self
            .collections
            .each_ref()
            .map(|all| all.as_ref().map_or_else(Vec::new, |all| all.list("", &|_| true)));
        let [validating, validating_bindings, mutating, mutating_bindings] = &lists;
        Snapshot {
            versions,
            validating: bound(&former.validating, validating, validating_bindings),
            mutating: bound(&former.mutating, mutating, mutating_bindings),
        }
    }
}
