//! DaemonSet: one pod on each node that fits.
//!
//! Watches DaemonSets, Pods, Nodes and ControllerRevisions. Past templates are kept as revisions; their
//! hash tells a pod's template.

mod backoff;
mod placement;
mod plan;
mod rolling;
mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Action, Change, Client, Error, EventType, Index, Informer, Patch, Queue, Recorder};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use self::backoff::Backoff;
use self::placement::{Placement, Placer};
use self::plan::State;
use crate::Context;
use crate::harness::history::{self, REVISION_HASH};
use crate::harness::{
    ByController, ByNode, Candidates, Orphans, PodControl, Reconciler, claim, enqueue, same_status,
    selected_by, watch_dependents, write_status,
};
use crate::meta::{Key, controller, key, matches, name, now, reference, selector, uid};

/// DaemonSets reconciled at once (upstream's --concurrent-daemonset-syncs).
const WORKERS: usize = 2;
/// Past templates kept, if the object does not say.
const HISTORY_MAX: i32 = 10;

pub(crate) fn start(context: &Context) {
    let (sets, pods) = (context.informers.of::<DaemonSet>(), context.informers.of::<Pod>());
    let revisions = context.informers.of::<ControllerRevision>();
    let queue = Queue::new();
    let recorder = context.recorder("daemonset-controller");
    let this = DaemonSets {
        control: PodControl::new(context.client.clone(), recorder.clone(), pods.clone()),
        recorder,
        client: context.client.clone(),
        nodes: context.informers.of(),
        pods_by_controller: pods.index(),
        orphan_pods: pods.index(),
        pods_by_node: pods.index(),
        revisions_by_controller: revisions.index(),
        orphan_revisions: revisions.index(),
        backoff: Backoff::default(),
        sets,
        pods,
        revisions,
    };
    this.watch(&queue);
    crate::harness::start(context, "daemonset-controller", WORKERS, queue, this);
}

#[derive(Clone)]
struct DaemonSets {
    client: Client,
    recorder: Recorder,
    control: PodControl,
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    pods_by_controller: Index<Pod, ByController>,
    orphan_pods: Index<Pod, Orphans>,
    pods_by_node: Index<Pod, ByNode>,
    revisions_by_controller: Index<ControllerRevision, ByController>,
    orphan_revisions: Index<ControllerRevision, Orphans>,
    backoff: Backoff,
}

fn selects(set: &DaemonSet, labels: Option<&crate::meta::Map>) -> bool {
    set.spec.as_ref().is_some_and(|s| matches(&selector(&s.selector), labels))
}

impl DaemonSets {
    fn watch(&self, queue: &Queue<Key>) {
        enqueue(&self.sets, queue);
        watch_dependents(&self.pods, &self.sets, queue, |set: &DaemonSet, pod: &Pod| {
            selects(set, pod.metadata.labels.as_ref())
        });
        let of_set = |set: &DaemonSet, revision: &ControllerRevision| {
            selects(set, revision.metadata.labels.as_ref())
        };
        watch_dependents(&self.revisions, &self.sets, queue, of_set);
        let (this, queue) = (self.clone(), queue.clone());
        self.nodes.on_change(move |change| {
            for set in this.sets.list() {
                if this.is_concerned(&set, change) {
                    queue.add(key(&*set));
                }
            }
        });
    }

    /// Whether the change of a node changes where the set's pods belong.
    fn is_concerned(&self, set: &DaemonSet, change: &Change<Node>) -> bool {
        let node = change.object();
        let placer = Placer::new(set);
        let placed = placer.place(node);
        let before = change.old().map(|old| placer.place(old));
        match change {
            Change::Added(_) => placed == Placement::Run || self.has_pod(set, node),
            Change::Deleted(_) => placed == Placement::Run || self.has_pod(set, node),
            Change::Updated { .. } => before != Some(placed),
        }
    }

    fn has_pod(&self, set: &DaemonSet, node: &Node) -> bool {
        let here = self.pods_by_node.get(name(&node.metadata));
        here.iter().any(|p| controller(&p.metadata).is_some_and(|o| o.uid == uid(&set.metadata)))
    }
}

impl Reconciler for DaemonSets {
    type Key = Key;

