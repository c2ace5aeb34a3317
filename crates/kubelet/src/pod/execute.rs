//! Carries out planned actions, each as an operation that ends with an outcome for the actor.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::{DeleteParams, EventType, Patch};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use runtime::cri::{PodSandboxConfig, RunPodSandboxRequest, UserNamespace};
use serde_json::Value;
use tokio::sync::watch;

use super::actor::Actor;
use super::actuate;
use super::memory::{Busy, Slot};
use super::plan::Action;
use super::start::{Failure, Start, make_log_dir, pod_reference, reference};
use crate::beneath::{Access, Dir};
use crate::kubelet::Shared;
use crate::node::cgroups;
use crate::spec::downward::Addresses;
use crate::spec::{
    ConfigError, described, dns, find_container, hosts, is_host_network, name_of, namespace_of,
    sandbox, uid_of,
};
use crate::{runtime_class, userns, volumes};

/// The container's share of the grace period that its hook may not take.
const STOP_MIN_SECONDS: i64 = 2;
const HOSTS_MODE: u32 = 0o644;
/// Wait before a pod's directory that could not be removed is looked at again.
const REMOVE_RETRY: Duration = Duration::from_secs(10);

/// How an operation ended.
pub(super) enum Outcome {
    Done,
    Sandbox(bool),
    Mounted(Result<Option<Timestamp>, ()>),
    TornDown(bool),
    Started(String, Result<String, Failure>),
    Status(Result<(Arc<Pod>, Box<PodStatus>), ()>),
    Deleted(bool),
    CleanedUp,
    Resized(Box<actuate::Done>),
}

