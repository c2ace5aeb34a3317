//! Adapters of the store to the ports that other crates declare.

use std::sync::Arc;

use api::Object;
use api::registry::Registry;
use store::Store;

/// The store as crate `auth` reads it.
pub struct StoredObjects {
    pub store: Store,
    pub registry: &'static Registry,
}

impl auth::Objects for StoredObjects {
    fn of(&self, group: &str, resource: &str) -> Option<Arc<dyn auth::Collection>> {
        let mut rows = self.registry.rows().iter();
        let row = rows.find(|row| {
            (row.group, row.name, row.subresource) == (group, resource, "")
                && !row.prefix.is_empty()
        })?;
        Some(Arc::new(StoredCollection(self.store.collection(&row.prefix)?)))
    }
}

struct StoredCollection(Arc<store::Collection>);

impl auth::Collection for StoredCollection {
    fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.0.get(key)
    }

    fn list(&self, prefix: &str, keep: &dyn Fn(&Object) -> bool) -> Vec<Arc<Object>> {
        // The present state never expires.
        self.0.list(prefix, None, 0, usize::MAX, keep).map(|page| page.objects).unwrap_or_default()
    }

    fn list_by(&self, (field, value): (&str, &str), prefix: &str) -> Vec<Arc<Object>> {
        let Some(at) = self.0.spec().selectable.iter().position(|known| *known == field) else {
            return Vec::new();
        };
        let has = |o: &Object| o.meta().fields.get(at).is_some_and(|found| **found == *value);
        let page = self.0.list_by(Some((field, value)), (prefix, None), 0, usize::MAX, &has);
        page.map(|page| page.objects).unwrap_or_default()
    }

    fn last_change(&self) -> u64 {
        self.0.last_change()
    }
}
