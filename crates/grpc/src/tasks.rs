//! Background tasks of a connection: named, owned by a group, and ended with it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::FutureExt as _;
use tokio::task::JoinSet;

/// A group of tasks. Whoever drops it, or shuts it down, ends them all.
#[derive(Debug, Default)]
pub struct Tasks(Arc<Mutex<JoinSet<()>>>);

/// Adds to a group without keeping it alive: what a task of the group may hold itself.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    name: &'static str,
    group: Weak<Mutex<JoinSet<()>>>,
}

impl Tasks {
    /// Runs `work` until it ends or the group does. A panic is logged and ends that task only.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.spawner(name).spawn(work);
    }

    pub(crate) fn spawner(&self, name: &'static str) -> Spawner {
        Spawner { name, group: Arc::downgrade(&self.0) }
    }

    /// Ends all tasks and waits until they have ended.
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

impl Spawner {
    /// As [`Tasks::spawn`]; dropped unrun when the group is gone.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Some(group) = self.group.upgrade() else { return };
        let name = self.name;
        let watched = AssertUnwindSafe(work).catch_unwind().map(move |ended| {
            if ended.is_err() {
                tracing::error!(task = name, "task failed");
            }
        });
        let mut tasks = group.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended would be kept for somebody who joins them.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(watched);
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, work: F) {
        self.spawn(work);
    }
}

#[cfg(test)]
mod tests {
    use super::Tasks;

    #[tokio::test]
    async fn tasks_end_with_their_group() {
        let (held, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        let tasks = Tasks::default();
        let kept = held.clone();
        tasks.spawn("waits", async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        let spawner = tasks.spawner("late");
        drop(tasks);
        spawner.spawn(async move {
            let _held = held;
            unreachable!("its group is gone");
        });
        assert_eq!(ended.recv().await, None, "nobody holds the sender any more");
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_only() {
        let tasks = Tasks::default();
        let (done, told) = tokio::sync::oneshot::channel();
        tasks.spawn("fails", async { panic!("on purpose") });
        tasks.spawn("goes on", async move { done.send(()).unwrap_or_default() });
        told.await.expect("the other one ran");
        tasks.shutdown().await;
    }
}
