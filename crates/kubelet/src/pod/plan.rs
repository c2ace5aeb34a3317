//! Decides what to do about a pod: API object, observed runtime state, memory and time in, actions
//! and the next time to look out. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::memory::{Busy, Memory, Slot, Volumes};
use super::observed::{Instance, Observed, State};
use super::resize::{self, Update};
use super::{replace, reset, terminate};
use crate::spec::{as_container, described, is_sidecar, spec_of};

/// Everything planning sees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    pub(crate) memory: &'a Memory,
    pub(crate) now: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    MountVolumes,
    TearDownVolumes,
    CreateSandbox {
        attempt: u32,
    },
    StopSandbox {
        id: String,
    },
    /// Forget what a newer one replaced.
    RemoveSandbox {
        id: String,
    },
    RemoveContainer {
        id: String,
    },
    Start {
        container: String,
        attempt: u32,
        sandbox: String,
    },
    /// Give up a start that is under way.
    Cancel {
        container: String,
    },
    Kill {
        container: String,
        id: String,
        grace: i64,
        message: String,
        /// Those that end first, if the grace period lasts that long.
        after: Vec<String>,
    },
    /// Give running containers and the pod's group their new values.
    Resize {
        sandbox: String,
        updates: Vec<Update>,
    },
    /// Remove all of these runs, in this order, to begin the pod anew.
    Reset {
        ids: Vec<String>,
    },
    /// Show that the container waits for its back-off.
    BackOff {
        container: String,
        message: String,
        until: Timestamp,
    },
    /// End the pod as failed.
    End {
        reason: &'static str,
        message: &'static str,
    },
    /// Remove the API's object for good.
    Delete,
    /// The API's object is gone and nothing runs: leave no trace.
    CleanUp,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// Look again then.
    pub(crate) wake: Option<Timestamp>,
}

impl Plan {
    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }

    pub(super) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }
}

/// Whether a container that ended with `exit_code` runs again.
pub(crate) fn restarts(spec: &PodSpec, container: &Container, exit_code: i32) -> bool {
    if reset::rule_restarts(container, exit_code) {
        return true;
    }
    let policy = container.restart_policy.as_deref().or(spec.restart_policy.as_deref());
    match policy {
        Some("Never") => false,
        Some("OnFailure") => exit_code != 0,
        _ => true,
    }
}

/// The whole plan.
pub(crate) fn plan(view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    prune(view, &mut plan);
    if terminate::is_ending(view) {
        terminate::plan(view, &mut plan);
        return plan;
    }
    if view.memory.held || deadline(view, &mut plan) {
        return plan;
    }
    volumes(view, &mut plan);
    if let Some(sandbox) = sandbox(view, &mut plan)
        && matches!(view.memory.volumes, Volumes::Mounted { .. })
    {
        match view.memory.restarting {
            true => reset::plan(view, &mut plan),
            false => {
                resize::plan(view, &sandbox, &mut plan);
                containers(view, &sandbox, &mut plan);
            }
        }
    }
    plan
}

/// Keeps one ended run of each container (its logs and last state), and the newest sandbox.
fn prune(view: &View<'_>, plan: &mut Plan) {
    if view.memory.gone {
        return;
    }
    let mut seen: Vec<(&str, u32)> = Vec::new();
    for c in &view.observed.containers {
        match seen.iter_mut().find(|(name, _)| *name == c.name) {
            Some((_, count)) => *count += 1,
            None => seen.push((&c.name, 1)),
        }
        let rank = seen.iter().find(|(name, _)| *name == c.name).map_or(0, |(_, count)| *count);
        if rank > 2 && c.state == State::Exited {
            plan.push(Action::RemoveContainer { id: c.id.clone() });
        }
    }
    for old in view.observed.sandboxes.iter().skip(1) {
        if !view.observed.containers.iter().any(|c| c.sandbox == old.id) {
            plan.push(Action::RemoveSandbox { id: old.id.clone() });
        }
    }
}

/// Ends a pod that was active for too long.
fn deadline(view: &View<'_>, plan: &mut Plan) -> bool {
    let status = view.pod.status.as_ref();
    let started = status.and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    let (Some(limit), Some(started)) = (spec_of(view.pod).active_deadline_seconds, started) else {
        return false;
    };
    let Ok(at) = started.checked_add(jiff::SignedDuration::from_secs(limit)) else { return false };
    if view.now < at {
        plan.wake_at(at);
        return false;
    }
    plan.push(Action::End {
        reason: "DeadlineExceeded",
        message: "Pod was active on the node longer than the specified deadline",
    });
    true
}