pub(super) fn launch(actor: &mut Actor, action: Action) {
    let (shared, pod) = (actor.shared.clone(), actor.pod.clone());
    match action {
        Action::MountVolumes => {
            let (user, tokens) = (actor.user.clone(), actor.tokens.clone());
            let op = async move { mount(&shared, &pod, &user, &tokens).await };
            actor.launch(Slot::Volumes, Busy::Other, Box::pin(op));
        }
        Action::TearDownVolumes => {
            let op = async move {
                // The devices of a pod are taken back before its end is told.
                if let Err(error) = shared.dra.unprepare(uid_of(&pod)).await {
                    tracing::warn!(error, pod = described(&pod), "claims not unprepared");
                    return Outcome::TornDown(false);
                }
                let done = volumes::tear_down(&shared, uid_of(&pod)).await;
                shared.objects.release(uid_of(&pod));
                if let Err(error) = &done {
                    tracing::warn!(%error, pod = described(&pod), "volumes not removed");
                }
                Outcome::TornDown(done.is_ok())
            };
            actor.launch(Slot::Volumes, Busy::Other, Box::pin(op));
        }
        Action::CreateSandbox { attempt } => {
            let op = async move { Outcome::Sandbox(create_sandbox(&shared, &pod, attempt).await) };
            actor.launch(Slot::Sandbox, Busy::Other, Box::pin(op));
        }
        Action::StopSandbox { id } => {
            let op = async move {
                if let Err(error) = shared.runtime.stop_pod_sandbox(&id).await {
                    let text = format!("error killing pod: {}", error.chain());
                    shared.recorder.event(
                        &pod_reference(&pod),
                        EventType::Warning,
                        "FailedKillPod",
                        text,
                    );
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Outcome::Done
            };
            actor.launch(Slot::Sandbox, Busy::Other, Box::pin(op));
        }
        Action::RemoveSandbox { id } if !actor.memory.is_busy(&Slot::Sandbox) => {
            let op = async move {
                log(shared.runtime.remove_pod_sandbox(&id).await, "old sandbox not removed");
                Outcome::Done
            };
            actor.launch(Slot::Sandbox, Busy::Other, Box::pin(op));
        }
        Action::RemoveContainer { id } if !actor.memory.is_busy(&Slot::Cleanup) => {
            let op = async move {
                log(shared.runtime.remove_container(&id).await, "old container not removed");
                Outcome::Done
            };
            actor.launch(Slot::Cleanup, Busy::Other, Box::pin(op));
        }
        Action::Start { container, attempt, sandbox } => start(actor, container, attempt, sandbox),
        Action::Kill { container, id, grace, message, after } => {
            let ip = actor.memory.ips.first().cloned().unwrap_or_default();
            let slot = Slot::Container(container.clone());
            let turn = Turn { after, running: actor.running_names() };
            let kill = Kill { shared, pod, name: container, id, ip, grace, turn };
            let op = kill.run(message);
            actor.launch(slot, Busy::Killing { grace }, Box::pin(op));
        }
        Action::Reset { ids } if !actor.memory.is_busy(&Slot::Cleanup) => {
            let op = async move {
                for id in ids {
                    let removed = shared.runtime.remove_container(&id).await;
                    if removed.is_err() {
                        log(removed, "container not removed to begin its pod anew");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        break;
                    }
                }
                Outcome::Done
            };
            actor.launch(Slot::Cleanup, Busy::Other, Box::pin(op));
        }
        Action::Resize { sandbox, updates } => {
            let has = actor.memory.resize.pod.unwrap_or_default();
            let actuation = actuate::Actuation { shared, pod, sandbox, updates, has };
            let op = async move { Outcome::Resized(Box::new(actuation.run().await)) };
            actor.launch(Slot::Resize, Busy::Other, Box::pin(op));
        }
        Action::Delete => {
            let op = async move { Outcome::Deleted(delete(&shared, &pod).await) };
            actor.launch(Slot::Delete, Busy::Other, Box::pin(op));
        }
        Action::CleanUp => {
            let sandboxes: Vec<String> =
                actor.observed.sandboxes.iter().map(|s| s.id.clone()).collect();
            let op = async move { clean_up(&shared, &pod, sandboxes).await };
            actor.launch(Slot::Cleanup, Busy::Other, Box::pin(op));
        }
        Action::RemoveSandbox { .. } | Action::RemoveContainer { .. } | Action::Reset { .. } => {}
        Action::BackOff { .. } | Action::Cancel { .. } | Action::End { .. } => {
            unreachable!("the actor does these itself")
        }
    }
}

fn log(result: runtime::Result<()>, what: &str) {
    if let Err(error) = result {
        tracing::warn!(error = error.chain(), "{what}");
    }
}

async fn mount(
    shared: &Arc<Shared>,
    pod: &Pod,
    user: &crate::objects::User,
    tokens: &volumes::Tokens,
) -> Outcome {
    Outcome::Mounted(match volumes::mount(shared, pod, user, tokens).await {
        Ok(refresh_at) => Ok(refresh_at),
        Err(failures) => {
            for failure in failures {
                let about = pod_reference(pod);
                let (reason, text) = (failure.reason, failure.message);
                shared.recorder.event(&about, EventType::Warning, reason, text);
            }
            Err(())
        }
    })
}

pub(super) fn sandbox_config(
    shared: &Shared,
    pod: &Pod,
    attempt: u32,
    users: UserNamespace,
) -> Result<PodSandboxConfig, ConfigError> {
    let config = &shared.config;
    let text = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    let cluster = dns::Cluster { servers: &config.cluster_dns, domain: &config.cluster_domain };
    let name = format!("{}_{}_{}", namespace_of(pod), name_of(pod), uid_of(pod));
    sandbox::config(sandbox::Inputs {
        pod,
        attempt,
        dns: dns::pod_dns(pod, &cluster, dns::parse(&text)),
        cluster_domain: &config.cluster_domain,
        log_directory: config.log_dir.join(name).to_string_lossy().into_owned(),
        cgroup_root: &config.cgroup_root,
        pids_max: config.pod_pids_max,
        users,
    })
}

async fn create_sandbox(shared: &Arc<Shared>, pod: &Pod, attempt: u32) -> bool {
    let fail = |text: String| {
        let text = format!("Failed to create pod sandbox: {text}");
        let about = pod_reference(pod);
        shared.recorder.event(&about, EventType::Warning, "FailedCreatePodSandBox", text);
        false
    };
    if let Err(error) = shared.dra.prepare(pod).await {
        let text = format!("Failed to prepare dynamic resources: {error}");
        let about = pod_reference(pod);
        shared.recorder.event(&about, EventType::Warning, "FailedPrepareDynamicResources", text);
        return false;
    }
    let runtime_handler = match runtime_class::handler(shared, pod).await {
        Ok(handler) => handler,
        Err(error) => return fail(error),
    };
    let users = match userns::of(shared, pod, &runtime_handler).await {
        Ok(users) => users,
        Err(error) => return fail(error),
    };
    let mut config = match sandbox_config(shared, pod, attempt, users) {
        Ok(config) => config,
        Err(error) => return fail(error.0),
    };
    shared.places.lift_quota(pod, &mut config).await;
    if let Err(error) = make_log_dir(shared, Path::new(&config.log_directory)) {
        return fail(format!("create pod log directory {}: {error}", config.log_directory));
    }
    if let Err(error) = cgroups::pods::make(shared, config.linux.as_ref()).await {
        return fail(error);
    }
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler };
    let id = match shared.runtime.run_pod_sandbox(request).await {
        Ok(id) => id,
        Err(error) => return fail(error.chain()),
    };
    let status = shared.runtime.pod_sandbox_status(&id, false).await;
    let network = status.ok().and_then(|s| s.status).and_then(|s| s.network).unwrap_or_default();
    let more = network.additional_ips.into_iter().map(|ip| ip.ip);
    let ips: Vec<String> =
        std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect();
    let text = match is_host_network(pod) {
        true => {
            let own = std::fs::read_to_string(&shared.config.hosts_file).unwrap_or_default();
            hosts::host_network(pod, &own)
        }
        false => hosts::managed(pod, &ips, &shared.config.cluster_domain),
    };
    let written = volumes::make_pod_dir(&shared.config.root_dir, uid_of(pod))
        .and_then(|dir| dir.replace("etc-hosts", text.as_bytes(), Access::mode(HOSTS_MODE)));
    match written {
        Ok(()) => true,
        Err(error) => fail(format!("write etc-hosts: {error}")),
    }
}

