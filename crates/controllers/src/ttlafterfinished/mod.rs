//! TTL after finished: deletes Jobs some time after they ended.
//!
//! Watches Jobs. Before a Job is deleted the server itself is asked, since its TTL may have changed.

mod plan;
#[cfg(test)]
mod tests;

use std::time::Duration;

use client::{Action, Client, DeleteParams, Error, Informer, Queue};
use k8s_openapi::api::batch::v1::Job;

use crate::Context;
use crate::harness::{Reconciler, enqueue};
use crate::meta::Key;

/// Jobs deleted at once (upstream's --concurrent-ttl-after-finished-syncs).
const WORKERS: usize = 5;

pub(crate) fn start(context: &Context) {
    let this = Expired { client: context.client.clone(), jobs: context.informers.of() };
    let queue = Queue::new();
    enqueue(&this.jobs, &queue);
    crate::harness::start(context, "ttl-after-finished-controller", WORKERS, queue, this);
}

#[derive(Clone)]
struct Expired {
    client: Client,
    jobs: Informer<Job>,
}

impl Reconciler for Expired {
    type Key = Key;

    async fn synced(&self) {
        self.jobs.synced().await;
    }

    async fn reconcile(&self, (space, name): Key) -> Result<Action, Error> {
        let Some(job) = self.jobs.get(&space, &name) else { return Ok(Action::Done) };
        match plan::left(&job, jiff::Timestamp::now()) {
            None => return Ok(Action::Done),
            Some(Duration::ZERO) => {}
            Some(left) => return Ok(Action::After(left)),
        }
        let job = match self.client.get::<Job>(&space, &name).await {
            Err(error) if error.is_not_found() => return Ok(Action::Done),
            other => other?,
        };
        match plan::left(&job, jiff::Timestamp::now()) {
            None => return Ok(Action::Done),
            Some(Duration::ZERO) => {}
            Some(left) => return Ok(Action::After(left)),
        }
        let params = DeleteParams {
            propagation: Some("Foreground"),
            uid: job.metadata.uid.clone(),
            ..DeleteParams::default()
        };
        match self.client.delete::<Job>(&space, &name, &params).await {
            Err(error) if error.is_not_found() => Ok(Action::Done),
            other => other.map(|()| Action::Done),
        }
    }
}
