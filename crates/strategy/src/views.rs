//! Objects of a request in other versions, for field management.
//!
//! Field management is plain computation, while a webhook takes its time. So a computation that
//! needs an object in another version notes that and fails; what was noted is fetched, and the
//! computation done again. Each version is asked for once a request and state.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// A version, and the JSON of an object that is wanted in it.
type Key = (String, String);

#[derive(Debug, Default)]
pub struct Views {
    known: Mutex<HashMap<Key, Result<Value, String>>>,
    wanted: Mutex<Vec<(Key, Value)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Views {
    /// Fetches what was wanted by `convert`, which takes a version and an object; false when nothing was.
    pub async fn fetch<F>(&self, convert: impl Fn(String, Value) -> F) -> bool
    where
        F: Future<Output = Result<Value, String>>,
    {
        let wanted = std::mem::take(&mut *lock(&self.wanted));
        let any = !wanted.is_empty();
        for (key, object) in wanted {
            let converted = convert(key.0.clone(), object).await;
            lock(&self.known).insert(key, converted);
        }
        any
    }

    pub fn is_wanting(&self) -> bool {
        !lock(&self.wanted).is_empty()
    }

    /// The object in another version, if it was fetched; else it is wanted from now on.
    pub fn converted(&self, version: &str, object: &Value) -> Result<Value, String> {
        let key = (version.to_owned(), object.to_string());
        if let Some(known) = lock(&self.known).get(&key) {
            return known.clone();
        }
        let mut wanted = lock(&self.wanted);
        if !wanted.iter().any(|(other, _)| *other == key) {
            wanted.push((key, object.clone()));
        }
        Err("an object is being converted".into())
    }
}
