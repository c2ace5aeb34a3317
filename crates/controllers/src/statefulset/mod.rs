//! StatefulSet: pods with names and claims of their own, created, updated and deleted in order.
//!
//! Watches StatefulSets, Pods, claims and ControllerRevisions. A pass plans stages of acts; a later
//! stage begins when the one before succeeded.

mod claims;
mod identity;
mod plan;
mod status;
mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{
    Action, Change, Client, DeleteParams, Error, EventType, Index, Informer, Queue, Recorder,
};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use self::identity::{is_member, spec};
use self::plan::{Act, State, Version};
use self::template::revision_of;
use crate::Context;
use crate::harness::{
    ByController, Candidates, Expectations, Orphans, Reconciler, claim, enqueue, history,
    same_status, selected_by, slow_start, watch_dependents,
};
use crate::meta::{Key, key, name, namespace, now, reference, selector, uid};

/// StatefulSets reconciled at once (upstream's --concurrent-statefulset-syncs).
const WORKERS: usize = 5;
/// Past templates kept, if the object does not say.
const HISTORY_MAX: i32 = 10;

pub(crate) fn start(context: &Context) {
    let (sets, pods) = (context.informers.of::<StatefulSet>(), context.informers.of::<Pod>());
    let claims = context.informers.of::<PersistentVolumeClaim>();
    let revisions = context.informers.of::<ControllerRevision>();
    let queue = Queue::new();
    let this = StatefulSets {
        client: context.client.clone(),
        recorder: context.recorder("statefulset-controller"),
        pods_written: Expectations::new(pods.clone()),
        claims_written: Expectations::new(claims.clone()),
        written: Expectations::new(sets.clone()),
        pods_by_controller: pods.index(),
        orphan_pods: pods.index(),
        revisions_by_controller: revisions.index(),
        orphan_revisions: revisions.index(),
        sets,
        pods,
        claims,
        revisions,
    };
    this.watch(&queue);
    crate::harness::start(context, "statefulset-controller", WORKERS, queue, this);
}

#[derive(Clone)]
struct StatefulSets {
    client: Client,
    recorder: Recorder,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    revisions: Informer<ControllerRevision>,
    pods_by_controller: Index<Pod, ByController>,
    orphan_pods: Index<Pod, Orphans>,
    revisions_by_controller: Index<ControllerRevision, ByController>,
    orphan_revisions: Index<ControllerRevision, Orphans>,
    pods_written: Expectations<Pod>,
    claims_written: Expectations<PersistentVolumeClaim>,
    /// Statuses written: an older one names an older current revision.
    written: Expectations<StatefulSet>,
}

impl StatefulSets {
    fn watch(&self, queue: &Queue<Key>) {
        enqueue(&self.sets, queue);
        watch_dependents(&self.pods, &self.sets, queue, selects_pod);
        let of_set = |set: &StatefulSet, revision: &ControllerRevision| {
            selected_by(selector(&spec(set).selector))(revision)
        };
        watch_dependents(&self.revisions, &self.sets, queue, of_set);
        let (sets, queue) = (self.sets.clone(), queue.clone());
        self.claims.on_change(move |change: &Change<PersistentVolumeClaim>| {
            let claim = change.object();
            for set in sets.list_namespace(namespace(&claim.metadata)) {
                if is_claim_of(&set, claim) {
                    queue.add(key(&*set));
                }
            }
        });
    }

    fn event(&self, set: &StatefulSet, outcome: Result<(), &Error>, verb: &str, what: &str) {
        let own = name(&set.metadata);
        let about = reference(set);
        match outcome {
            Ok(()) => {
                let end = if what.starts_with("Claim") { "success" } else { "successful" };
                let message = format!("{verb} {what} in StatefulSet {own} {end}");
                let reason = format!("Successful{verb}");
                self.recorder.event(&about, EventType::Normal, &reason, message);
            }
            Err(error) => {
                let what = what.replacen(" Pod ", " for Pod ", 1);
                let message = format!("{verb} {what} in StatefulSet {own} failed error: {error}");
                self.recorder.event(&about, EventType::Warning, &format!("Failed{verb}"), message);
            }
        }
    }
}

fn selects_pod(set: &StatefulSet, pod: &Pod) -> bool {
    is_member(set, pod) && selected_by(selector(&spec(set).selector))(pod)
}

