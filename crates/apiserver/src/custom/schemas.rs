//! The schemas of a definition's versions: made ready when a request needs them, and dropped when none has for a
//! while. A hundred definitions of usual operators take hundreds of megabytes when all are ready.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::Object;
use custom::Compiled;
use serde_json::Value;
use tokio::time::Instant;

use crate::offload::offload_large;

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
pub(crate) struct Schemas {
    /// The definition as it is stored.
    object: Mutex<Arc<Object>>,
    names: Vec<Box<str>>,
    ready: Vec<Mutex<Option<Ready>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Schemas {
    pub(crate) fn new(object: Arc<Object>, names: Vec<Box<str>>) -> Schemas {
        let ready = names.iter().map(|_| Mutex::default()).collect();
        Schemas { object: Mutex::new(object), names, ready }
    }

    /// The definition was stored anew, with the same spec: its former state need not be kept.
    pub(crate) fn renew(&self, object: &Arc<Object>) {
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

    /// The schema of a version, ready to that depth.
    pub(super) fn get(&self, at: usize, depth: Depth) -> Arc<Compiled> {
        let mut ready = lock(&self.ready[at]);
        if let Some(ready) = ready.as_mut().filter(|ready| ready.depth >= depth) {
            ready.used = Instant::now();
            return ready.compiled.clone();
        }
        let compiled = Arc::new(self.compile(at, depth));
        *ready = Some(Ready { depth, compiled: compiled.clone(), used: Instant::now() });
        compiled
    }

    fn compile(&self, at: usize, depth: Depth) -> Compiled {
        let (definition, name) = (self.definition(), &self.names[at]);
        let compile = || Compiled::parse(&definition, name, depth == Depth::Rules);
        let size = lock(&self.object).json().len();
        offload_large(size, compile).unwrap_or_else(|fault| {
            // Definitions are checked when they are written.
            let definition = definition["metadata"]["name"].as_str().unwrap_or("");
            tracing::error!(
                definition,
                fault,
                "a schema cannot be used; its objects are not checked"
            );
            Compiled::free()
        })
    }

    /// Drops schemas that were not used lately; whether any is still ready.
    pub(crate) fn expire(&self) -> bool {
        let mut any = false;
        for ready in &self.ready {
            let mut ready = lock(ready);
            if ready.as_ref().is_some_and(|ready| ready.used.elapsed() >= KEPT) {
                *ready = None;
            }
            any |= ready.is_some();
        }
        any
    }
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
        let schemas = Schemas::new(object, vec!["v1".into()]);
        assert!(!schemas.expire(), "nothing is ready before it is asked for");
        let first = schemas.get(0, Depth::Structure);
        assert!(Arc::ptr_eq(&first, &schemas.get(0, Depth::Structure)), "made once");
        let whole = schemas.get(0, Depth::Rules);
        assert!(
            Arc::ptr_eq(&whole, &schemas.get(0, Depth::Structure)),
            "the deeper one serves both"
        );
        tokio::time::advance(KEPT / 2).await;
        assert!(schemas.expire());
        schemas.get(0, Depth::Structure);
        tokio::time::advance(KEPT / 2).await;
        assert!(schemas.expire(), "used since");
        tokio::time::advance(KEPT).await;
        assert!(!schemas.expire());
        let node = &schemas.get(0, Depth::Structure).node;
        assert_eq!(node.properties["a"].default, Some(json!(1)), "made anew");
    }
}
