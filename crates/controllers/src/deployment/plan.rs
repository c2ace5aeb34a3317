//! A Deployment and its ReplicaSets in; at most one step of the rollout, and the status, out.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::history::{REVISION, annotate, find_new, make_new, next_revision, revision};
use super::rollout::{self, Bounds, Sizes, size};
use super::status;
use crate::meta::name;

/// What the plan is made from.
pub(crate) struct State<'a> {
    pub(crate) deployment: &'a Deployment,
    pub(crate) sets: &'a [Arc<ReplicaSet>],
    /// Pods of the sets that have not ended, by the set's uid: what Recreate waits for.
    pub(crate) running: &'a dyn Fn(&ReplicaSet) -> bool,
    pub(crate) now: &'a Time,
}

/// Changes, in the order they are made.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) create: Option<ReplicaSet>,
    /// Sets in their new form, with the sentence for the event if the size changes.
    pub(crate) update: Vec<(ReplicaSet, Option<String>)>,
    /// Names of sets.
    pub(crate) delete: Vec<String>,
    /// The Deployment's own revision annotation, if it must change.
    pub(crate) revision: Option<String>,
    pub(crate) status: Option<DeploymentStatus>,
    pub(crate) recheck: Option<Duration>,
}

pub(crate) fn plan(state: &State<'_>) -> Plan {
    let deployment = state.deployment;
    let bounds = Bounds::of(deployment);
    let new = find_new(deployment, state.sets);
    let is_new = |s: &&Arc<ReplicaSet>| new.as_ref().is_some_and(|n| Arc::ptr_eq(n, s));
    let old: Vec<Arc<ReplicaSet>> = state.sets.iter().filter(|s| !is_new(s)).cloned().collect();
    let mut plan = Plan::default();
    let paused = deployment.spec.as_ref().is_some_and(|s| s.paused == Some(true));
    if deployment.metadata.deletion_timestamp.is_some() {
        finish(state, &bounds, new.as_ref(), &mut plan, false);
        return plan;
    }
    if paused || rollout::was_scaled(&bounds, state.sets) {
        if let Some(new) = &new {
            sync_annotations(state, new, &old, &mut plan);
        }
        let sizes = rollout::scaling(&bounds, new.as_ref(), &old);
        resize(&bounds, sizes, true, &mut plan);
        finish(state, &bounds, new.as_ref(), &mut plan, false);
        if paused && plan.update.is_empty() && complete(state) {
            plan.delete = surplus(state, &old);
        }
        return plan;
    }
    match (&new, bounds.rolling) {
        (Some(new), true) => {
            sync_annotations(state, new, &old, &mut plan);
            resize(&bounds, rollout::rolling(&bounds, new, &old), false, &mut plan);
        }
        (None, true) => {
            let replicas = rollout::new_size(&bounds, &old, 0);
            plan.create = Some(make_new(deployment, &old, replicas, &bounds));
        }
        (_, false) => recreate(state, &bounds, new.as_ref(), &old, &mut plan),
    }
    finish(state, &bounds, new.as_ref(), &mut plan, true);
    if plan.update.is_empty() && plan.create.is_none() && complete(state) {
        plan.delete = surplus(state, &old);
    }
    plan
}

fn complete(state: &State<'_>) -> bool {
    let status = state.deployment.status.as_ref();
    status.is_some_and(|s| status::complete(state.deployment, s))
}

fn surplus(state: &State<'_>, old: &[Arc<ReplicaSet>]) -> Vec<String> {
    let limit = state.deployment.spec.as_ref().and_then(|s| s.revision_history_limit);
    rollout::surplus(limit, old, revision)
}

/// Old pods end first, all of them; then the new set comes at once.
fn recreate(
    state: &State<'_>,
    bounds: &Bounds,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
    plan: &mut Plan,
) {
    let down: Sizes = old.iter().filter(|s| size(s) > 0).map(|s| (s.clone(), 0)).collect();
    if !down.is_empty() {
        return resize(bounds, down, false, plan);
    }
    if old.iter().any(|s| (state.running)(s)) {
        return;
    }
    match new {
        None => {
            plan.create = Some(make_new(state.deployment, old, bounds.replicas, bounds));
        }
        Some(new) => {
            sync_annotations(state, new, old, plan);
            resize(bounds, vec![(new.clone(), bounds.replicas)], false, plan);
        }
    }
}

