//! The statuses of containers: state, last state, readiness.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, LinuxContainerUser, PodStatus,
    VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::seconds;
use crate::pod::observed::{Instance, State};
use crate::pod::plan::{View, is_started};
use crate::pod::{replace, reset, resize};
use crate::spec::{is_sidecar, spec_of};

/// Most bytes of termination messages in one pod's status; each container has its share.
const MESSAGES_MAX: usize = 12 << 10;

/// Cuts every message to the container's share.
pub(super) fn share_messages(status: &mut PodStatus) {
    let lists = [
        &mut status.container_statuses,
        &mut status.init_container_statuses,
        &mut status.ephemeral_container_statuses,
    ];
    let count: usize = lists.iter().map(|l| l.as_ref().map_or(0, Vec::len)).sum();
    let share = MESSAGES_MAX / count.max(1);
    for container in lists.into_iter().flatten().flatten() {
        for state in [&mut container.state, &mut container.last_state].into_iter().flatten() {
            let message = state.terminated.as_mut().and_then(|t| t.message.as_mut());
            if let Some(message) = message.filter(|m| m.len() > share) {
                message.truncate(message.floor_char_boundary(share));
            }
        }
    }
}

fn time(nanos: i64) -> Option<Time> {
    let at = Timestamp::from_nanosecond(i128::from(nanos)).ok().filter(|_| nanos > 0);
    // Upstream's zero time reads as the epoch.
    Some(seconds(at.unwrap_or(Timestamp::UNIX_EPOCH)))
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let text = |t: &str| Some(t.to_owned()).filter(|t| !t.is_empty());
    let state = ContainerStateWaiting { reason: text(reason), message: text(message) };
    ContainerState { waiting: Some(state), ..ContainerState::default() }
}

/// The CRI's container id with its runtime.
fn full_id(view: &View<'_>, id: &str) -> String {
    format!("{}://{id}", view.memory.runtime_name)
}

/// `default` is the reason of a container that waits for nothing in particular.
fn state(view: &View<'_>, i: &Instance, default: &str) -> ContainerState {
    match i.state {
        State::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(i.started_at) }),
            ..ContainerState::default()
        },
        State::Exited => ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: Some(full_id(view, &i.id)),
                exit_code: i.exit_code,
                reason: Some(reason(i)),
                message: Some(i.message.clone()).filter(|m| !m.is_empty()),
                started_at: time(i.started_at),
                finished_at: time(i.finished_at),
                signal: None,
            }),
            ..ContainerState::default()
        },
        // About to be started.
        State::Created => waiting(default, ""),
        State::Unknown => waiting("", ""),
    }
}

fn reason(i: &Instance) -> String {
    match (i.reason.as_str(), i.exit_code) {
        ("", 0) => "Completed".into(),
        ("", _) => "Error".into(),
        (reason, _) => reason.into(),
    }
}

pub(super) fn statuses(
    view: &View<'_>,
    containers: &[Container],
    old: &[ContainerStatus],
    initializing: bool,
    is_init: bool,
) -> Vec<ContainerStatus> {
    let one = |c: &Container| {
        let old = old.iter().find(|s| s.name == c.name);
        status(view, c, old, initializing, is_init)
    };
    let mut all: Vec<_> = containers.iter().map(one).collect();
    if !is_init {
        all.sort_by(|a, b| a.name.cmp(&b.name));
    }
    all
}

