//! Workers: take a key, reconcile it, and queue it again as the outcome says.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

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
    T: Clone + Eq + Hash + Debug,
    E: Display,
    F: Fn(T) -> R,
    R: Future<Output = Result<Action, E>>,
{
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
        match reconcile(key.clone()).await {
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
