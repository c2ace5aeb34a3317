//! Which pods and claims of a StatefulSet are created, changed and deleted, stage by stage.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{
    ControllerRevision, RollingUpdateStatefulSetStrategy, StatefulSet,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::claims::{claims, is_foreign, is_stale, with_owners};
use super::identity::{ordinal, position, range, spec};
use super::template::{corrected, pod, revision_of};
use crate::harness::history::template_of;
use crate::harness::scaled;
use crate::meta::name;
use crate::pods::{available_in, finished, phase, ready};

/// A template and the revision that keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) template: PodTemplateSpec,
}

impl Version {
    /// `present` is the template of the set itself, for a revision that cannot be read.
    pub(crate) fn of(revision: &ControllerRevision, present: &PodTemplateSpec) -> Version {
        Version {
            name: name(&revision.metadata).to_owned(),
            template: template_of(revision).unwrap_or_else(|| present.clone()),
        }
    }
}

/// What a pass is made from.
pub(crate) struct State<'a> {
    pub(crate) set: &'a StatefulSet,
    /// The pods that the set owns.
    pub(crate) pods: &'a [Arc<Pod>],
    pub(crate) current: &'a Version,
    pub(crate) update: &'a Version,
    /// A claim of the set's namespace, by name.
    pub(crate) claim: &'a (dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>> + Sync),
    pub(crate) now: &'a Time,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Act {
    Create {
        pod: Box<Pod>,
        claims: Vec<PersistentVolumeClaim>,
    },
    /// Claims that a pod waits for.
    AddClaims {
        pod: Arc<Pod>,
        claims: Vec<PersistentVolumeClaim>,
    },
    /// Labels or volumes of a pod are not its own.
    Correct(Box<Pod>),
    /// Owner references of a claim; `foreign` if another controller has it.
    Own {
        claim: Box<PersistentVolumeClaim>,
        foreign: bool,
    },
    Delete(Arc<Pod>),
    /// Nothing can be done before this is over.
    Wait(String),
}

#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Acts of a stage may be done at once; a later stage begins when they succeeded.
    pub(crate) stages: Vec<Vec<Act>>,
    /// Pods of the current revision that this pass deletes for the update.
    pub(crate) outdated: i32,
}

/// Pods by ordinal: those that the set is to have, and those beyond, the last first.
struct Sorted {
    replicas: Vec<Option<Arc<Pod>>>,
    condemned: Vec<Arc<Pod>>,
}

impl Sorted {
    fn of(state: &State<'_>) -> Sorted {
        let (_, count) = range(state.set);
        let mut replicas = vec![None; usize::try_from(count).unwrap_or(0)];
        let mut condemned = Vec::new();
        for pod in state.pods {
            let Some(ordinal) = ordinal(pod) else { continue };
            match position(state.set, ordinal) {
                Some(at) => replicas[at] = Some(pod.clone()),
                None => condemned.push(pod.clone()),
            }
        }
        condemned.sort_by_key(|pod| std::cmp::Reverse(ordinal(pod)));
        Sorted { replicas, condemned }
    }

    /// The first pod that is not available: of the replicas in order, then of the condemned.
    fn first_unavailable(&self, state: &State<'_>) -> Option<&Pod> {
        let condemned = self.condemned.iter().rev();
        let mut all = self.replicas.iter().flatten().chain(condemned);
        all.find(|pod| is_unavailable(state, pod)).map(|pod| &**pod)
    }
}

pub(crate) fn min_ready(set: &StatefulSet) -> i32 {
    spec(set).min_ready_seconds.unwrap_or(0)
}

