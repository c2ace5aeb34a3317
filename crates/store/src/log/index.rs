//! Which record of each key counts, and how many bytes of the log are alive.
//!
//! Keys are kept as 128-bit hashes under random keys: the values are in memory above already, and
//! 150,000 keys in full would take another 15 MB. Two keys agree by chance with a probability of
//! about 10⁻²⁸ at that number, and nobody can look for such a pair.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use super::frame::Entry;

/// Passes on what is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

#[derive(Debug, Clone, Copy)]
struct Live {
    revision: u64,
    /// Bytes its record takes; none for a deletion, which is remembered while the log is read.
    size: u32,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    hashers: [RandomState; 2],
    entries: HashMap<(u64, u64), Live, BuildHasherDefault<Hashed>>,
    bytes: u64,
}

impl Index {
    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.hashers[0].hash_one(key), self.hashers[1].hash_one(key))
    }

    /// Bytes of all records that count.
    pub(super) fn live_bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_live(&self, entry: &Entry<'_>) -> bool {
        let known = self.entries.get(&self.hash(entry.key));
        entry.value.is_some() && known.is_some_and(|live| live.revision == entry.revision)
    }

    /// Takes over a record that was just written.
    pub(super) fn put(&mut self, entry: &Entry<'_>) {
        let (hash, size) = (self.hash(entry.key), entry.size() as u32);
        let old = match entry.value {
            Some(_) => self.entries.insert(hash, Live { revision: entry.revision, size }),
            None => self.entries.remove(&hash),
        };
        let new = entry.value.map_or(0, |_| u64::from(size));
        self.bytes = self.bytes + new - old.map_or(0, |live| u64::from(live.size));
    }

    /// Takes over a record while the log is read backwards: whether it is its key's last one.
    pub(super) fn meet(&mut self, entry: &Entry<'_>) -> bool {
        let size = entry.value.map_or(0, |_| entry.size() as u32);
        let live = Live { revision: entry.revision, size };
        let hash = self.hash(entry.key);
        if self.entries.contains_key(&hash) {
            return false;
        }
        self.entries.insert(hash, live);
        self.bytes += u64::from(size);
        entry.value.is_some()
    }

    /// Forgets deletions once the whole log was read.
    pub(super) fn settle(&mut self) {
        self.entries.retain(|_, live| live.size > 0);
    }
}