fn volumes(view: &View<'_>, plan: &mut Plan) {
    if view.memory.is_busy(&Slot::Volumes) {
        return;
    }
    match view.memory.volumes {
        Volumes::Unmounted | Volumes::TornDown => plan.push(Action::MountVolumes),
        Volumes::Failed { retry_at: at } | Volumes::Mounted { refresh_at: Some(at) } => {
            if at <= view.now {
                plan.push(Action::MountVolumes);
            } else {
                plan.wake_at(at);
            }
        }
        Volumes::Mounted { refresh_at: None } => {}
    }
}

/// The sandbox that is ready, or the steps towards one.
fn sandbox(view: &View<'_>, plan: &mut Plan) -> Option<String> {
    let found = view.observed.sandbox();
    if let Some(ready) = found.filter(|s| s.ready) {
        return Some(ready.id.clone());
    }
    // What still runs in a broken sandbox goes first.
    let mut left = false;
    for c in view.observed.running() {
        left = true;
        kill(view, plan, c, None, "Pod sandbox changed, it will be killed and re-created.".into());
    }
    if left || view.memory.is_busy(&Slot::Sandbox) {
        return None;
    }
    if let Some(at) = view.memory.sandbox_retry.filter(|at| *at > view.now) {
        plan.wake_at(at);
        return None;
    }
    plan.push(Action::CreateSandbox { attempt: found.map_or(0, |s| s.attempt + 1) });
    None
}

pub(super) fn kill(
    view: &View<'_>,
    plan: &mut Plan,
    instance: &Instance,
    grace: Option<i64>,
    message: String,
) {
    kill_after(view, plan, instance, grace, message, Vec::new());
}

/// Begins a kill, or hurries one that was begun with a longer grace period.
pub(super) fn kill_after(
    view: &View<'_>,
    plan: &mut Plan,
    instance: &Instance,
    grace: Option<i64>,
    message: String,
    after: Vec<String>,
) {
    let grace =
        grace.unwrap_or_else(|| spec_of(view.pod).termination_grace_period_seconds.unwrap_or(30));
    let slot = Slot::Container(instance.name.clone());
    match view.memory.busy.get(&slot) {
        Some(Busy::Killing { grace: begun }) if *begun <= grace => return,
        _ => {}
    }
    plan.push(Action::Kill {
        container: instance.name.clone(),
        id: instance.id.clone(),
        grace,
        message,
        after,
    });
}

fn containers(view: &View<'_>, sandbox: &str, plan: &mut Plan) {
    let spec = spec_of(view.pod);
    for ephemeral in spec.ephemeral_containers.iter().flatten() {
        if view.observed.latest(&ephemeral.name).is_none() {
            start(view, sandbox, &as_container(ephemeral), plan);
        }
    }
    let begun = spec.containers.iter().any(|c| {
        view.observed.latest(&c.name).is_some_and(|i| i.sandbox == sandbox && i.started_at > 0)
            || view.memory.is_starting(&c.name)
    });
    for init in spec.init_containers.iter().flatten() {
        if is_sidecar(init) {
            keep(view, sandbox, &spec, init, plan);
            if !begun && !is_started(view, init) {
                return;
            }
        } else if !begun && !init_done(view, sandbox, &spec, init, plan) {
            return;
        }
    }
    for container in &spec.containers {
        keep(view, sandbox, &spec, container, plan);
    }
}

/// Whether the container runs and its startup probe, if it has one, has succeeded.
pub(crate) fn is_started(view: &View<'_>, container: &Container) -> bool {
    let Some(instance) = view.observed.latest(&container.name) else { return false };
    if instance.state != State::Running || view.memory.is_starting(&container.name) {
        return false;
    }
    let memory = view.memory.containers.get(&container.name);
    let verdicts = memory.map(|m| &m.verdicts).filter(|v| v.instance == instance.id);
    container.startup_probe.is_none() || verdicts.and_then(|v| v.started) == Some(true)
}

/// Runs an init container to its success; `true` once it has succeeded.
fn init_done(
    view: &View<'_>,
    sandbox: &str,
    spec: &PodSpec,
    init: &Container,
    plan: &mut Plan,
) -> bool {
    let latest = view.observed.latest(&init.name).filter(|i| i.sandbox == sandbox);
    match latest {
        Some(i) if i.state == State::Exited && i.exit_code == 0 => return true,
        Some(i) if i.state == State::Running => {}
        Some(i) if i.state == State::Exited && !restarts(spec, init, i.exit_code) => {}
        _ => start(view, sandbox, init, plan),
    }
    false
}

