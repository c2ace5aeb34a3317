//! The status of a StatefulSet.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSetStatus;
use k8s_openapi::api::core::v1::Pod;

use super::identity::{ordinal, spec};
use super::plan::{Plan, State, is_available, is_running, min_ready};
use super::template::revision_of;
use crate::pods::{available_in, phase};

/// The status after the plan's acts, and when it may change by itself.
pub(crate) fn status(
    state: &State<'_>,
    plan: &Plan,
    collisions: i32,
) -> (StatefulSetStatus, Option<Duration>) {
    let pods = || state.pods.iter().filter(|p| ordinal(p).is_some());
    let count = |wanted: &dyn Fn(&Pod) -> bool| {
        i32::try_from(pods().filter(|p| wanted(p)).count()).unwrap_or(i32::MAX)
    };
    let some = |n: i32| Some(n).filter(|n| *n != 0);
    let created = |pod: &Pod| !phase(pod).is_empty();
    let stays = |pod: &Pod| created(pod) && pod.metadata.deletion_timestamp.is_none();
    let of = |name: &str| count(&|pod| stays(pod) && revision_of(pod) == name);
    let replicas = count(&created);
    let ready = count(&is_running);
    let available = count(&|p| is_running(p) && is_available(state.set, p, state.now));
    let mut current = of(&state.current.name) - plan.outdated;
    let updated = of(&state.update.name);
    let mut revision = state.current.name.clone();
    let wanted = spec(state.set).replicas.unwrap_or(1);
    let strategy = spec(state.set).update_strategy.as_ref();
    let rolls = strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete");
    if rolls && [updated, ready, replicas] == [wanted; 3] {
        current = updated;
        revision = state.update.name.clone();
    }
    let old = state.set.status.as_ref();
    let status = StatefulSetStatus {
        replicas,
        ready_replicas: some(ready),
        available_replicas: some(available),
        current_replicas: some(current),
        updated_replicas: some(updated),
        current_revision: Some(revision),
        update_revision: Some(state.update.name.clone()),
        collision_count: Some(collisions),
        observed_generation: state.set.metadata.generation,
        conditions: old.and_then(|s| s.conditions.clone()),
    };
    let left = pods().filter_map(|p| available_in(p, min_ready(state.set), state.now));
    let left = left.filter(|left| *left > 0).min().and_then(|left| u64::try_from(left).ok());
    (status, left.map(Duration::from_secs))
}