/// The new set carries the Deployment's annotations and the highest revision.
fn sync_annotations(
    state: &State<'_>,
    new: &Arc<ReplicaSet>,
    old: &[Arc<ReplicaSet>],
    plan: &mut Plan,
) {
    let mut set = ReplicaSet::clone(new);
    annotate(
        state.deployment,
        set.metadata.annotations.get_or_insert_default(),
        next_revision(old),
    );
    let min_ready = state.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
    if let Some(spec) = &mut set.spec
        && spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0)
    {
        spec.min_ready_seconds = min_ready;
    }
    if set != **new {
        plan.update.push((set, None));
    }
}

fn resize(bounds: &Bounds, sizes: Sizes, annotate_all: bool, plan: &mut Plan) {
    for (set, wanted) in sizes {
        let had = size(&set);
        if had == wanted && !annotate_all {
            continue;
        }
        let at = plan.update.iter().position(|(s, _)| s.metadata.uid == set.metadata.uid);
        let (mut changed, _) = match at {
            Some(at) => plan.update.remove(at),
            None => (ReplicaSet::clone(&set), None),
        };
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.extend(bounds.annotations().map(|(k, v)| (k.to_owned(), v)));
        if let Some(spec) = &mut changed.spec {
            spec.replicas = Some(wanted);
        }
        if changed == *set {
            continue;
        }
        let direction = if wanted > had { "up" } else { "down" };
        let name = name(&set.metadata);
        let event = (had != wanted)
            .then(|| format!("Scaled {direction} replica set {name} from {had} to {wanted}"));
        plan.update.push((changed, event));
    }
}

/// Status and revision, as of the sets before this plan's changes.
fn finish(
    state: &State<'_>,
    bounds: &Bounds,
    new: Option<&Arc<ReplicaSet>>,
    plan: &mut Plan,
    rolling_out: bool,
) {
    let deployment = state.deployment;
    let now = state.now;
    let mut fresh = status::calculate(deployment, bounds, state.sets, new, now);
    let known = status::condition(&fresh, "Progressing").cloned();
    let reason = known.as_ref().and_then(|c| c.reason.as_deref());
    let has_deadline = status::deadline(deployment).is_some();
    let paused = deployment.spec.as_ref().is_some_and(|s| s.paused == Some(true));
    if has_deadline && reason != Some("ProgressDeadlineExceeded") {
        if paused && reason != Some("DeploymentPaused") {
            let message = "Deployment is paused".into();
            status::set_progress(&mut fresh, "Unknown", "DeploymentPaused", message, now);
        } else if !paused && reason == Some("DeploymentPaused") {
            let message = "Deployment is resumed".into();
            status::set_progress(&mut fresh, "Unknown", "DeploymentResumed", message, now);
        }
    }
    if let (true, Some(set)) = (has_deadline && known.is_none() && !paused, new) {
        let message = format!("Found new replica set \"{}\"", name(&set.metadata));
        status::set_progress(&mut fresh, "True", "FoundNewReplicaSet", message, now);
    }
    if rolling_out {
        status::add_progress(&mut fresh, deployment, state.sets, new, now);
    }
    if let (Some(made), true) = (&plan.create, has_deadline) {
        let message = format!("Created new replica set \"{}\"", name(&made.metadata));
        status::set_progress(&mut fresh, "True", "NewReplicaSetCreated", message, now);
    }
    plan.recheck = if paused { None } else { status::recheck(deployment, &fresh, now) };
    plan.status = (!status::same(deployment.status.as_ref(), &fresh)).then_some(fresh);
    plan.revision = new_revision(deployment, new, plan);
}

fn new_revision(
    deployment: &Deployment,
    new: Option<&Arc<ReplicaSet>>,
    plan: &Plan,
) -> Option<String> {
    let updated = plan.update.iter().map(|(s, _)| s);
    let updated =
        updated.into_iter().find(|s| new.is_some_and(|n| n.metadata.uid == s.metadata.uid));
    let set = plan.create.as_ref().or(updated).or(new.map(|n| &**n))?;
    let wanted = set.metadata.annotations.as_ref()?.get(REVISION)?;
    let have = deployment.metadata.annotations.as_ref().and_then(|a| a.get(REVISION));
    (have != Some(wanted)).then(|| wanted.clone())
}
