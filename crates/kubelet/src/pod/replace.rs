//! Containers that the node ends because their definition changed: they run again, whatever their
//! restart policy says, and are not shown as ended between.
//!
//! Upstream ends and starts them in one pass of the pod's worker, so that the API sees the end only if
//! its relist, once a second, falls between the two.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::observed::{Instance, State};
use super::plan::{View, ended_at, restarts};
use crate::spec::{find_container, labels};

/// Upstream's relist.
const HIDDEN_MAX: Duration = Duration::from_secs(1);

/// Whether an instance is of another definition than the pod's spec has now.
pub(super) fn is_outdated(container: &Container, instance: &Instance) -> bool {
    let hash = format!("{:x}", labels::hash(container));
    !instance.hash.is_empty() && instance.hash != hash
}

/// Notes that an instance, which is about to be killed, has a successor.
pub(super) fn note(view: &View<'_>, name: &str, id: &str) -> Option<String> {
    let container = find_container(view.pod, name)?;
    let instance = view.observed.latest(name).filter(|i| i.id == id)?;
    is_outdated(&container, instance).then(|| id.to_owned())
}

/// Whether the container's latest instance was killed for its successor's sake.
pub(crate) fn is_replaced(view: &View<'_>, name: &str) -> bool {
    let id = view.memory.containers.get(name).and_then(|memory| memory.replaced.as_ref());
    view.observed.latest(name).is_some_and(|latest| id == Some(&latest.id))
}

/// Whether an instance has ended, and the container does not run again.
pub(crate) fn stays_ended(
    view: &View<'_>,
    spec: &PodSpec,
    container: &Container,
    instance: &Instance,
) -> bool {
    instance.state == State::Exited
        && !restarts(spec, container, instance.exit_code)
        && !is_replaced(view, &container.name)
}

/// Until when the pod's status is kept, because a container has just ended for its successor's sake.
pub(super) fn hidden_until(view: &View<'_>) -> Option<Timestamp> {
    let hidden = view.memory.containers.iter().filter_map(|(name, memory)| {
        let latest = view.observed.latest(name).filter(|i| i.state == State::Exited)?;
        let replaced = memory.waiting.is_none() && is_replaced(view, name);
        ended_at(latest).filter(|_| replaced)?.checked_add(HIDDEN_MAX).ok()
    });
    hidden.max().filter(|until| *until > view.now)
}
