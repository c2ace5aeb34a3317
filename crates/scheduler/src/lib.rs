//! The scheduler: gives every pod without a node the best one there is.
//!
//! Informers keep a picture of the cluster ([`cluster`]) and of the pods that wait ([`queue`]).
//! One loop takes the most important pod, plans ([`plan`]: filters, then scores, else preemption),
//! counts the pod on its node at once and lets the binding run beside the next pod's plan. A pod
//! that fits nowhere is parked until something changes that its refusals depend on.
//!
//! Not done: dynamic resource claims, volume topology and per-node volume limits, several profiles.

mod cluster;
mod core;
mod filter;
mod interpod;
mod matching;
mod plan;
mod pod;
mod preempt;
mod queue;
mod report;
mod resources;
mod score;
mod spread;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::{Informer, Informers, Recorder, Tasks};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::core::{Core, node_of};
use crate::plan::Unfit;
use crate::pod::PodInfo;
use crate::report::Reporter;

/// Requests under way at once: enough to hide the store's fsync, few enough not to flood it.
const REQUESTS_MAX: usize = 256;

/// What can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Pods with this `spec.schedulerName` are ours; also the events' source.
    pub scheduler_name: String,
}

impl Default for Config {
    fn default() -> Config {
        Config { scheduler_name: "default-scheduler".into() }
    }
}

/// Starts scheduling; ends with `tasks`.
pub fn run(informers: &Informers, tasks: &Tasks, config: Config) {
    let client = informers.client().clone();
    let recorder = Recorder::new(client.clone(), tasks, &config.scheduler_name, "");
    let core = Core { scheduler_name: config.scheduler_name.clone(), ..Core::default() };
    let scheduler = Scheduler {
        core: Arc::new(Mutex::new(core)),
        wake: Arc::new(Notify::new()),
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
        reporter: Reporter { client, recorder, scheduler_name: config.scheduler_name },
        tasks: tasks.clone(),
        pods: informers.of(),
    };
    tasks.required("scheduler", scheduler.run(informers.clone()));
}

#[derive(Clone)]
struct Scheduler {
    core: Arc<Mutex<Core>>,
    wake: Arc<Notify>,
    requests: Arc<Semaphore>,
    reporter: Reporter,
    tasks: Tasks,
    pods: Informer<Pod>,
}

impl Scheduler {
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self, informers: Informers) {
        let (nodes, pods) = (informers.of::<Node>(), self.pods.clone());
        let namespaces = informers.of::<Namespace>();
        let this = self.clone();
        namespaces.on_change(move |change| this.lock().namespace_changed(change));
        let this = self.clone();
        nodes.on_change(move |change| {
            this.lock().node_changed(change, Instant::now());
            this.wake.notify_one();
        });
        let this = self.clone();
        pods.on_change(move |change| {
            this.lock().pod_changed(change, Instant::now());
            this.wake.notify_one();
        });
        // A half-known cluster would make for bad choices.
        namespaces.synced().await;
        nodes.synced().await;
        pods.synced().await;
        loop {
            match self.step() {
                Ok(()) => tokio::task::yield_now().await,
                Err(None) => self.wake.notified().await,
                Err(Some(due)) => {
                    drop(tokio::time::timeout_at(due, self.wake.notified()).await);
                }
            }
        }
    }

    /// Places one pod; the error says when there will be another.
    fn step(&self) -> Result<(), Option<Instant>> {
        let now = Instant::now();
        let mut core = self.lock();
        let core = &mut *core;
        let pod = core.queue.pop(now)?;
        match plan::choose(&mut core.cluster, &pod) {
            Ok(node) => {
                core.cluster.place(&node, pod.clone());
                core.queue.remove(pod.uid());
                self.tasks.spawn("bind", self.clone().bind(pod, node));
            }
            Err(unfit) => {
                if let Some(victims) = &unfit.victims {
                    core.cluster.nominate(&victims.node, pod.clone());
                }
                core.queue.park(pod.uid(), unfit.filters.clone(), now);
                self.tasks.spawn("report unschedulable", self.clone().report(pod, unfit));
            }
        }
        Ok(())
    }

    async fn bind(self, pod: Arc<PodInfo>, node: String) {
        let permit = self.requests.acquire().await;
        let outcome = self.reporter.bind(&pod, &node).await;
        drop(permit);
        let Err(error) = outcome else { return };
        tracing::debug!(pod = pod.name(), node, %error, "binding failed");
        let mut core = self.lock();
        if !self.waits_still(&pod) {
            // Gone, or bound after all: the informer told or will tell.
            return;
        }
        core.cluster.remove_pod(pod.uid());
        core.queue.retry(pod.clone(), Instant::now());
        drop(core);
        self.reporter.bind_failed(&pod, &error);
        self.wake.notify_one();
    }

    /// Whether the pod, as last seen, still wants a node.
    fn waits_still(&self, pod: &PodInfo) -> bool {
        let seen = self.pods.get(pod.namespace(), pod.name());
        seen.is_some_and(|p| {
            p.metadata.uid == pod.pod.metadata.uid
                && p.metadata.deletion_timestamp.is_none()
                && node_of(&p).is_none()
        })
    }

    async fn report(self, pod: Arc<PodInfo>, unfit: Unfit) {
        let permit = self.requests.acquire().await;
        if let Err(error) = self.reporter.unfit(&pod, &unfit).await {
            tracing::debug!(pod = pod.name(), %error, "refusal not written");
        }
        drop(permit);
    }
}
