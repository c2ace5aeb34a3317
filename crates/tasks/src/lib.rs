//! Named tasks with an owner and a cancel path: the only way to start background work.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks that ends together. Clones are the same group.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Tasks {
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// A group that is cancelled with this one, and can be cancelled alone.
    pub fn child(&self) -> Tasks {
        Tasks { tracker: self.tracker.clone(), cancel: self.cancel.child_token() }
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
