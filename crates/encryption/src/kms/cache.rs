//! Seeds that the provider decrypted, and those that it just failed to decrypt.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::seed::Seed;

/// A seed that nobody needed for so long is forgotten (upstream's time).
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a provider is not asked again for a seed that it could not decrypt.
const FAILURE_LIFE: Duration = Duration::from_secs(3);
/// Seeds kept at most. There are about as many as key ids and starts of servers.
const SEEDS_MAX: usize = 4096;

#[derive(Debug)]
struct Entry {
    seed: Result<Arc<Seed>, String>,
    used: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Cache(HashMap<[u8; 32], Entry>);

impl Cache {
    /// Whether the provider need not be asked (now).
    pub(super) fn is_settled(&self, key: &[u8; 32]) -> bool {
        self.0
            .get(key)
            .is_some_and(|entry| entry.seed.is_ok() || entry.used.elapsed() < FAILURE_LIFE)
    }

    /// The seed, or why there is none.
    pub(super) fn get(&mut self, key: &[u8; 32]) -> Result<Arc<Seed>, String> {
        let unknown = || "failed to decrypt DEK, error: the provider was not asked yet".to_owned();
        let entry = self.0.get_mut(key).ok_or_else(unknown)?;
        if entry.seed.is_ok() {
            entry.used = Instant::now();
        }
        entry.seed.clone()
    }

    /// Keeps an answer; how many seeds are known then.
    pub(super) fn set(&mut self, key: [u8; 32], seed: Result<Arc<Seed>, String>) -> usize {
        let used = Instant::now();
        self.0.retain(|_, entry| entry.used.elapsed() < LIFE);
        if self.0.len() >= SEEDS_MAX
            && let Some(oldest) = self.0.iter().min_by_key(|(_, e)| e.used).map(|(key, _)| *key)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(key, Entry { seed, used });
        self.0.values().filter(|entry| entry.seed.is_ok()).count()
    }
}
