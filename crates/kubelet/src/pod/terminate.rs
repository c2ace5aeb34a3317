//! The end of a pod: containers, then the sandbox, then volumes, then the API's object. Pure.

use k8s_openapi::api::core::v1::Container;

use super::memory::{Busy, Slot, Volumes};
use super::plan::{Action, Plan, View, kill_after};
use super::replace;
use crate::spec::{is_sidecar, spec_of};

/// Containers get at least this long to end, so that they are not killed for nothing (upstream's).
const GRACE_MIN_SECONDS: i64 = 2;

/// Whether the pod is to end: asked for, forced, or it has run to its completion.
pub(crate) fn is_ending(view: &View<'_>) -> bool {
    view.memory.gone
        || view.pod.metadata.deletion_timestamp.is_some()
        || view.memory.ending.is_some()
        || view.memory.rejected.is_some()
        || is_terminal(view)
}

/// The API has it as ended, or all its containers have ended for good.
pub(crate) fn is_terminal(view: &View<'_>) -> bool {
    let phase = view.pod.status.as_ref().and_then(|s| s.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return true;
    }
    let spec = spec_of(view.pod);
    let over = |c: &Container| {
        let latest = view.observed.latest(&c.name);
        latest.is_some_and(|i| replace::stays_ended(view, &spec, c, i))
    };
    let failed_init = spec.init_containers.iter().flatten().any(|c| {
        let failed = view.observed.latest(&c.name).is_some_and(|i| i.exit_code != 0);
        !is_sidecar(c) && failed && over(c)
    });
    failed_init || spec.containers.iter().all(over)
}

/// Whether nothing of the pod runs or is being started, its sandbox included.
pub(super) fn is_stopped(view: &View<'_>) -> bool {
    !may_run(view)
        && view.observed.sandbox().is_none_or(|sandbox| !sandbox.ready)
        && !view.memory.is_busy(&Slot::Sandbox)
}

/// Whether a container runs or is being started.
pub(crate) fn may_run(view: &View<'_>) -> bool {
    let starting = |(slot, busy): (&Slot, &Busy)| {
        matches!(slot, Slot::Container(_)) && *busy == Busy::Starting
    };
    view.observed.running().next().is_some() || view.memory.busy.iter().any(starting)
}

pub(super) fn plan(view: &View<'_>, plan: &mut Plan) {
    if kill_containers(view, plan) || cancel_starts(view, plan) {
        return;
    }
    if let Some(sandbox) = view.observed.sandbox().filter(|s| s.ready) {
        if !view.memory.is_busy(&Slot::Sandbox) {
            plan.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
        return;
    }
    if view.memory.is_busy(&Slot::Sandbox) {
        return;
    }
    if view.memory.volumes != Volumes::TornDown {
        match view.memory.teardown_retry.filter(|at| *at > view.now) {
            Some(at) => plan.wake_at(at),
            None if view.memory.is_busy(&Slot::Volumes) => {}
            None => plan.push(Action::TearDownVolumes),
        }
        return;
    }
    if view.memory.gone {
        if !view.memory.is_busy(&Slot::Cleanup) {
            plan.push(Action::CleanUp);
        }
        return;
    }
    let deleted = view.pod.metadata.deletion_timestamp.is_some();
    let open = !view.memory.delete_sent && !view.memory.is_busy(&Slot::Delete);
    if deleted && view.memory.status_written && open {
        match view.memory.delete_retry.filter(|at| *at > view.now) {
            Some(at) => plan.wake_at(at),
            None => plan.push(Action::Delete),
        }
    }
}

/// Gives up starts that have not come to a running container; `true` while any operation runs.
pub(super) fn cancel_starts(view: &View<'_>, plan: &mut Plan) -> bool {
    let mut any = false;
    for (slot, busy) in &view.memory.busy {
        let Slot::Container(name) = slot else { continue };
        any = true;
        if *busy == Busy::Starting {
            plan.push(Action::Cancel { container: name.clone() });
        }
    }
    any
}

/// Kills what runs, all at once and within one grace period; `true` while something does.
///
/// Sidecars are told too, so that their hooks run at the start of the period, but they end after the
/// containers they serve, the last one that was started first.
fn kill_containers(view: &View<'_>, plan: &mut Plan) -> bool {
    let spec = spec_of(view.pod);
    let grace = grace(view);
    let sidecars = || spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let regular = || spec.containers.iter().map(|c| c.name.clone());
    let mut any = false;
    for i in view.observed.running() {
        any = true;
        let mut after = Vec::new();
        if let Some(place) = sidecars().position(|c| c.name == i.name) {
            after.extend(regular());
            after.extend(sidecars().skip(place + 1).map(|c| c.name.clone()));
        }
        let message = format!("Stopping container {}", i.name);
        kill_after(view, plan, i, Some(grace), message, after);
    }
    any
}

/// Seconds the containers have left.
fn grace(view: &View<'_>) -> i64 {
    let meta = &view.pod.metadata;
    let own = spec_of(view.pod).termination_grace_period_seconds.unwrap_or(30);
    let wanted = match &view.memory.ending {
        Some(ending) => ending.grace.unwrap_or(own),
        None => meta.deletion_grace_period_seconds.unwrap_or(own),
    };
    wanted.max(GRACE_MIN_SECONDS)
}
