//! A map that forgets what was not used for longest.

use std::collections::{BTreeMap, HashMap};

#[derive(Debug)]
pub(crate) struct Lru<V> {
    capacity: usize,
    uses: u64,
    entries: HashMap<String, (u64, V)>,
    by_use: BTreeMap<u64, String>,
}

impl<V> Lru<V> {
    pub(crate) fn new(capacity: usize) -> Lru<V> {
        Lru { capacity, uses: 0, entries: HashMap::new(), by_use: BTreeMap::new() }
    }

    /// The value of a key, which is now the last used; made if it is not there.
    pub(crate) fn entry(&mut self, key: &str, make: impl FnOnce() -> V) -> &mut V {
        self.uses += 1;
        match self.entries.get(key) {
            Some((used, _)) => drop(self.by_use.remove(used)),
            None => self.make_room(),
        }
        self.by_use.insert(self.uses, key.to_owned());
        let entry = self.entries.entry(key.to_owned());
        let entry = entry.and_modify(|(used, _)| *used = self.uses);
        &mut entry.or_insert_with(|| (self.uses, make())).1
    }

    fn make_room(&mut self) {
        while self.entries.len() >= self.capacity.max(1)
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lru;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut map = Lru::new(2);
        *map.entry("a", || 0) = 1;
        *map.entry("b", || 0) = 2;
        assert_eq!(*map.entry("a", || 0), 1);
        *map.entry("c", || 0) = 3;
        assert_eq!(*map.entry("a", || 9), 1);
        assert_eq!(*map.entry("b", || 9), 9, "it was forgotten");
    }
}