fn start(actor: &mut Actor, container: String, attempt: u32, sandbox: String) {
    let now = Timestamp::now();
    let (shared, pod) = (actor.shared.clone(), actor.pod.clone());
    let host: Vec<String> = shared.config.node_ips.iter().map(ToString::to_string).collect();
    let own = match is_host_network(&pod) {
        true => host.clone(),
        false => actor.memory.ips.clone(),
    };
    let pulls = actor.memory.pulls.iter();
    let backing_off = pulls
        .filter(|(_, pull)| pull.backoff.wait_since_update(now).is_some())
        .map(|(image, pull)| (image.clone(), pull.error.clone()))
        .collect();
    let users = shared.userns.recorded(&pod).unwrap_or_default();
    let config = sandbox_config(&shared, &pod, 0, users).unwrap_or_default();
    let target = actor.target_of(&container);
    let handler = actor.observed.sandbox().map(|s| s.handler.clone()).unwrap_or_default();
    let start = Start {
        shared,
        pod,
        user: actor.user.clone(),
        container: container.clone(),
        attempt,
        sandbox,
        sandbox_config: config,
        handler,
        addresses: Addresses { pod: own, host },
        backing_off,
        target,
    };
    let slot = Slot::Container(container.clone());
    let op = async move { Outcome::Started(container, start.run().await) };
    actor.launch(slot, Busy::Starting, Box::pin(op));
}

/// When a container may be told to end: once the others are no longer running.
struct Turn {
    after: Vec<String>,
    running: watch::Receiver<BTreeSet<String>>,
}

impl Turn {
    async fn wait(&mut self) {
        let after = &self.after;
        // The pod's actor is gone: nobody is waited for.
        let _ended =
            self.running.wait_for(|running| !after.iter().any(|name| running.contains(name))).await;
    }
}

/// The end of one container: hook, turn, signal, all within one grace period.
struct Kill {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    name: String,
    id: String,
    ip: String,
    grace: i64,
    turn: Turn,
}