/// Keeps a container as its restart policy says.
fn keep(view: &View<'_>, sandbox: &str, spec: &PodSpec, container: &Container, plan: &mut Plan) {
    let latest = view.observed.latest(&container.name);
    match latest {
        Some(i) if matches!(i.state, State::Running | State::Unknown) => {
            if view.memory.is_starting(&container.name) {
                return;
            }
            if let Some((grace, message)) = must_die(view, spec, container, i) {
                kill(view, plan, i, grace, message);
            } else if let Some(message) = resize::restart(view, container) {
                kill(view, plan, i, None, message);
            }
        }
        Some(i) if replace::stays_ended(view, spec, container, i) => {}
        _ => start(view, sandbox, container, plan),
    }
}

/// Why a running container must be killed, with the grace period that overrides the pod's.
fn must_die(
    view: &View<'_>,
    spec: &PodSpec,
    container: &Container,
    instance: &Instance,
) -> Option<(Option<i64>, String)> {
    let name = &container.name;
    let kind = if is_sidecar(container) { "Init container" } else { "Container" };
    let again = if restarts(spec, container, 137) { ", will be restarted" } else { "" };
    if replace::is_outdated(container, instance) {
        return Some((None, format!("{kind} {name} definition changed, will be restarted")));
    }
    let memory = view.memory.containers.get(name)?;
    let verdicts = Some(&memory.verdicts).filter(|v| v.instance == instance.id)?;
    let grace = |probe: &Option<k8s_openapi::api::core::v1::Probe>| {
        probe.as_ref().and_then(|p| p.termination_grace_period_seconds)
    };
    if verdicts.alive == Some(false) {
        let text = format!("{kind} {name} failed liveness probe{again}");
        return Some((grace(&container.liveness_probe), text));
    }
    if verdicts.started == Some(false) {
        let text = format!("{kind} {name} failed startup probe{again}");
        return Some((grace(&container.startup_probe), text));
    }
    None
}

/// Starts a container now, or when its back-off is over.
fn start(view: &View<'_>, sandbox: &str, container: &Container, plan: &mut Plan) {
    let name = &container.name;
    // The pod's group grows before what is started in it.
    let resizing = view.memory.is_busy(&Slot::Resize)
        || plan.actions.iter().any(|action| matches!(action, Action::Resize { .. }));
    if resizing || view.memory.is_busy(&Slot::Container(name.clone())) {
        return;
    }
    let memory = view.memory.containers.get(name);
    let waiting = memory.and_then(|m| m.waiting.as_ref());
    if let Some(at) = waiting.and_then(|w| w.retry_at).filter(|at| *at > view.now) {
        plan.wake_at(at);
        return;
    }
    let latest = view.observed.latest(name);
    let ended = latest.filter(|i| i.state != State::Running).and_then(ended_at);
    let until = memory.zip(ended).and_then(|(m, at)| m.crash.wait(at, view.now));
    if let Some(until) = until {
        let delay = memory.map(|m| m.crash.delay()).unwrap_or_default();
        let message = format!(
            "back-off {} restarting failed container={name} pod={}",
            go_duration(delay),
            described(view.pod)
        );
        plan.push(Action::BackOff { container: name.clone(), message, until });
        plan.wake_at(until);
        return;
    }
    plan.push(Action::Start {
        container: name.clone(),
        attempt: latest.map_or_else(|| first_attempt(view, name), |i| i.attempt + 1),
        sandbox: sandbox.to_owned(),
    });
}

/// The number of a run that follows none: 0, or one more than what was removed to begin anew.
fn first_attempt(view: &View<'_>, name: &str) -> u32 {
    if let Some(removed) = view.memory.containers.get(name).and_then(|m| m.removed) {
        return removed + 1;
    }
    // An earlier run of the agent has removed it.
    let status = view.pod.status.as_ref();
    let all = status.map(|s| s.container_statuses.iter().chain(&s.init_container_statuses));
    let found = all.into_iter().flatten().flatten().find(|s| s.name == name).filter(|s| {
        let waiting = s.state.as_ref().and_then(|s| s.waiting.as_ref());
        waiting.and_then(|w| w.reason.as_deref()) == Some(reset::REASON)
    });
    found.and_then(|s| u32::try_from(s.restart_count).ok()).unwrap_or(0)
}

/// When an instance ended; one that never started ended when it was made.
pub(crate) fn ended_at(instance: &Instance) -> Option<Timestamp> {
    let at = if instance.finished_at > 0 { instance.finished_at } else { instance.created_at };
    Timestamp::from_nanosecond(i128::from(at)).ok()
}

/// As Go prints it: `10s`, `2m40s`, `5m0s`.
pub(crate) fn go_duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}