/// Whether the claim's name is one of the set's.
fn is_claim_of(set: &StatefulSet, claim: &PersistentVolumeClaim) -> bool {
    let own = name(&claim.metadata);
    spec(set).volume_claim_templates.iter().flatten().any(|template| {
        let prefix = format!("{}-{}-", name(&template.metadata), name(&set.metadata));
        let ordinal = own.strip_prefix(&prefix);
        ordinal.is_some_and(|o| !o.is_empty() && o.bytes().all(|b| b.is_ascii_digit()))
    })
}

impl Reconciler for StatefulSets {
    type Key = Key;

    async fn synced(&self) {
        self.sets.synced().await;
        self.pods.synced().await;
        self.claims.synced().await;
        self.revisions.synced().await;
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(set) = self.sets.get(&key.0, &key.1) else {
            self.pods_written.forget(&key);
            self.claims_written.forget(&key);
            self.written.forget(&key);
            return Ok(Action::Done);
        };
        let settled = self.pods_written.satisfied(&key)
            && self.claims_written.satisfied(&key)
            && self.written.satisfied(&key);
        if !settled {
            // What comes queues the key again.
            return Ok(Action::Done);
        }
        let mut pods = self.pods_by_controller.get(uid(&set.metadata));
        pods.extend(self.orphan_pods.get(&key.0));
        let candidates = Candidates::sort(&*set, |pod| selects_pod(&set, pod), pods, |_| true);
        let Some(pods) = claim(&self.client, &*set, candidates).await? else {
            return Ok(Action::Done);
        };
        let mut revisions = self.revisions_by_controller.get(uid(&set.metadata));
        revisions.extend(self.orphan_revisions.get(&key.0));
        let fits = selected_by(selector(&spec(&set).selector));
        let candidates = Candidates::sort(&*set, fits, revisions, |_| true);
        let Some(revisions) = claim(&self.client, &*set, candidates).await? else {
            return Ok(Action::Done);
        };
        self.sync(&key, &set, &pods, revisions).await
    }
}

impl StatefulSets {
    async fn sync(
        &self,
        key: &Key,
        set: &StatefulSet,
        pods: &[Arc<Pod>],
        mut revisions: Vec<Arc<ControllerRevision>>,
    ) -> Result<Action, Error> {
        revisions.sort_by_cached_key(|r| (r.revision, name(&r.metadata).to_owned()));
        let template = &spec(set).template;
        let (update, collisions) = self.update_revision(set, &revisions).await?;
        let named = set.status.as_ref().and_then(|s| s.current_revision.as_deref());
        let current = revisions.iter().find(|r| r.metadata.name.as_deref() == named);
        let current = Version::of(current.map_or(&update, |r| r), template);
        let update =
            Version { name: name(&update.metadata).to_owned(), template: template.clone() };
        let claim = |own: &str| self.claims.get(&key.0, own);
        let state =
            State { set, pods, current: &current, update: &update, claim: &claim, now: &now() };
        let plan = plan::plan(&state);
        let mut outcome = Ok(());
        for acts in &plan.stages {
            outcome = slow_start(acts, |act| self.act(key, set, act)).await.1;
            if outcome.is_err() {
                break;
            }
        }
        let (status, recheck) = status::status(&state, &plan, collisions);
        let written = self.write_status(key, set, status).await;
        let truncated = self.truncate(set, pods, &revisions, [&current, &update]).await;
        outcome.and(written).and(truncated)?;
        Ok(recheck.map_or(Action::Done, Action::After))
    }

    /// The revision of the present template, and the collisions of names by then.
    async fn update_revision(
        &self,
        set: &StatefulSet,
        revisions: &[Arc<ControllerRevision>],
    ) -> Result<(ControllerRevision, i32), Error> {
        let template = &spec(set).template;
        let collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let number = revisions.last().map_or(1, |r| r.revision + 1);
        let same = revisions.iter().rfind(|r| history::keeps(r, template));
        match (same, revisions.last()) {
            (Some(same), Some(last)) if same.revision == last.revision => {
                Ok((ControllerRevision::clone(same), collisions))
            }
            // Back to an earlier template: its revision becomes the newest.
            (Some(same), _) => {
                Ok((history::renumber(&self.client, same, number).await?, collisions))
            }
            (None, _) => history::create(&self.client, set, template, number, collisions).await,
        }
    }

