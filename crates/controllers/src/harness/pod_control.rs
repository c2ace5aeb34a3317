//! Pod control: creates and deletes pods for an owner, tells of both by events, and notes both as
//! expectations.

use std::future::Future;

use client::{Client, DeleteParams, Error, EventType, Informer, Recorder, Resource};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;

use super::expectations::Expectations;
use crate::meta::{Key, name, reference, uid};

/// The cause of a refusal in a namespace that ends: the owner ends with it.
const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";

#[derive(Debug, Clone)]
pub(crate) struct PodControl {
    client: Client,
    recorder: Recorder,
    pub(crate) expectations: Expectations<Pod>,
}

impl PodControl {
    pub(crate) fn new(client: Client, recorder: Recorder, pods: Informer<Pod>) -> PodControl {
        PodControl { client, recorder, expectations: Expectations::new(pods) }
    }

    /// Creates one pod in the key's namespace.
    pub(crate) async fn create<O: Resource>(
        &self,
        owner: &O,
        key: &Key,
        pod: &Pod,
    ) -> Result<(), Error> {
        match self.client.create(&key.0, pod).await {
            Ok(made) => {
                self.expectations.expect_creation(key, &made);
                let message = format!("Created pod: {}", name(&made.metadata));
                self.event(owner, EventType::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            // All creations there fail from now on, and the owner goes with the namespace.
            Err(error) if namespace_ends(&error) => Ok(()),
            Err(error) => {
                let message = format!("Error creating: {error}");
                self.event(owner, EventType::Warning, "FailedCreate", message);
                Err(error)
            }
        }
    }

    /// Creates the pods in batches of 1, 2, 4, …: when creating fails, it fails for few. How many
    /// were created, and why it stopped.
    pub(crate) async fn create_all<O: Resource>(
        &self,
        owner: &O,
        key: &Key,
        pods: &[Pod],
    ) -> (usize, Result<(), Error>) {
        slow_start(pods, |pod| self.create(owner, key, pod)).await
    }

    /// Deletes the pod; one that is gone already counts as deleted.
    pub(crate) async fn delete<O: Resource>(
        &self,
        owner: &O,
        key: &Key,
        pod: &Pod,
    ) -> Result<(), Error> {
        let name = name(&pod.metadata);
        self.expectations.expect_deletion(key, pod);
        let uid = Some(uid(&pod.metadata).to_owned());
        let params = DeleteParams { uid, ..DeleteParams::default() };
        match self.client.delete::<Pod>(&key.0, name, &params).await {
            Ok(()) => {
                let message = format!("Deleted pod: {name}");
                self.event(owner, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            // Gone, or another pod has its name by now.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                self.expectations.abandon_deletion(key, pod);
                let message = format!("Error deleting: {error}");
                self.event(owner, EventType::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }

    fn event<O: Resource>(&self, owner: &O, kind: EventType, reason: &str, message: String) {
        self.recorder.event(&reference(owner), kind, reason, message);
    }
}

/// Runs `work` for batches of 1, 2, 4, … items, and stops after the first batch with a failure. How many
/// succeeded, and the first failure.
pub(crate) async fn slow_start<'a, T, F>(
    items: &'a [T],
    work: impl Fn(&'a T) -> F,
) -> (usize, Result<(), Error>)
where
    F: Future<Output = Result<(), Error>>,
{
    let (mut done, mut rest, mut batch) = (0, items, 1);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(batch.min(rest.len()));
        let outcomes = join_all(now.iter().map(&work)).await;
        done += outcomes.iter().filter(|o| o.is_ok()).count();
        if let Some(failure) = outcomes.into_iter().find(Result::is_err) {
            return (done, failure);
        }
        (rest, batch) = (later, batch * 2);
    }
    (done, Ok(()))
}

/// Whether the namespace that something was to be created in ends.
fn namespace_ends(error: &Error) -> bool {
    let details = error.status().and_then(|status| status.details.as_ref());
    details.is_some_and(|d| d.causes.iter().any(|c| c.reason == NAMESPACE_TERMINATING))
}
