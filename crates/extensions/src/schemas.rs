//! The schemas of a definition's versions: made ready when a request needs them, and dropped when none has for a
//! while. A hundred definitions of usual operators take hundreds of megabytes when all are ready.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::Object;
use custom::Compiled;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use strategy::offload::{offload, offload_large};

/// How long a schema is kept after its last use.
const KEPT: Duration = Duration::from_secs(60);

/// How much of a schema is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// Enough to prune and to default.
    Structure,
    /// Everything, its rules included.
    Rules,
}

#[derive(Debug)]
struct Ready {
    depth: Depth,
    compiled: Arc<Compiled>,
    used: Instant,
}

/// The schemas of one definition, by its versions' places.
#[derive(Debug)]
pub struct Schemas {
    /// The definition as it is stored.
    object: Mutex<Arc<Object>>,
    names: Vec<Box<str>>,
    ready: Vec<Mutex<Option<Ready>>>,
    /// Told when a schema was made ready, which will have to be dropped again.
    added: Arc<Notify>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Schemas {
    pub fn new(object: Arc<Object>, names: Vec<Box<str>>, added: Arc<Notify>) -> Schemas {
        let ready = names.iter().map(|_| Mutex::default()).collect();
        Schemas { object: Mutex::new(object), names, ready, added }
    }

    /// The definition was stored anew, with the same spec: its former state need not be kept.
    pub fn renew(&self, object: &Arc<Object>) {
        *lock(&self.object) = object.clone();
    }

    fn definition(&self) -> Value {
        let object = lock(&self.object).clone();
        offload_large(object.json().len(), || object.to_value())
    }

    /// The schema of a version as it is written, for OpenAPI.
    pub(super) fn source(&self, at: usize) -> Value {
        custom::schema_of(&self.definition(), &self.names[at]).clone()
    }

    /// The schema of a version, ready to that depth. One that cannot be used has a fault, and keeps all fields.
    pub(super) fn get(&self, at: usize, depth: Depth) -> Arc<Compiled> {
        let known = self.ready[at].try_lock().ok().and_then(|mut ready| used(&mut ready, depth));
        // Who waits while another request makes it ready waits away from the async workers.
        known.unwrap_or_else(|| offload(|| self.make(at, depth)))
    }

    fn make(&self, at: usize, depth: Depth) -> Arc<Compiled> {
        let mut ready = lock(&self.ready[at]);
        if let Some(known) = used(&mut ready, depth) {
            return known;
        }
        let (definition, name) = (self.definition(), &self.names[at]);
        let compiled = Compiled::parse(&definition, name, depth == Depth::Rules);
        let compiled = Arc::new(compiled.unwrap_or_else(|fault| {
            let definition = definition["metadata"]["name"].as_str().unwrap_or("");
            tracing::error!(definition, fault, "a schema cannot be used; writes are refused");
            Compiled::unusable(fault)
        }));
        *ready = Some(Ready { depth, compiled: compiled.clone(), used: Instant::now() });
        self.added.notify_one();
        compiled
    }

    /// Drops schemas that were not used lately; when the next may be, or `None` when none is ready.
    pub(super) fn expire(&self) -> Option<Instant> {
        let keep = |ready: &mut Option<Ready>| {
            ready.take_if(|ready| ready.used.elapsed() >= KEPT);
            ready.as_ref().map(|ready| ready.used + KEPT)
        };
        self.ready.iter().filter_map(|ready| keep(&mut lock(ready))).min()
    }
}

/// The schema, if it is ready to that depth; it counts as used.
fn used(ready: &mut Option<Ready>, depth: Depth) -> Option<Arc<Compiled>> {
    let ready = ready.as_mut().filter(|ready| ready.depth >= depth)?;
    ready.used = Instant::now();
    Some(ready.compiled.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_schema_is_ready_while_it_is_used() {
        let schema =
            json!({"openAPIV3Schema": {"type": "object", "properties": {"a": {"default": 1}}}});
        let definition = json!({"metadata": {"name": "d"}, "spec": {"versions": [{"name": "v1", "schema": schema}]}});
        let object = Arc::new(Object::new(&definition, 1, &[]));
        let schemas = Schemas::new(object, vec!["v1".into()], Arc::default());
        assert!(schemas.expire().is_none(), "nothing is ready before it is asked for");
        let first = schemas.get(0, Depth::Structure);
        assert!(Arc::ptr_eq(&first, &schemas.get(0, Depth::Structure)), "made once");
        let whole = schemas.get(0, Depth::Rules);
        assert!(
            Arc::ptr_eq(&whole, &schemas.get(0, Depth::Structure)),
            "the deeper one serves both"
        );
        tokio::time::advance(KEPT / 2).await;
        assert!(schemas.expire().is_some());
        schemas.get(0, Depth::Structure);
        tokio::time::advance(KEPT / 2).await;
        assert!(schemas.expire().is_some(), "used since");
        tokio::time::advance(KEPT).await;
        assert!(schemas.expire().is_none());
        let node = &schemas.get(0, Depth::Structure).node;
        assert_eq!(node.properties["a"].default, Some(json!(1)), "made anew");
    }
}
