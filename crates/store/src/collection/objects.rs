//! Objects by key, counted by namespace.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use api::Object;

pub(super) type Row<'a> = (&'a Arc<str>, &'a Arc<Object>);

/// An ordered map that knows how many objects each namespace has: counting them for every page of a list
/// would make a page cost what the collection costs.
#[derive(Debug, Default)]
pub(super) struct Objects {
    by_key: BTreeMap<Arc<str>, Arc<Object>>,
    /// By what keys start with, up to their first slash.
    counts: BTreeMap<Box<str>, usize>,
}

impl From<BTreeMap<Arc<str>, Arc<Object>>> for Objects {
    fn from(by_key: BTreeMap<Arc<str>, Arc<Object>>) -> Objects {
        let mut counts = BTreeMap::new();
        by_key.keys().for_each(|key| count_in(&mut counts, key));
        Objects { by_key, counts }
    }
}

impl Objects {
    pub(super) fn get(&self, key: &str) -> Option<&Arc<Object>> {
        self.by_key.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn insert(&mut self, key: Arc<str>, object: Arc<Object>) {
        if self.by_key.insert(key.clone(), object).is_none() {
            count_in(&mut self.counts, &key);
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        if self.by_key.remove(key).is_none() {
            return;
        }
        let Some(namespace) = namespace(key) else { return };
        if let Some(count) = self.counts.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(namespace);
            }
        }
    }

    /// Those that start with `prefix` and come after `after`.
    pub(super) fn range<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = Row<'a>> {
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let rows = self.by_key.range::<str, _>((from, Bound::Unbounded));
        rows.take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// How many start with `prefix`.
    pub(super) fn count(&self, prefix: &str) -> usize {
        match namespace(prefix) {
            None if prefix.is_empty() => self.len(),
            Some(whole) if whole.len() == prefix.len() => {
                self.counts.get(whole).copied().unwrap_or(0)
            }
            _ => self.range(prefix, None).count(),
        }
    }
}

/// With its slash; absent for keys of objects without a namespace.
fn namespace(key: &str) -> Option<&str> {
    key.split_inclusive('/').next().filter(|first| first.ends_with('/'))
}

fn count_in(counts: &mut BTreeMap<Box<str>, usize>, key: &str) {
    let Some(namespace) = namespace(key) else { return };
    match counts.get_mut(namespace) {
        Some(count) => *count += 1,
        None => drop(counts.insert(namespace.into(), 1)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Objects, namespace};

    fn object() -> Arc<api::Object> {
        let value = serde_json::json!({"metadata": {"name": "x"}});
        Arc::new(api::Object::new(&value, 1, &[]))
    }

    #[test]
    fn namespaces_are_counted_as_objects_come_and_go() {
        let mut objects = Objects::default();
        for key in ["a/1", "a/2", "a/2", "ab/1", "node"] {
            objects.insert(key.into(), object());
        }
        let counts =
            |objects: &Objects| ["", "a/", "ab/", "c/", "a", "a/2"].map(|p| objects.count(p));
        assert_eq!(counts(&objects), [4, 2, 1, 0, 3, 1]);
        objects.remove("a/1");
        objects.remove("a/1");
        objects.remove("ab/1");
        assert_eq!(counts(&objects), [2, 1, 0, 0, 1, 1]);
        let again = Objects::from(std::mem::take(&mut objects.by_key));
        assert_eq!(counts(&again), [2, 1, 0, 0, 1, 1]);
    }

    #[test]
    fn a_namespace_is_the_part_before_the_first_slash() {
        assert_eq!(namespace("a/b/c"), Some("a/"));
        assert_eq!(namespace("a/"), Some("a/"));
        assert_eq!(namespace("a"), None);
        assert_eq!(namespace(""), None);
    }
}
