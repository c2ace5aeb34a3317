//! Named tasks with an owner, a cancel path, and a rule for their end: the only way to start background
//! work.
//!
//! A one-off task ([`Tasks::spawn`]) may end; its panic is logged and ends that task only. An essential
//! task ([`Tasks::essential`]) must not end: it is started again with back-off, and health is red until
//! it has run for a while. A required task ([`Tasks::required`]) must not end either and has no second start:
//! health stays red.

mod backoff;
mod health;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use backoff::Backoff;
pub use health::Health;

/// Pauses before an essential task is started again: short, because a cluster waits for it; growing,
/// because a task that fails at once would use up the machine.
const RESTART_FIRST: Duration = Duration::from_secs(1);
const RESTART_MOST: Duration = Duration::from_secs(60);
/// A task that ran for so long counts as healthy, and its next pause is the first one again.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// A group of tasks that ends together. Clones are the same group.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
    health: Health,
    next: Arc<AtomicU64>,
}

impl Tasks {
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// A group that is cancelled with this one, and can be cancelled alone.
    pub fn child(&self) -> Tasks {
        Tasks { cancel: self.cancel.child_token(), ..self.clone() }
    }

    /// A child whose health is told apart: what fails there does not fail here.
    pub fn part(&self) -> Tasks {
        Tasks { health: Health::default(), ..self.child() }
    }

    /// Runs `work` until it ends or the group is cancelled (then it is dropped at its next await).
    /// A panic is logged with the task's name and ends that task only.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        let watched = tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = work => {}
            }
        });
        self.tracker.spawn(async move {
            if let Err(error) = watched.await {
                tracing::error!(task = name, %error, "task failed");
            }
        });
    }

    /// Runs what `start` gives until the group is cancelled: work that ends or panics is started again
    /// with back-off, and [`Tasks::health`] names it until it has run for a while.
    pub fn essential<W>(&self, name: &'static str, start: impl Fn() -> W + Send + 'static)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let (cancel, health) = (self.cancel.clone(), self.health.clone());
        let task = self.next.fetch_add(1, Ordering::Relaxed);
        self.tracker.spawn(async move {
            let mut backoff = Backoff::new(RESTART_FIRST, RESTART_MOST);
            loop {
                let begun = Instant::now();
                // In a task of its own, so that a panic is caught.
                let mut running = tokio::spawn(cancel.clone().run_until_cancelled_owned(start()));
                let ended = tokio::select! {
                    ended = &mut running => ended,
                    () = tokio::time::sleep(HEALTHY_AFTER) => {
                        health.recovered(task);
                        running.await
                    }
                };
                if cancel.is_cancelled() {
                    return health.recovered(task);
                }
                if begun.elapsed() >= HEALTHY_AFTER {
                    backoff.reset();
                }
                let pause = backoff.pause();
                match ended {
                    Err(error) => tracing::error!(task = name, %error, ?pause, "restarting"),
                    Ok(_) => tracing::error!(task = name, ?pause, "ended; restarting"),
                }
                health.failed(task, name);
                if cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return health.recovered(task);
                }
            }
        });
    }

    /// Runs `work`, which must not end before the group is cancelled and cannot be started again: if it
    /// ends or panics, that is logged and [`Tasks::health`] names it from then on.
    pub fn required(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let (cancel, health) = (self.cancel.clone(), self.health.clone());
        let task = self.next.fetch_add(1, Ordering::Relaxed);
        self.tracker.spawn(async move {
            let ended = tokio::spawn(cancel.clone().run_until_cancelled_owned(work)).await;
            if cancel.is_cancelled() {
                return;
            }
            match ended {
                Err(error) => tracing::error!(task = name, %error, "required task failed"),
                Ok(_) => tracing::error!(task = name, "required task ended"),
            }
            health.failed(task, name);
        });
    }

    /// The health of the essential and required tasks of this group and all that belong to it.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Resolves when the group is cancelled, for work that wants to end in order.
    pub fn cancelled(&self) -> impl Future<Output = ()> + use<> {
        self.cancel.clone().cancelled_owned()
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Cancels every task of the group, without waiting.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Cancels and waits until every task has ended.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests;