fn ends(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub(crate) fn is_running(pod: &Pod) -> bool {
    phase(pod) == "Running" && ready(pod)
}

pub(crate) fn is_available(set: &StatefulSet, pod: &Pod, now: &Time) -> bool {
    available_in(pod, min_ready(set), now).is_some_and(|left| left <= 0)
}

fn is_unavailable(state: &State<'_>, pod: &Pod) -> bool {
    ends(pod) || !is_available(state.set, pod, state.now)
}

pub(crate) fn plan(state: &State<'_>) -> Plan {
    let mut plan = Plan::default();
    if state.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let ordered = spec(state.set).pod_management_policy.as_deref() != Some("Parallel");
    let sorted = Sorted::of(state);
    let (acts, done) = replicas(state, &sorted, ordered);
    plan.stages.push(acts);
    if !done {
        return plan;
    }
    plan.stages.push(own_condemned(state, &sorted));
    let (acts, done) = condemned(state, &sorted, ordered);
    plan.stages.push(acts);
    let strategy = spec(state.set).update_strategy.as_ref();
    if done && strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete") {
        let bounds = strategy.and_then(|s| s.rolling_update.as_ref());
        let outdated = outdated(state, &sorted, bounds);
        plan.outdated = i32::try_from(outdated.len()).unwrap_or(i32::MAX);
        plan.stages.push(outdated.into_iter().map(Act::Delete).collect());
    }
    plan
}

/// Acts for the pods that the set is to have, and whether what follows may begin.
fn replicas(state: &State<'_>, sorted: &Sorted, ordered: bool) -> (Vec<Act>, bool) {
    let (start, _) = range(state.set);
    let mut acts = Vec::new();
    for (at, pod) in sorted.replicas.iter().enumerate() {
        let ordinal = start + i32::try_from(at).unwrap_or(i32::MAX);
        let goes_on = match pod {
            None => create(state, ordinal, &mut acts),
            Some(pod) if finished(pod) => {
                if !ends(pod) {
                    acts.push(Act::Delete(pod.clone()));
                }
                false
            }
            Some(pod) => keep(state, pod, ordered, &mut acts),
        };
        if ordered && !goes_on {
            return (acts, false);
        }
    }
    (acts, true)
}

/// In order, nothing follows a creation.
fn create(state: &State<'_>, ordinal: i32, acts: &mut Vec<Act>) -> bool {
    let version = version(state, ordinal);
    let pod = pod(state.set, &version.template, &version.name, ordinal);
    let wanted = claims(state.set, ordinal);
    let stale = wanted.iter().filter_map(|(_, c)| (state.claim)(name(&c.metadata)));
    if stale.into_iter().any(|claim| is_stale(state.set, &pod, &claim)) {
        return false;
    }
    match missing(state, wanted) {
        Ok(claims) => acts.push(Act::Create { pod: Box::new(pod), claims }),
        Err(wait) => acts.push(wait),
    }
    false
}

/// Claims that are not there.
fn missing(
    state: &State<'_>,
    wanted: Vec<(String, PersistentVolumeClaim)>,
) -> Result<Vec<PersistentVolumeClaim>, Act> {
    let mut missing = Vec::new();
    for (_, claim) in wanted {
        match (state.claim)(name(&claim.metadata)) {
            None => missing.push(claim),
            Some(there) if there.metadata.deletion_timestamp.is_some() => {
                let own = name(&claim.metadata);
                return Err(Act::Wait(format!("pvc {own} is being deleted")));
            }
            Some(_) => {}
        }
    }
    Ok(missing)
}

/// Whether the pod lets the next one begin.
fn keep(state: &State<'_>, pod: &Arc<Pod>, ordered: bool, acts: &mut Vec<Act>) -> bool {
    if phase(pod) == "Pending" {
        let wanted = ordinal(pod).map(|o| claims(state.set, o)).unwrap_or_default();
        match missing(state, wanted) {
            Ok(claims) if claims.is_empty() && ordered => own(state, pod, acts),
            Ok(claims) if claims.is_empty() => {}
            Ok(claims) => acts.push(Act::AddClaims { pod: pod.clone(), claims }),
            Err(wait) => acts.push(wait),
        }
    }
    let works = !ends(pod) && is_running(pod) && is_available(state.set, pod, state.now);
    if ordered && !works {
        return false;
    }
    if let Some(corrected) = corrected(state.set, pod) {
        acts.push(Act::Correct(Box::new(corrected)));
    }
    own(state, pod, acts);
    true
}

