//! A node that is short of memory, disk or processes ends pods, one at a time, until it is not.
//!
//! `judge` says what the node is short of, `rank` which pod goes first; both are pure. Disk is first
//! freed of images that nobody uses.

mod judge;
mod rank;

use std::sync::atomic::Ordering;
use std::time::Duration;

use client::EventType;
use k8s_openapi::api::core::v1::Pod;
use runtime::cri::{PodSandboxStats, PodSandboxStatsFilter};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::EVICTED;
use super::images::Images;
use crate::admission;
use crate::kubelet::Shared;
use crate::node;
use crate::pod::Event;
use crate::spec::{labels, spec_of, uid_of};
use crate::volumes::OnDisk;
use judge::{Judge, Shortage, observe, thresholds};
use rank::{Candidate, Resource};

pub(crate) use judge::pressures;

/// Longest wait for the end of a pod before another one is ended (upstream's).
const CLEANUP_MAX: Duration = Duration::from_secs(30);
/// Seconds a pod has to end at a hard threshold (upstream's).
const HARD_GRACE: i64 = 1;

#[derive(Debug, Default)]
pub(super) struct Eviction {
    judge: Judge,
    /// The pod that was ended last, and since when it ends.
    last: Option<(oneshot::Receiver<()>, Instant)>,
}

impl Eviction {
    /// What new pods are refused for, from now on.
    pub(super) fn look(&mut self, shared: &Shared) {
        self.judge(shared);
    }

    /// The same; what pods are to be ended for.
    fn judge(&mut self, shared: &Shared) -> Vec<Shortage> {
        let config = &shared.config.eviction;
        let seen = observe(&node::machine(shared));
        let verdict =
            self.judge.look(&thresholds(config), &seen, config.transition, Instant::now());
        shared.set_pressure(verdict.pressures);
        verdict.shortages
    }

    pub(super) async fn check(&mut self, shared: &Shared, images: &mut Images) {
        if shared.config.capacity.is_some() {
            count_memory(shared).await;
        }
        let shortages = self.judge(shared);
        let Some(short) = shortages.into_iter().min_by_key(Shortage::order) else { return };
        if self.is_ending() {
            return;
        }
        let resource = Resource::of(short.signal);
        let text = format!("Attempting to reclaim {}", resource.name());
        let about = node::about(shared);
        shared.recorder.event(&about, EventType::Warning, "EvictionThresholdMet", text);
        if matches!(resource, Resource::Disk | Resource::Inodes) {
            images.free(shared, u64::MAX).await;
            let seen = observe(&node::machine(shared));
            if !judge::is_short(&thresholds(&shared.config.eviction), &seen) {
                return;
            }
        }
        self.evict(shared, &short).await;
    }

    /// Whether the last pod still ends, and may give back what the node is short of.
    fn is_ending(&mut self) -> bool {
        let Some((ended, since)) = &mut self.last else { return false };
        let ends = matches!(ended.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        let waits = ends && since.elapsed() < CLEANUP_MAX;
        if !waits {
            self.last = None;
        }
        waits
    }

    async fn evict(&mut self, shared: &Shared, short: &Shortage) {
        let filter = PodSandboxStatsFilter::default();
        let stats = match shared.runtime.list_pod_sandbox_stats(filter).await {
            Ok(stats) => stats,
            Err(error) => {
                return tracing::warn!(error = error.chain(), "short, but no statistics");
            }
        };
        let candidates = candidates(shared, Resource::of(short.signal), &stats).await;
        let Some(chosen) = rank::choose(candidates, Resource::of(short.signal)) else {
            return tracing::warn!(?short, "short of something, and no pod to end");
        };
        let grace = match short.is_soft {
            false => HARD_GRACE,
            true => shared.config.eviction.max_pod_grace_seconds.min(chosen.grace),
        };
        let message = rank::message(short, &chosen);
        let (sender, ended) = oneshot::channel();
        let event = Event::Evict {
            reason: EVICTED,
            disruption: Some(message.clone()),
            message,
            grace: Some(grace),
            announced: true,
            ended: Some(sender),
        };
        if shared.tell(&chosen.uid, event) {
            self.last = Some((ended, Instant::now()));
        }
    }
}

/// What the node's own pods use, where others use the machine, too.
async fn count_memory(shared: &Shared) {
    match shared.runtime.list_pod_sandbox_stats(PodSandboxStatsFilter::default()).await {
        Ok(stats) => {
            let used = stats.iter().filter_map(|s| s.linux.as_ref()?.memory.as_ref());
            let used = used.filter_map(|m| m.working_set_bytes.as_ref()).map(|v| v.value).sum();
            shared.pods_memory.store(used, Ordering::Relaxed);
        }
        Err(error) => tracing::warn!(error = error.chain(), "the pods' memory is not known"),
    }
}

/// The pods that may go: none that the node itself needs.
async fn candidates(
    shared: &Shared,
    resource: Resource,
    stats: &[PodSandboxStats],
) -> Vec<Candidate> {
    let (pods, statics) = (shared.pods.list(), shared.pods.static_uids());
    let mut found = Vec::new();
    for stats in stats {
        let uid = stats.attributes.as_ref().and_then(|a| a.labels.get(labels::POD_UID));
        let pod = pods.iter().find(|pod| Some(uid_of(pod)) == uid.map(String::as_str));
        let Some(pod) = pod.filter(|pod| !admission::is_critical(pod, &statics)) else { continue };
        let disk = match resource {
            Resource::Disk | Resource::Inodes => measure(shared, pod).await,
            Resource::Memory | Resource::Pids => OnDisk::default(),
        };
        found.push(rank::candidate(pod, stats, &disk, resource));
    }
    found
}

async fn measure(shared: &Shared, pod: &std::sync::Arc<Pod>) -> OnDisk {
    let (config, pod) = (shared.config.clone(), pod.clone());
    let walk = tokio::task::spawn_blocking(move || OnDisk::measure(&config, &pod));
    walk.await.unwrap_or_default()
}

/// The pod's own grace period.
fn grace(pod: &Pod) -> i64 {
    spec_of(pod).termination_grace_period_seconds.unwrap_or(30)
}
