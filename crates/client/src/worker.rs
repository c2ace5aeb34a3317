//! Workers: take a key, reconcile it, and queue it again as the outcome says.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::future::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::queue::Queue;

/// What to do with a key that was reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    Done,
    /// Look again after this time, whatever happens.
    After(Duration),
}

/// Runs `concurrency` workers until the queue is closed. A failed key is retried with its own
/// back-off; the reconciler gets nothing but the key, so that it must read the present state.
pub async fn run_workers<T, E, F, R>(name: &str, queue: Queue<T>, concurrency: usize, reconcile: F)
where
    T: Clone + Eq + Hash + Debug + Send + 'static,
    E: Display,
    F: Fn(T) -> R,
    R: Future<Output = Result<Action, E>>,
{
    queue.name(name);
    let workers: FuturesUnordered<_> =
        (0..concurrency).map(|_| run_worker(name, &queue, &reconcile)).collect();
    workers.collect::<()>().await;
}

async fn run_worker<T, E, F, R>(name: &str, queue: &Queue<T>, reconcile: &F)
where
    T: Clone + Eq + Hash + Debug,
    E: Display,
    F: Fn(T) -> R,
    R: Future<Output = Result<Action, E>>,
{
    while let Some(key) = queue.next().await {
        // A key whose reconcile panics is retried like one that fails: it ends neither its worker nor
        // the others.
        let reconciled = AssertUnwindSafe(async { reconcile(key.clone()).await }).catch_unwind();
        let reconciled = match reconciled.await {
            Ok(reconciled) => reconciled,
            Err(_) => {
                tracing::error!(controller = name, ?key, "reconcile panicked, will retry");
                queue.add_backoff(key.clone());
                queue.done(&key);
                continue;
            }
        };
        match reconciled {
            Ok(action) => {
                queue.forget(&key);
                if let Action::After(delay) = action {
                    queue.add_after(key.clone(), delay);
                }
            }
            Err(error) => {
                tracing::debug!(controller = name, ?key, %error, "reconcile failed, will retry");
                queue.add_backoff(key.clone());
            }
        }
        queue.done(&key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_that_panics_is_retried_and_others_go_on() {
        let queue = Queue::new();
        for key in ["bad", "good", "other"] {
            queue.add(key);
        }
        let (tries, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let reconcile = |key: &'static str| {
            let (tries, done, queue) = (&tries, &done, queue.clone());
            async move {
                assert!(key != "bad" || tries.fetch_add(1, Ordering::Relaxed) > 2, "on purpose");
                if done.fetch_add(1, Ordering::Relaxed) == 2 {
                    queue.close();
                }
                Ok::<_, String>(Action::Done)
            }
        };
        run_workers("test", queue.clone(), 1, reconcile).await;
        assert_eq!((tries.into_inner(), done.into_inner()), (4, 3));
    }
}
