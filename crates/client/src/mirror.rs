//! The informer's memory: typed objects by key, and indexes over them.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::client::Resource;

/// Namespace and name.
pub(crate) type Key = (String, String);

pub(crate) type IndexFn<K> = fn(&K) -> Vec<String>;

struct Index<K> {
    of: IndexFn<K>,
    keys: HashMap<String, BTreeSet<Key>>,
}

/// All objects of one followed collection.
pub(crate) struct Mirror<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// By the type of their key, so that two indexes never share a name by accident.
    indexes: HashMap<TypeId, Index<K>>,
}

impl<K: Resource> Mirror<K> {
    pub(crate) fn new() -> Mirror<K> {
        Mirror { objects: BTreeMap::new(), indexes: HashMap::new() }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.objects.get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.objects.values().cloned().collect()
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.objects.keys().cloned().collect()
    }

    pub(crate) fn namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = (namespace.to_owned(), String::new());
        let rows = self.objects.range(from..);
        rows.take_while(|((ns, _), _)| ns == namespace).map(|(_, o)| o.clone()).collect()
    }

    /// Adds an index and fills it; nothing if it is there.
    pub(crate) fn add_index(&mut self, key: TypeId, of: IndexFn<K>) {
        if self.indexes.contains_key(&key) {
            return;
        }
        let mut index = Index { of, keys: HashMap::new() };
        for (key, object) in &self.objects {
            for value in (index.of)(object) {
                index.keys.entry(value).or_default().insert(key.clone());
            }
        }
        self.indexes.insert(key, index);
    }

    pub(crate) fn by_index(&self, key: TypeId, value: &str) -> Vec<Arc<K>> {
        let found = self.indexes.get(&key).and_then(|i| i.keys.get(value));
        found.into_iter().flatten().filter_map(|key| self.get(key)).collect()
    }

    /// Stores an object; the state before it.
    pub(crate) fn put(&mut self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.objects.insert(key.clone(), object.clone());
        for index in self.indexes.values_mut() {
            index.replace(&key, old.as_deref(), Some(&object));
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in self.indexes.values_mut() {
            index.replace(key, Some(&old), None);
        }
        Some(old)
    }
}

impl<K> Index<K> {
    fn replace(&mut self, key: &Key, old: Option<&K>, new: Option<&K>) {
        let before = old.map_or_else(Vec::new, |o| (self.of)(o));
        let after = new.map_or_else(Vec::new, |o| (self.of)(o));
        for value in before.iter().filter(|v| !after.contains(v)) {
            if let Some(keys) = self.keys.get_mut(value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(value);
                }
            }
        }
        for value in after {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }
}