impl Kill {
    async fn run(mut self, message: String) -> Outcome {
        let about = reference(&self.pod, &self.name);
        self.shared.recorder.event(&about, EventType::Normal, "Killing", message);
        let begun = tokio::time::Instant::now();
        let limit = Duration::from_secs(u64::try_from(self.grace).unwrap_or(0));
        if !limit.is_zero() {
            self.pre_stop(limit).await;
            let _late = tokio::time::timeout_at(begun + limit, self.turn.wait()).await;
        }
        let used = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
        let left = self.grace.saturating_sub(used).max(STOP_MIN_SECONDS);
        log(self.shared.runtime.stop_container(&self.id, left).await, "container not stopped");
        Outcome::Done
    }

    async fn pre_stop(&self, limit: Duration) {
        let Some(container) = find_container(&self.pod, &self.name) else { return };
        let hook = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
        let Some(handler) = hook else { return };
        let Kill { shared, pod, id, ip, .. } = self;
        let run = crate::hooks::run(shared, pod, &container, id, ip, handler, limit);
        let Ok(Err(error)) = tokio::time::timeout(limit, run).await else { return };
        tracing::debug!(error, pod = described(pod), "preStop hook failed");
        let about = reference(pod, &self.name);
        let (reason, text) = ("FailedPreStopHook", "PreStopHook failed");
        shared.recorder.event(&about, EventType::Warning, reason, text);
    }
}

pub(super) async fn write_status(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    patch: Value,
    new: PodStatus,
) -> Outcome {
    let patch = Patch::Strategic(patch);
    let answer = shared.client.patch_status::<Pod>(namespace_of(&pod), name_of(&pod), &patch).await;
    Outcome::Status(match answer {
        Ok(pod) => Ok((Arc::new(pod), Box::new(new))),
        // It is gone, or another one has its name: the informer will say so.
        Err(e) if e.is_not_found() || e.is_conflict() => Err(()),
        Err(error) => {
            tracing::warn!(pod = described(&pod), %error, "status not written");
            Err(())
        }
    })
}

async fn delete(shared: &Shared, pod: &Pod) -> bool {
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        uid: Some(uid_of(pod).to_owned()),
        ..DeleteParams::default()
    };
    match shared.client.delete::<Pod>(namespace_of(pod), name_of(pod), &params).await {
        Ok(()) => true,
        Err(e) if e.is_not_found() || e.is_conflict() => true,
        Err(error) => {
            tracing::warn!(pod = described(pod), %error, "pod object not deleted");
            false
        }
    }
}

async fn clean_up(shared: &Arc<Shared>, pod: &Pod, sandboxes: Vec<String>) -> Outcome {
    for id in sandboxes {
        if let Err(error) = shared.runtime.remove_pod_sandbox(&id).await {
            tracing::warn!(error = error.chain(), "sandbox not removed");
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Outcome::Done;
        }
    }
    if let Err(error) = cgroups::pods::remove(shared, pod).await {
        tracing::warn!(error, pod = described(pod), "pod cgroup not removed, will retry");
        tokio::time::sleep(REMOVE_RETRY).await;
        return Outcome::Done;
    }
    let logs = format!("{}_{}_{}", namespace_of(pod), name_of(pod), uid_of(pod));
    let mut removed = volumes::remove_pod_dir(shared, uid_of(pod)).await;
    if removed.is_ok() {
        shared.userns.release(uid_of(pod));
        removed = remove_logs(shared, logs).await;
    }
    match removed {
        Ok(()) => Outcome::CleanedUp,
        Err(error) => {
            tracing::warn!(%error, pod = described(pod), "pod directory not removed, will retry");
            tokio::time::sleep(REMOVE_RETRY).await;
            Outcome::Done
        }
    }
}

async fn remove_logs(shared: &Shared, name: String) -> io::Result<()> {
    let top = shared.config.log_dir.clone();
    let work = move || match Dir::root(&top) {
        Ok(dir) => dir.remove(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
