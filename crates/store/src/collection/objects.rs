//! Objects by key, counted by namespace, and by the value of one field.

use std::collections::{BTreeMap, BTreeSet};
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
    index: Option<Index>,
}

/// Keys by the value of a field.
#[derive(Debug)]
struct Index {
    /// Which of the selectable fields.
    field: usize,
    by_value: BTreeMap<Box<str>, BTreeSet<Arc<str>>>,
}

impl Index {
    fn value<'a>(&self, object: &'a Object) -> &'a str {
        object.meta().fields.get(self.field).map_or("", |value| value)
    }

    fn put(&mut self, key: &Arc<str>, object: &Object) {
        let value = self.value(object);
        match self.by_value.get_mut(value) {
            Some(keys) => drop(keys.insert(key.clone())),
            None => drop(self.by_value.insert(value.into(), BTreeSet::from([key.clone()]))),
        }
    }

    fn take(&mut self, key: &str, object: &Object) {
        let value = self.value(object);
        let Some(keys) = self.by_value.get_mut(value) else { return };
        keys.remove(key);
        if keys.is_empty() {
            self.by_value.remove(value);
        }
    }
}

impl Objects {
    /// None yet; `indexed` says by which of the selectable fields they can be found.
    pub(super) fn new(indexed: Option<usize>) -> Objects {
        let index = indexed.map(|field| Index { field, by_value: BTreeMap::new() });
        Objects { index, ..Objects::default() }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Object>> {
        self.by_key.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn insert(&mut self, key: Arc<str>, object: Arc<Object>) {
        let old = self.by_key.insert(key.clone(), object.clone());
        if old.is_none() {
            count_in(&mut self.counts, &key);
        }
        let Some(index) = &mut self.index else { return };
        match &old {
            Some(old) if index.value(old) == index.value(&object) => return,
            Some(old) => index.take(&key, old),
            None => {}
        }
        index.put(&key, &object);
    }

    pub(super) fn remove(&mut self, key: &str) {
        let Some(old) = self.by_key.remove(key) else { return };
        if let Some(index) = &mut self.index {
            index.take(key, &old);
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

    /// As [`Objects::range`], of those whose indexed field has this value; none without an index.
    pub(super) fn indexed<'a>(
        &'a self,
        value: &str,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let keys = self.index.as_ref().and_then(|index| index.by_value.get(value));
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let keys = keys.into_iter().flat_map(move |k| k.range::<str, _>((from, Bound::Unbounded)));
        let keys = keys.take_while(move |key| key.starts_with(prefix));
        keys.filter_map(|key| Some((key, self.by_key.get(key)?)))
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
    }

    #[test]
    fn an_index_follows_its_field() {
        let on = |node: &str| {
            let value = serde_json::json!({"metadata": {"name": "x"}, "spec": {"nodeName": node}});
            Arc::new(api::Object::new(&value, 1, &["spec.hostname", "spec.nodeName"]))
        };
        let mut objects = Objects::new(Some(1));
        for (key, node) in [("a/1", "n1"), ("a/2", "n1"), ("b/1", "n1"), ("b/2", ""), ("a/3", "n2")]
        {
            objects.insert(key.into(), on(node));
        }
        let keys = |objects: &Objects, value: &str, prefix: &str, after: Option<&str>| {
            let rows = objects.indexed(value, prefix, after);
            rows.map(|(key, _)| key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&objects, "n1", "", None), ["a/1", "a/2", "b/1"]);
        assert_eq!(keys(&objects, "n1", "a/", None), ["a/1", "a/2"]);
        assert_eq!(keys(&objects, "n1", "a/", Some("a/1")), ["a/2"]);
        assert_eq!(keys(&objects, "", "", None), ["b/2"]);
        objects.insert("b/2".into(), on("n2"));
        objects.insert("a/1".into(), on("n1"));
        objects.remove("a/2");
        assert_eq!(keys(&objects, "n1", "", None), ["a/1", "b/1"]);
        assert_eq!(keys(&objects, "n2", "", None), ["a/3", "b/2"]);
        assert_eq!(keys(&objects, "", "", None), [] as [&str; 0]);
        objects.remove("a/1");
        objects.remove("b/1");
        let index = objects.index.as_ref().expect("it has one");
        assert!(!index.by_value.contains_key("n1"), "values without objects are forgotten");
    }

    #[test]
    fn a_namespace_is_the_part_before_the_first_slash() {
        assert_eq!(namespace("a/b/c"), Some("a/"));
        assert_eq!(namespace("a/"), Some("a/"));
        assert_eq!(namespace("a"), None);
        assert_eq!(namespace(""), None);
    }
}
