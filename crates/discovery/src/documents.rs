//! Documents that are the same for every client (OpenAPI, aggregated discovery): made once, one at a
//! time, and shared by all answers that send them; dropped when nobody has asked for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::Status;
use bytes::Bytes;
use tokio::sync::{Notify, OnceCell};
use tokio::time::Instant;

use extensions::Installed;
use strategy::offload::offload;

/// How long a document is kept after its last use. All of them together take some 20 MiB, which an
/// idle server does not keep.
const KEPT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Documents {
    state: Mutex<State>,
    /// Held while a document is made: each takes tens of milliseconds and megabytes.
    making: tokio::sync::Mutex<()>,
    added: Notify,
}

#[derive(Default)]
struct State {
    /// The definitions that the documents describe.
    installed: Option<Arc<Installed>>,
    kept: HashMap<String, Kept>,
}

struct Kept {
    document: Arc<OnceCell<Bytes>>,
    used: Instant,
}

impl Documents {
    /// The document of this name, for the definitions that are installed.
    pub async fn get(
        &self,
        installed: &Arc<Installed>,
        name: &str,
        make: impl FnOnce() -> Result<Bytes, Status>,
    ) -> Result<Bytes, Status> {
        let document = self.slot(installed, name);
        let made = document.get_or_try_init(|| async {
            let _turn = self.making.lock().await;
            offload(make)
        });
        made.await.cloned()
    }

    fn slot(&self, installed: &Arc<Installed>, name: &str) -> Arc<OnceCell<Bytes>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.installed.as_ref().is_some_and(|of| Arc::ptr_eq(of, installed)) {
            *state = State { installed: Some(installed.clone()), kept: HashMap::new() };
        }
        let used = Instant::now();
        if let Some(kept) = state.kept.get_mut(name) {
            kept.used = used;
            return kept.document.clone();
        }
        let document = Arc::new(OnceCell::new());
        state.kept.insert(name.to_owned(), Kept { document: document.clone(), used });
        drop(state);
        self.added.notify_one();
        document
    }

    /// Drops documents that were not used lately, for ever.
    pub async fn expire(&self) {
        loop {
            self.added.notified().await;
            while let Some(next) = self.drop_unused() {
                tokio::time::sleep_until(next).await;
            }
        }
    }

    /// When the next one may be dropped; `None` when there is none.
    fn drop_unused(&self) -> Option<Instant> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        state.kept.retain(|_, kept| kept.used + KEPT > now);
        let next = state.kept.values().map(|kept| kept.used + KEPT).min();
        if next.is_none() {
            *state = State::default();
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_document_is_made_once_and_dropped_when_unused() {
        let documents = Documents::default();
        let installed = Arc::new(Installed::default());
        let made = Cell::new(0);
        let get = |installed: Arc<Installed>| {
            let (documents, made) = (&documents, &made);
            async move {
                let make = || {
                    made.set(made.get() + 1);
                    Ok(Bytes::from_static(b"x"))
                };
                documents.get(&installed, "v2", make).await.expect("made");
            }
        };
        futures::join!(get(installed.clone()), get(installed.clone()));
        assert_eq!(made.get(), 1);
        get(Arc::new(Installed::default())).await;
        assert_eq!(made.get(), 2, "other definitions");
        let unused = KEPT + Duration::from_secs(1);
        assert!(tokio::time::timeout(unused, documents.expire()).await.is_err());
        get(installed).await;
        assert_eq!(made.get(), 3, "it was dropped");
    }
}
