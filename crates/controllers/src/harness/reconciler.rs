//! A controller's loop: keys in, one reconcile at a time for each key.

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;

use client::{Action, Error, Queue, run_workers};

use crate::Context;

/// Brings the state behind a key to what its spec asks for. It gets nothing but the key, so that it must
/// read the present state.
pub(crate) trait Reconciler: Clone + Send + Sync + 'static {
    type Key: Clone + Eq + Hash + Debug + Send + Sync + 'static;

    /// Resolves when every informer that `reconcile` reads has its first snapshot.
    fn synced(&self) -> impl Future<Output = ()> + Send;

    fn reconcile(&self, key: Self::Key) -> impl Future<Output = Result<Action, Error>> + Send;
}

/// Runs `reconciler` with `workers` keys at once until the context's tasks end.
pub(crate) fn start<R: Reconciler>(
    context: &Context,
    name: &'static str,
    workers: usize,
    queue: Queue<R::Key>,
    reconciler: R,
) {
    context.tasks.required(name, async move {
        reconciler.synced().await;
        let work = move |key: R::Key| {
            let reconciler = reconciler.clone();
            async move { reconciler.reconcile(key).await }
        };
        run_workers(name, queue, workers, work).await;
    });
}