    async fn act(&self, key: &Key, set: &StatefulSet, act: &Act) -> Result<(), Error> {
        match act {
            Act::Create { pod, claims } => self.create(key, set, pod, claims).await,
            Act::AddClaims { pod, claims } => self.add_claims(key, set, pod, claims).await,
            Act::Correct(pod) => {
                let written = self.client.update(&**pod).await;
                let what = format!("Pod {}", name(&pod.metadata));
                self.event(set, written.as_ref().map(drop), "Update", &what);
                self.pods_written.expect_change(key, &written?);
                Ok(())
            }
            Act::Own { claim, foreign } => self.own(key, set, claim, *foreign).await,
            Act::Delete(pod) => self.delete(key, set, pod).await,
            Act::Wait(why) => Err(api::Status::failure(409, "Conflict", why.as_str()).into()),
        }
    }

    async fn create(
        &self,
        key: &Key,
        set: &StatefulSet,
        pod: &Pod,
        claims: &[PersistentVolumeClaim],
    ) -> Result<(), Error> {
        let what = format!("Pod {}", name(&pod.metadata));
        if let Err(error) = self.add_claims(key, set, pod, claims).await {
            self.event(set, Err(&error), "Create", &what);
            return Err(error);
        }
        match self.client.create(&key.0, pod).await {
            Ok(made) => {
                self.pods_written.expect_creation(key, &made);
                self.event(set, Ok(()), "Create", &what);
                Ok(())
            }
            Err(error) => {
                if !error.is_already_exists() {
                    self.event(set, Err(&error), "Create", &what);
                }
                Err(error)
            }
        }
    }

    async fn add_claims(
        &self,
        key: &Key,
        set: &StatefulSet,
        pod: &Pod,
        claims: &[PersistentVolumeClaim],
    ) -> Result<(), Error> {
        for claim in claims {
            let what = format!("Claim {} Pod {}", name(&claim.metadata), name(&pod.metadata));
            match self.client.create(&key.0, claim).await {
                Ok(made) => {
                    self.claims_written.expect_creation(key, &made);
                    self.event(set, Ok(()), "Create", &what);
                }
                Err(error) if error.is_already_exists() => {}
                Err(error) => {
                    self.event(set, Err(&error), "Create", &what);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn own(
        &self,
        key: &Key,
        set: &StatefulSet,
        claim: &PersistentVolumeClaim,
        foreign: bool,
    ) -> Result<(), Error> {
        if foreign {
            let message = format!(
                "PersistentVolumeClaim {} has a conflicting OwnerReference that acts as a manging \
                 controller, the retention policy is ignored for this claim",
                name(&claim.metadata)
            );
            let about = reference(set);
            self.recorder.event(&about, EventType::Warning, "ConflictingController", message);
        }
        let written = self.client.update(claim).await?;
        self.claims_written.expect_change(key, &written);
        Ok(())
    }

    async fn delete(&self, key: &Key, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let own = name(&pod.metadata);
        let what = format!("Pod {own}");
        let params = DeleteParams { uid: pod.metadata.uid.clone(), ..DeleteParams::default() };
        self.pods_written.expect_deletion(key, pod);
        match self.client.delete::<Pod>(&key.0, own, &params).await {
            Err(error) if !error.is_not_found() => {
                self.pods_written.abandon_deletion(key, pod);
                self.event(set, Err(&error), "Delete", &what);
                Err(error)
            }
            _ => {
                self.event(set, Ok(()), "Delete", &what);
                Ok(())
            }
        }
    }

    async fn write_status(
        &self,
        key: &Key,
        set: &StatefulSet,
        status: k8s_openapi::api::apps::v1::StatefulSetStatus,
    ) -> Result<(), Error> {
        if same_status(set.status.as_ref(), Some(&status)) {
            return Ok(());
        }
        let new = StatefulSet { status: Some(status), ..set.clone() };
        match self.client.update_status(&new).await {
            Ok(written) => {
                self.written.expect_change(key, &written);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Revisions that no pod has, beyond the limit, go.
    async fn truncate(
        &self,
        set: &StatefulSet,
        pods: &[Arc<Pod>],
        revisions: &[Arc<ControllerRevision>],
        used: [&Version; 2],
    ) -> Result<(), Error> {
        let limit = spec(set).revision_history_limit.unwrap_or(HISTORY_MAX);
        let Ok(limit) = usize::try_from(limit) else { return Ok(()) };
        let is_live = |r: &ControllerRevision| {
            let own = name(&r.metadata);
            used.iter().any(|v| v.name == own) || pods.iter().any(|p| revision_of(p) == own)
        };
        let past: Vec<_> = revisions.iter().filter(|r| !is_live(r)).cloned().collect();
        history::truncate(&self.client, &past, limit, |_| false).await
    }
}
