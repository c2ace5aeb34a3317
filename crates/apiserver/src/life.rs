//! Where the server is in its life.

use std::sync::atomic::{AtomicBool, Ordering};

/// Where the server is in its life.
#[derive(Debug, Default)]
pub(crate) struct Life {
    bootstrapped: AtomicBool,
    ending: AtomicBool,
}

impl Life {
    /// The objects that every cluster starts with are there.
    pub(crate) fn bootstrapped(&self) {
        self.bootstrapped.store(true, Ordering::Release);
    }

    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    pub(crate) fn is_bootstrapped(&self) -> bool {
        self.bootstrapped.load(Ordering::Acquire)
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }
}