fn status(
    view: &View<'_>,
    c: &Container,
    old: Option<&ContainerStatus>,
    initializing: bool,
    is_init: bool,
) -> ContainerStatus {
    let default = if initializing { "PodInitializing" } else { "ContainerCreating" };
    let mut s = ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone().unwrap_or_default(),
        state: Some(waiting(default, "")),
        last_state: Some(ContainerState::default()),
        started: Some(false),
        volume_mounts: mounts(c),
        ..ContainerStatus::default()
    };
    if let Some(old) = old {
        if old.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
            s = old.clone();
        }
        s.restart_count = old.restart_count;
        s.last_state = old.last_state.clone();
    }
    // While a hook runs after the start, the container is not shown as running.
    let hook = c.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
    let starting = view.memory.is_starting(&c.name);
    let hidden = |i: &&Instance| starting && i.state == State::Running && hook;
    let latest = view.observed.latest(&c.name).filter(|i| !hidden(i));
    let memory = view.memory.containers.get(&c.name);
    match (latest, memory.and_then(|m| m.removed)) {
        (Some(i), _) => observed(view, c, i, default, &mut s),
        (None, Some(attempt)) => removed(attempt, &mut s),
        (None, None) => {}
    }
    let spec = spec_of(view.pod);
    let done = latest.is_some_and(|i| {
        i.state == State::Running
            || (i.state == State::Exited
                && ((is_init && !is_sidecar(c) && i.exit_code == 0)
                    || replace::stays_ended(view, &spec, c, i)))
    });
    if let Some(w) = memory.and_then(|m| m.waiting.as_ref()).filter(|_| !done) {
        if s.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
            s.last_state = s.state.take();
        }
        s.state = Some(waiting(&w.reason, &w.message));
    }
    readiness(view, c, is_init, &mut s);
    s
}

/// The container was removed to begin its pod anew.
fn removed(attempt: u32, s: &mut ContainerStatus) {
    s.restart_count = i32::try_from(attempt).map_or(i32::MAX, |n| n.saturating_add(1));
    s.state = Some(waiting(reset::REASON, reset::MESSAGE));
    s.last_state = Some(ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some(reset::REASON.into()),
            message: Some(reset::MESSAGE.into()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    });
}

fn observed(view: &View<'_>, c: &Container, i: &Instance, default: &str, s: &mut ContainerStatus) {
    s.restart_count = i32::try_from(i.attempt).unwrap_or(i32::MAX);
    if !i.image.is_empty() && !i.image.starts_with("sha256:") {
        s.image = i.image.clone();
    }
    s.image_id = i.image_ref.clone();
    s.container_id = Some(full_id(view, &i.id));
    s.state = Some(state(view, i, default));
    s.resources = c.resources.as_ref().map(|own| match i.state {
        State::Running => resize::actuated(view, c, i).shown(&spec_of(view.pod), c),
        _ => own.clone(),
    });
    s.allocated_resources = c.resources.as_ref().and_then(|r| r.requests.clone());
    s.stop_signal = i.stop_signal.map(str::to_owned);
    s.user = i.user.as_ref().map(|(uid, gid, groups)| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: *uid,
            gid: *gid,
            supplemental_groups: Some(groups.clone()).filter(|g| !g.is_empty()),
        }),
    });
    if let Some(previous) = view.observed.previous(&c.name) {
        s.last_state = Some(state(view, previous, default));
    }
}

fn readiness(view: &View<'_>, c: &Container, is_init: bool, s: &mut ContainerStatus) {
    let started = is_started(view, c);
    s.started = Some(started);
    if is_init && !is_sidecar(c) {
        let terminated = s.state.as_ref().and_then(|s| s.terminated.as_ref());
        s.ready = terminated.is_some_and(|t| t.exit_code == 0);
        return;
    }
    let id = view.observed.latest(&c.name).map(|i| i.id.as_str());
    let verdicts = view.memory.containers.get(&c.name).map(|m| &m.verdicts);
    let verdict = verdicts.filter(|v| Some(v.instance.as_str()) == id).and_then(|v| v.ready);
    s.ready = started && (c.readiness_probe.is_none() || verdict == Some(true));
}

fn mounts(c: &Container) -> Option<Vec<VolumeMountStatus>> {
    let all = c.volume_mounts.as_ref()?.iter().map(|m| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only,
        recursive_read_only: m.read_only.filter(|on| *on).map(|_| {
            let on = m.recursive_read_only.as_deref() == Some("Enabled");
            if on { "Enabled".to_owned() } else { "Disabled".to_owned() }
        }),
        ..VolumeMountStatus::default()
    });
    Some(all.collect())
}
