//! Which essential and required tasks are not at work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The health of a process's essential tasks. Clones are the same health.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// By task, because several have the same name.
    failing: Arc<Mutex<BTreeMap<u64, &'static str>>>,
}

impl Health {
    /// The names of tasks that ended and have not run again for long enough, sorted.
    pub fn failing(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.lock().values().copied().collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(crate) fn failed(&self, task: u64, name: &'static str) {
        self.lock().insert(task, name);
    }

    pub(crate) fn recovered(&self, task: u64) {
        self.lock().remove(&task);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, &'static str>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
