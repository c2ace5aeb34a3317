//! What was written and is not in view yet, over the informer's view: the binder writes a volume and a
//! claim four times in a row, and each of its looks must see all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::{Informer, Resource};

use crate::meta::{Key, key};

#[derive(Debug)]
pub(crate) struct Cache<K> {
    view: Informer<K>,
    written: Arc<Mutex<HashMap<Key, Arc<K>>>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Cache<K> {
        Cache { view: self.view.clone(), written: self.written.clone() }
    }
}

impl<K: Resource> Cache<K> {
    pub(crate) fn new(view: Informer<K>) -> Cache<K> {
        Cache { view, written: Arc::default() }
    }

    pub(crate) fn view(&self) -> &Informer<K> {
        &self.view
    }

    /// Without what the view shows by now.
    fn written(&self) -> MutexGuard<'_, HashMap<Key, Arc<K>>> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|_, object| {
            let revision = object.metadata().resource_version.as_deref().unwrap_or("");
            !self.view.has_seen(revision)
        });
        written
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let own = (namespace.to_owned(), name.to_owned());
        let written = self.written().get(&own).cloned();
        written.or_else(|| self.view.get(namespace, name))
    }

    pub(crate) fn list(&self) -> Vec<Arc<K>> {
        let written = self.written();
        let all = self.view.list().into_iter();
        all.map(|object| written.get(&key(&*object)).cloned().unwrap_or(object)).collect()
    }

    /// `object` is the server's answer.
    pub(crate) fn wrote(&self, object: K) -> Arc<K> {
        let object = Arc::new(object);
        self.written().insert(key(&*object), object.clone());
        object
    }
}