/// Sets the owners of the pod's claims.
fn own(state: &State<'_>, pod: &Pod, acts: &mut Vec<Act>) {
    let wanted = ordinal(pod).map(|o| claims(state.set, o)).unwrap_or_default();
    for (_, claim) in wanted {
        let Some(there) = (state.claim)(name(&claim.metadata)) else { continue };
        let foreign = is_foreign(state.set, pod, &there);
        if let Some(claim) = with_owners(state.set, pod, &there) {
            acts.push(Act::Own { claim: Box::new(claim), foreign });
        }
    }
}

/// The version of a pod that is created: below the partition the current one.
fn version<'a>(state: &State<'a>, ordinal: i32) -> &'a Version {
    let (start, _) = range(state.set);
    let strategy = spec(state.set).update_strategy.as_ref();
    let rolls = strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete");
    let replicas = state.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0);
    let below = match strategy.and_then(|s| s.rolling_update.as_ref()) {
        Some(bounds) => ordinal < start + bounds.partition.unwrap_or(0),
        None => rolls && ordinal < start + replicas,
    };
    if below { state.current } else { state.update }
}

fn own_condemned(state: &State<'_>, sorted: &Sorted) -> Vec<Act> {
    let mut acts = Vec::new();
    sorted.condemned.iter().for_each(|pod| own(state, pod, &mut acts));
    acts
}

/// Deletes pods beyond the replicas: in order one by one, the last first.
fn condemned(state: &State<'_>, sorted: &Sorted, ordered: bool) -> (Vec<Act>, bool) {
    if !ordered {
        let going = sorted.condemned.iter().filter(|p| !ends(p)).cloned().map(Act::Delete);
        return (going.collect(), true);
    }
    let Some(pod) = sorted.condemned.first() else { return (Vec::new(), true) };
    let first = sorted.first_unavailable(state);
    let is_first = first.is_some_and(|first| first.metadata.uid == pod.metadata.uid);
    let works = is_running(pod) && is_available(state.set, pod, state.now);
    // Others that do not work are waited for; the one itself need not work to go.
    match !ends(pod) && (works || is_first) {
        true => (vec![Act::Delete(pod.clone())], false),
        false => (Vec::new(), false),
    }
}

/// Pods to delete because they are not of the update's version.
fn outdated(
    state: &State<'_>,
    sorted: &Sorted,
    bounds: Option<&RollingUpdateStatefulSetStrategy>,
) -> Vec<Arc<Pod>> {
    let partition = bounds.and_then(|b| b.partition).unwrap_or(0);
    let partition = usize::try_from(partition).unwrap_or(0);
    let replicas = sorted.replicas.get(partition..).unwrap_or_default();
    // A pod that is created in this pass is not available yet.
    let missing = |pod: &Option<Arc<Pod>>| pod.as_ref().is_none_or(|p| is_unavailable(state, p));
    let is_old = |pod: &Pod| revision_of(pod) != state.update.name && !ends(pod);
    if let Some(most) = bounds.and_then(|b| b.max_unavailable.as_ref()) {
        let most = most_unavailable(most, sorted.replicas.len());
        let room = most.saturating_sub(sorted.replicas.iter().filter(|p| missing(p)).count());
        let old = replicas.iter().rev().flatten().filter(|p| is_old(p));
        return old.take(room).cloned().collect();
    }
    for pod in replicas.iter().rev() {
        match pod {
            Some(pod) if is_old(pod) => return vec![pod.clone()],
            pod if missing(pod) => break,
            _ => {}
        }
    }
    Vec::new()
}

/// At least one.
fn most_unavailable(value: &IntOrString, replicas: usize) -> usize {
    let replicas = i32::try_from(replicas).unwrap_or(i32::MAX);
    usize::try_from(scaled(value, replicas, false)).unwrap_or(0).max(1)
}
