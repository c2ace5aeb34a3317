//! A list found by its items' identities, so that merging two long lists costs their sum, not their
//! product.

use std::collections::HashMap;

use serde_json::Value;

/// The list, in order. Removal leaves a gap until the end.
#[derive(Default)]
pub(super) struct Keyed {
    slots: Vec<Option<Value>>,
    places: HashMap<String, Vec<usize>>,
}

/// Identifies an item by its merge key; with an empty key, by all of it.
pub(super) fn identity(item: &Value, key: &str) -> String {
    match key {
        "" => item.to_string(),
        key => item.get(key).map(Value::to_string).unwrap_or_default(),
    }
}

impl Keyed {
    pub(super) fn new(items: Vec<Value>, key: &str) -> Keyed {
        let mut keyed = Keyed::default();
        for item in items {
            keyed.push(identity(&item, key), item);
        }
        keyed
    }

    fn push(&mut self, identity: String, item: Value) -> usize {
        let at = self.slots.len();
        self.slots.push(Some(item));
        self.places.entry(identity).or_default().push(at);
        at
    }

    /// The first item of this identity; a new one at the end when there is none.
    pub(super) fn find_or_add(
        &mut self,
        identity: String,
        new: impl FnOnce() -> Value,
    ) -> &mut Value {
        let found = self.places.get(&identity).and_then(|places| places.first().copied());
        let at = found.unwrap_or_else(|| self.push(identity, Value::Null));
        let slot = self.slots[at].get_or_insert(Value::Null);
        if found.is_none() {
            *slot = new();
        }
        slot
    }

    /// Removes every item of this identity.
    pub(super) fn remove(&mut self, identity: &str) {
        for at in self.places.remove(identity).into_iter().flatten() {
            self.slots[at] = None;
        }
    }

    pub(super) fn into_items(self) -> Vec<Value> {
        self.slots.into_iter().flatten().collect()
    }
}