    async fn synced(&self) {
        self.sets.synced().await;
        self.pods.synced().await;
        self.nodes.synced().await;
        self.revisions.synced().await;
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(set) = self.sets.get(&key.0, &key.1) else {
            self.control.expectations.forget(&key);
            return Ok(Action::Done);
        };
        let Some(spec) = &set.spec else { return Ok(Action::Done) };
        if selector(&spec.selector).is_empty() {
            let message =
                "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&reference(&*set), EventType::Warning, "SelectingAll", message);
            return Ok(Action::Done);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let settled = self.control.expectations.satisfied(&key);
        let fits = selected_by(selector(&spec.selector));
        let mut pods = self.pods_by_controller.get(uid(&set.metadata));
        pods.extend(self.orphan_pods.get(&key.0));
        let candidates = Candidates::sort(&*set, fits, pods, |_| true);
        let Some(pods) = claim(&self.client, &*set, candidates).await? else {
            return Ok(Action::Done);
        };
        let Some((current, old)) = self.history(&key, &set, &pods).await? else {
            return Ok(Action::Done);
        };
        self.sync(&key, &set, &pods, &current, &old, settled).await
    }
}

impl DaemonSets {
    async fn sync(
        &self,
        key: &Key,
        set: &DaemonSet,
        pods: &[Arc<Pod>],
        current: &ControllerRevision,
        old: &[Arc<ControllerRevision>],
        settled: bool,
    ) -> Result<Action, Error> {
        let nodes = self.nodes.list();
        let generation = set.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
        let of_node = |node: &str| (uid(&set.metadata).to_owned(), generation, node.to_owned());
        let backoff = |node: &str| self.backoff.left(&of_node(node));
        let hash = history::hash_of(current);
        let placer = Placer::new(set);
        let state = State {
            set,
            placer: &placer,
            nodes: &nodes,
            pods,
            hash,
            now: &now(),
            backoff: &backoff,
        };
        let (mut outcome, mut recheck) = (Ok(()), None);
        if settled {
            let plan = plan::plan(&state);
            for (kind, reason, message) in &plan.events {
                self.recorder.event(&reference(set), *kind, reason, message.clone());
            }
            plan.failed.iter().for_each(|node| self.backoff.failed(of_node(node)));
            recheck = plan.recheck;
            outcome = self.apply(key, set, &plan, hash).await;
        }
        if settled && outcome.is_ok() {
            outcome = self.truncate(set, pods, old).await;
        }
        let (status, wait) = plan::status(&state, settled);
        let new = DaemonSet { status: Some(status.clone()), ..set.clone() };
        let written =
            write_status(&self.client, &new, set.status.as_ref(), Some(&status)).await.map(drop);
        outcome.and(written)?;
        Ok(recheck.into_iter().chain(wait).min().map_or(Action::Done, Action::After))
    }

    async fn apply(
        &self,
        key: &Key,
        set: &DaemonSet,
        plan: &plan::Plan,
        hash: &str,
    ) -> Result<(), Error> {
        let pods: Vec<Pod> =
            plan.create.iter().map(|node| template::pod(set, node, hash)).collect();
        let (_, created) = self.control.create_all(set, key, &pods).await;
        let deletions = plan.delete.iter().map(|pod| self.control.delete(set, key, pod));
        let deleted: Result<(), Error> = join_all(deletions).await.into_iter().collect();
        created.and(deleted)
    }

    async fn truncate(
        &self,
        set: &DaemonSet,
        pods: &[Arc<Pod>],
        old: &[Arc<ControllerRevision>],
    ) -> Result<(), Error> {
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit);
        let limit = usize::try_from(limit.unwrap_or(HISTORY_MAX)).unwrap_or(0);
        let of_pod = |pod: &Pod| pod.metadata.labels.as_ref()?.get(REVISION_HASH).cloned();
        let live: Vec<String> = pods.iter().filter_map(|p| of_pod(p)).collect();
        let is_live = |r: &ControllerRevision| live.iter().any(|h| h == history::hash_of(r));
        history::truncate(&self.client, old, limit, is_live).await
    }

    /// The present template's revision and the others; `None` if the set must not adopt.
    async fn history(
        &self,
        key: &Key,
        set: &DaemonSet,
        pods: &[Arc<Pod>],
    ) -> Result<Option<(ControllerRevision, Vec<Arc<ControllerRevision>>)>, Error> {
        let Some(spec) = &set.spec else { return Ok(None) };
        let mut all = self.revisions_by_controller.get(uid(&set.metadata));
        all.extend(self.orphan_revisions.get(&key.0));
        let fits = selected_by(selector(&spec.selector));
        let candidates = Candidates::sort(set, fits, all, |_| true);
        let Some(all) = claim(&self.client, set, candidates).await? else { return Ok(None) };
        let (mut present, old): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|r| history::keeps(r, &spec.template));
        let number = old.iter().map(|r| r.revision).max().unwrap_or(0) + 1;
        present.sort_by_key(|r| r.revision);
        let Some(kept) = present.pop() else {
            let known = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
            let template = &spec.template;
            let (made, collisions) =
                history::create(&self.client, set, template, number, known).await?;
            self.note_collisions(set, collisions).await?;
            return Ok(Some((made, old)));
        };
        self.drop_doubles(key, pods, &kept, &present).await?;
        let kept = match kept.revision < number {
            true => history::renumber(&self.client, &kept, number).await?,
            false => ControllerRevision::clone(&kept),
        };
        Ok(Some((kept, old)))
    }

    async fn note_collisions(&self, set: &DaemonSet, collisions: i32) -> Result<(), Error> {
        let mut status = set.status.clone().unwrap_or_default();
        status.collision_count = Some(collisions).filter(|n| *n > 0);
        if same_status(set.status.as_ref(), Some(&status)) {
            return Ok(());
        }
        let new = DaemonSet { status: Some(status), ..set.clone() };
        self.client.update_status(&new).await.map(drop)
    }

    /// Several revisions of one template: their pods get the label of the one that stays.
    async fn drop_doubles(
        &self,
        key: &Key,
        pods: &[Arc<Pod>],
        kept: &ControllerRevision,
        doubles: &[Arc<ControllerRevision>],
    ) -> Result<(), Error> {
        let hash = history::hash_of(kept);
        for double in doubles {
            let of = |pod: &Pod| pod.metadata.labels.as_ref()?.get(REVISION_HASH).cloned();
            let gone = history::hash_of(double);
            for pod in pods.iter().filter(|p| of(p).as_deref() == Some(gone)) {
                let patch = Patch::Merge(json!({"metadata": {"labels": {REVISION_HASH: hash}}}));
                match self.client.patch::<Pod>(&key.0, name(&pod.metadata), &patch).await {
                    Err(error) if error.is_not_found() => {}
                    other => drop(other?),
                }
            }
            history::delete(&self.client, double).await?;
        }
        Ok(())
    }
}
