//! The pod's phase by its containers' statuses.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, PodSpec, PodStatus,
};

use crate::pod::plan::{View, restarts};
use crate::pod::terminating;
use crate::pod::{replace, reset};
use crate::spec::is_sidecar;

#[derive(Default)]
struct Count {
    pending_init: usize,
    pending_sidecar: usize,
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    for_good: usize,
    succeeded: usize,
    failed_init: bool,
}

/// The end that counts: of the state, or, while it waits to be restarted, of the last state.
fn ended(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    fn of(s: &Option<ContainerState>) -> Option<&ContainerStateTerminated> {
        s.as_ref().and_then(|s| s.terminated.as_ref())
    }
    of(&status.state).or_else(|| {
        status.state.as_ref().and_then(|s| s.waiting.as_ref()).and(of(&status.last_state))
    })
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    ended(status).map(|t| t.exit_code)
}

/// Whether it runs again: by its policy, for a new definition, or because it was removed to begin the
/// pod anew.
fn runs_again(
    view: &View<'_>,
    spec: &PodSpec,
    c: &Container,
    status: &ContainerStatus,
    code: i32,
) -> bool {
    let removed = ended(status).and_then(|t| t.reason.as_deref()) == Some(reset::REASON);
    removed || restarts(spec, c, code) || replace::is_replaced(view, &c.name)
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn find<'a>(list: &'a Option<Vec<ContainerStatus>>, c: &Container) -> Option<&'a ContainerStatus> {
    list.iter().flatten().find(|s| s.name == c.name)
}

fn count(view: &View<'_>, spec: &PodSpec, new: &PodStatus) -> Count {
    let mut n = Count::default();
    for c in spec.init_containers.iter().flatten() {
        let Some(s) = find(&new.init_container_statuses, c) else {
            n.pending_init += 1;
            continue;
        };
        match (is_sidecar(c), is_running(s), exit_code(s)) {
            (true, true, _) => {
                n.pending_sidecar += usize::from(s.started != Some(true));
                n.running += 1;
            }
            (true, false, Some(_)) => {}
            (true, false, None) => {
                n.pending_sidecar += 1;
                n.waiting += 1;
            }
            (false, false, Some(code)) if code != 0 => {
                n.failed_init |= !runs_again(view, spec, c, s, code)
            }
            (false, false, Some(_)) => {}
            (false, ..) => n.pending_init += 1,
        }
    }
    for c in &spec.containers {
        let Some(s) = find(&new.container_statuses, c) else {
            n.unknown += 1;
            continue;
        };
        match (is_running(s), exit_code(s)) {
            (true, _) => n.running += 1,
            (false, Some(code)) => {
                n.stopped += 1;
                n.for_good += usize::from(!runs_again(view, spec, c, s, code));
                n.succeeded += usize::from(code == 0);
            }
            (false, None) => n.waiting += 1,
        }
    }
    n
}

pub(super) fn phase(
    view: &View<'_>,
    spec: &PodSpec,
    new: &PodStatus,
    old: &PodStatus,
) -> &'static str {
    // An ended pod stays ended.
    match old.phase.as_deref() {
        Some("Failed") => return "Failed",
        Some("Succeeded") => return "Succeeded",
        _ => {}
    }
    let n = count(view, spec, new);
    let initialized = spec.containers.iter().any(|c| view.observed.latest(&c.name).is_some());
    if n.failed_init {
        return "Failed";
    }
    let terminal = terminating(view) && view.observed.running().next().is_none();
    if n.pending_init > 0 || (n.pending_sidecar > 0 && !initialized) || n.waiting > 0 {
        return "Pending";
    }
    if n.running > 0 && n.unknown == 0 {
        return "Running";
    }
    if n.running == 0 && n.stopped > 0 && n.unknown == 0 {
        return match (terminal || n.stopped == n.for_good, n.stopped == n.succeeded) {
            (false, _) => "Running",
            (true, true) => "Succeeded",
            (true, false) => "Failed",
        };
    }
    "Pending"
}
