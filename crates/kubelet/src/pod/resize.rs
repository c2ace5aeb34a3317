//! Cgroups follow what the pod was given: which containers need new values, which must start anew for
//! them, and whether the pod's own group needs some. Pure.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::memory::Slot;
use super::observed::{Instance, State};
use super::plan::{Action, Plan, View};
use crate::spec::resize::{Amounts, Pending};
use crate::spec::resources::{PodLimits, pod_limits};
use crate::spec::spec_of;

pub(crate) const PENDING: &str = "PodResizePending";
pub(crate) const IN_PROGRESS: &str = "PodResizeInProgress";

/// What an actor remembers of changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) pending: Option<Pending>,
    /// The generation of the change that is under way.
    pub(crate) generation: Option<i64>,
    pub(crate) error: Option<String>,
    /// Not tried again before.
    pub(crate) retry_at: Option<jiff::Timestamp>,
    /// Values that running instances were given after they were made.
    pub(crate) actuated: std::collections::HashMap<String, Amounts>,
    /// What the pod's own group has.
    pub(crate) pod: Option<PodLimits>,
}

/// New values for one running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Update {
    pub(crate) container: String,
    pub(crate) id: String,
    pub(crate) from: Amounts,
    pub(crate) to: Amounts,
}

/// Whether the API's status says that a change was under way.
pub(crate) fn was_under_way(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == IN_PROGRESS && c.status == "True")
}

/// What a container has. One that an agent made which wrote nothing on it has what it was given.
pub(crate) fn actuated(view: &View<'_>, container: &Container, instance: &Instance) -> Amounts {
    let known = view.memory.resize.actuated.get(&instance.id).copied();
    let wished = || Amounts::of(&spec_of(view.pod), container);
    known.or(instance.amounts).unwrap_or_else(wished)
}

fn all(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// Running containers that have other values than they were given.
fn updates(view: &View<'_>) -> Vec<Update> {
    let spec = spec_of(view.pod);
    let one = |c: &Container| {
        let running = view.observed.latest(&c.name).filter(|i| i.state == State::Running)?;
        let (from, to) = (actuated(view, c, running), Amounts::of(&spec, c));
        let (container, id) = (c.name.clone(), running.id.clone());
        (from != to).then_some(Update { container, id, from, to })
    };
    all(&spec).filter_map(one).collect()
}

fn pod_differs(view: &View<'_>) -> bool {
    view.memory.resize.pod.as_ref().is_some_and(|has| *has != pod_limits(view.pod))
}

/// Whether a change that was given is not everywhere yet.
pub(crate) fn is_in_progress(view: &View<'_>) -> bool {
    !updates(view).is_empty() || pod_differs(view)
}

/// Whether a resource whose policy wants a new start has changed.
fn wants_restart(container: &Container, update: &Update) -> bool {
    let (from, to) = (update.from, update.to);
    let changed = |name: &str| match name {
        "cpu" => (from.cpu_request, from.cpu_limit) != (to.cpu_request, to.cpu_limit),
        "memory" => {
            (from.memory_request, from.memory_limit) != (to.memory_request, to.memory_limit)
        }
        _ => false,
    };
    let policies = container.resize_policy.iter().flatten();
    policies
        .into_iter()
        .any(|p| p.restart_policy == "RestartContainer" && changed(&p.resource_name))
}

/// Why a running container must start anew, if it must.
pub(super) fn restart(view: &View<'_>, container: &Container) -> Option<String> {
    let update = updates(view).into_iter().find(|u| u.container == container.name)?;
    wants_restart(container, &update)
        .then(|| format!("Container {} resize requires restart", container.name))
}

/// Plans the change of running containers and of the pod's group.
pub(super) fn plan(view: &View<'_>, sandbox: &str, plan: &mut Plan) {
    if view.memory.is_busy(&Slot::Resize) {
        return;
    }
    let spec = spec_of(view.pod);
    let mut updates = updates(view);
    // What must start anew ends first: the pod's group may shrink then.
    let ends = |u: &Update| all(&spec).any(|c| c.name == u.container && wants_restart(c, u));
    if updates.iter().any(ends) {
        return;
    }
    updates.retain(|u| !view.memory.is_busy(&Slot::Container(u.container.clone())));
    if updates.is_empty() && !pod_differs(view) {
        return;
    }
    if let Some(at) = view.memory.resize.retry_at.filter(|at| *at > view.now) {
        return plan.wake_at(at);
    }
    plan.push(Action::Resize { sandbox: sandbox.to_owned(), updates });
}
