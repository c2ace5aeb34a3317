//! Garbage collection: ends objects whose owners are all gone, in the background, in the
//! foreground, or lets them go.
//!
//! Follows every resource that can be deleted. A change costs a look at the objects it concerns;
//! nothing is ended before the server itself, not our view of it, says that the owner is gone.

mod graph;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{Object, Owner};
use bytes::Bytes;
use client::{Action, Client, Error, Follow, FollowEvent, Queue, Request, Tasks, run_workers};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore, watch};

use self::graph::{FOREGROUND, Graph, Node, ORPHAN};
use self::plan::{Fate, Verdict};
use crate::Context;
use crate::discovery::{ApiResource, Discovery, discover};

/// Objects looked at together (upstream's --concurrent-gc-syncs).
const WORKERS: usize = 20;
/// Wait before discovery is tried again after it failed.
const DISCOVERY_RETRY: Duration = Duration::from_secs(2);
/// When groups that did not answer are asked again (upstream discovers every 30 s in any case).
const FAILED_GROUP_RETRY: Duration = Duration::from_secs(30);
/// A resource that cannot be listed (a definition whose webhook is broken) holds the collector up for
/// so long, not for ever (upstream's initialSyncTimeout).
const FIRST_LOOK_MAX: Duration = Duration::from_secs(30);
/// Resources whose objects change what resources there are.
const DEFINING: [&str; 2] = ["customresourcedefinitions", "apiservices"];
/// Resources whose objects own nothing and are too many to follow (upstream's list).
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

pub(crate) fn start(context: &Context) {
    let this = Collector {
        client: context.client.clone(),
        tasks: context.tasks.clone(),
        graph: Arc::default(),
        kinds: Arc::default(),
        queue: Queue::new(),
        redefined: Arc::new(Notify::new()),
        looking: watch::Sender::new(false),
    };
    context.tasks.required("garbage collector", this.clone().follow_all());
    context.tasks.required("garbage collector workers", this.work());
}

/// Group and kind.
type Kind = (String, String);

#[derive(Clone)]
struct Collector {
    client: Client,
    tasks: Tasks,
    graph: Arc<Mutex<Graph>>,
    kinds: Arc<Mutex<HashMap<Kind, Arc<ApiResource>>>>,
    queue: Queue<String>,
    /// The set of resources may have changed.
    redefined: Arc<Notify>,
    /// Whether the first snapshots are in. Before, dependents could be unknown: an owner would be let
    /// go without orphaning them.
    looking: watch::Sender<bool>,
}

/// A resource whose first snapshot is waited for; dropped when it is complete or will never be.
struct Snapshot {
    resource: Arc<ApiResource>,
    missing: Arc<Mutex<HashSet<(String, String)>>>,
    complete: Arc<Semaphore>,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.remove(&(self.resource.group.clone(), self.resource.name.clone()));
        self.complete.add_permits(1);
    }
}

impl Collector {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<Kind, Arc<ApiResource>>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a follower for each resource there is.
    async fn follow_all(self) {
        let mut followed: HashMap<(String, String), Tasks> = HashMap::new();
        loop {
            match discover(&self.client).await {
                Err(error) => {
                    tracing::debug!(%error, "garbage collector: discovery failed, will retry");
                    tokio::time::sleep(DISCOVERY_RETRY).await;
                    continue;
                }
                Ok(found) => {
                    let failed = found.failed.clone();
                    self.adjust(&mut followed, found);
                    if !failed.is_empty() {
                        tracing::debug!(?failed, "garbage collector: groups that do not answer");
                        let again = self.redefined.notified();
                        // Sooner when a definition changes; whether it timed out does not matter.
                        let _elapsed = tokio::time::timeout(FAILED_GROUP_RETRY, again).await;
                        continue;
                    }
                }
            }
            self.redefined.notified().await;
        }
    }

    fn adjust(&self, followed: &mut HashMap<(String, String), Tasks>, found: Discovery) {
        let known = |r: &ApiResource| (r.group.clone(), r.name.clone());
        let present: HashSet<_> = found.resources.iter().map(known).collect();
        followed.retain(|place, tasks| {
            // What a group that does not answer has is not gone.
            let stays = present.contains(place) || found.misses(&place.0);
            if !stays {
                tasks.cancel();
                self.kinds().retain(|_, r| known(r) != *place);
            }
            stays
        });
        let wanted = |r: &ApiResource| {
            ["delete", "list", "watch"].iter().all(|verb| r.can(verb))
                && !IGNORED.contains(&(&*r.group, &*r.name))
        };
        let missing = Arc::new(Mutex::new(HashSet::new()));
        let complete = Arc::new(Semaphore::new(0));
        let mut fresh: u32 = 0;
        for resource in found.resources.into_iter().map(Arc::new) {
            self.kinds().insert((resource.group.clone(), resource.kind.clone()), resource.clone());
            let place = known(&resource);
            if wanted(&resource) && !followed.contains_key(&place) {
                let tasks = self.tasks.child();
                missing.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone());
                let (missing, complete) = (missing.clone(), complete.clone());
                let snapshot = Snapshot { resource: resource.clone(), missing, complete };
                tasks.spawn("garbage collector follower", self.clone().follow(resource, snapshot));
                followed.insert(place, tasks);
                fresh += 1;
            }
        }
        let this = self.clone();
        let first_look = async move {
            let in_time = tokio::time::timeout(FIRST_LOOK_MAX, complete.acquire_many(fresh)).await;
            if in_time.is_err() {
                let missing = missing.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tracing::warn!(?missing, "garbage collector: resources not listed, going on");
                this.first_look();
                // Those that come after all are looked at then.
                let _late = complete.acquire_many(fresh).await;
            }
            this.first_look();
        };
        if fresh > 0 {
            self.tasks.spawn("garbage collector first look", first_look);
        }
    }

    fn first_look(&self) {
        let suspects = self.graph().suspects();
        suspects.into_iter().for_each(|uid| self.queue.add(uid));
        self.looking.send_replace(true);
    }

    async fn follow(self, resource: Arc<ApiResource>, snapshot: Snapshot) {
        let mut snapshot = Some(snapshot);
        let follow = Follow {
            group: resource.group.clone(),
            version: resource.version.clone(),
            resource: resource.name.clone(),
            ..Follow::default()
        };
        let mut follower = self.client.follow(follow);
        let mut unseen: Option<HashSet<String>> = None;
        while let Some(event) = follower.next().await {
            let look = match event {
                FollowEvent::Reset => {
                    unseen = Some(self.graph().of_resource(&resource));
                    Vec::new()
                }
                FollowEvent::Put(object) => {
                    if let Some(unseen) = &mut unseen {
                        unseen.remove(&*object.meta().uid);
                    }
                    let look = self.put(&resource, &object);
                    // Before the first snapshots are in, an owner not seen says nothing.
                    if snapshot.is_none() { look } else { Vec::new() }
                }
                FollowEvent::Delete(object) => {
                    self.changed(&resource);
                    self.graph().remove(&object.meta().uid)
                }
                FollowEvent::Synced(_) => {
                    let gone = unseen.take().into_iter().flatten();
                    let look = {
                        let mut graph = self.graph();
                        gone.flat_map(|uid| graph.remove(&uid)).collect()
                    };
                    drop(snapshot.take());
                    look
                }
            };
            look.into_iter().for_each(|uid| self.queue.add(uid));
        }
    }

    fn put(&self, resource: &Arc<ApiResource>, object: &Object) -> Vec<String> {
        self.changed(resource);
        self.graph().put(resource, object)
    }

    fn changed(&self, resource: &ApiResource) {
        if DEFINING.contains(&&*resource.name) {
            self.redefined.notify_one();
        }
    }

    async fn work(self) {
        let mut looking = self.looking.subscribe();
        // The sender lives in `self`, so that this does not fail.
        if looking.wait_for(|looking| *looking).await.is_err() {
            return;
        }
        let queue = self.queue.clone();
        let work = move |uid: String| {
            let this = self.clone();
            async move { this.look(&uid).await.map(|()| Action::Done) }
        };
        run_workers("garbage collector", queue, WORKERS, work).await;
    }

    async fn look(&self, uid: &str) -> Result<(), Error> {
        let Some(node) = self.graph().get(uid).cloned() else { return Ok(()) };
        if node.orphaning {
            return self.orphan(uid, &node).await;
        }
        if node.foreground {
            return self.finish_foreground(uid, &node).await;
        }
        if node.ending {
            return Ok(());
        }
        let Some(mut live) = self.live(&node, uid).await? else {
            let look = self.graph().remove(uid);
            look.into_iter().for_each(|uid| self.queue.add(uid));
            return Ok(());
        };
        let mut fates = Vec::new();
        for owner in owners(&live) {
            fates.push(self.fate(&node, &owner).await?);
        }
        let (has_dependents, circular) = {
            let graph = self.graph();
            let ends = graph.dependents(uid).any(|(_, dependent)| dependent.foreground);
            (graph.dependents(uid).next().is_some(), ends && fates.contains(&Fate::Waiting))
        };
        if circular && let Some(patch) = plan::without_blocking(&live) {
            // Owners wait for it and dependents of it wait too: perhaps for each other. Those who
            // own it wait no more, so that a circle has an end.
            self.patch(&node, &patch).await?;
            match self.live(&node, uid).await? {
                Some(now) => live = now,
                None => return Ok(()),
            }
        }
        match plan::verdict(&live, &fates, has_dependents) {
            Verdict::Keep => Ok(()),
            Verdict::Keeping(kept) => self.patch(&node, &plan::with_owners(&live, &kept)).await,
            Verdict::Delete(propagation) => self.delete(&node, &live, propagation).await,
        }
    }

    /// What the reference leads to; asks the server when the owner is not in view.
    async fn fate(&self, node: &Node, owner: &Owner) -> Result<Fate, Error> {
        if let Some(known) = self.graph().get(&owner.uid) {
            // A namespaced owner elsewhere is none at all.
            let elsewhere = known.resource.namespaced && known.namespace != node.namespace;
            let fate = match elsewhere {
                true => Fate::Dangling,
                false if known.foreground && owner.block_owner_deletion => Fate::Waiting,
                false => Fate::Solid,
            };
            return Ok(fate);
        }
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = (group.to_owned(), owner.kind.to_string());
        let Some(resource) = self.kinds().get(&kind).cloned() else {
            // A kind the server does not know may come back: its objects are not declared dead.
            tracing::debug!(?kind, "owner of unknown kind");
            return Ok(Fate::Solid);
        };
        if resource.namespaced && node.namespace.is_empty() {
            return Ok(Fate::Solid);
        }
        let target = resource.path(&node.namespace, &owner.name);
        let found: Result<Value, Error> =
            self.client.send(Method::GET, target, None, Bytes::new()).await;
        match found {
            Ok(live) if live["metadata"]["uid"] == *owner.uid => Ok(Fate::Solid),
            Ok(_) => Ok(Fate::Dangling),
            Err(error) if error.is_not_found() => Ok(Fate::Dangling),
            Err(error) => Err(error),
        }
    }

    /// Ends the blocking dependents, or lets the owner go when there are none.
    async fn finish_foreground(&self, uid: &str, node: &Node) -> Result<(), Error> {
        let blocking: Vec<String> = {
            let graph = self.graph();
            let blocks = |(_, n): &(&String, &Node)| {
                n.owners.iter().any(|o| *o.uid == *uid && o.block_owner_deletion)
            };
            graph.dependents(uid).filter(blocks).map(|(uid, _)| uid.clone()).collect()
        };
        if !blocking.is_empty() {
            // What ends already tells when it is gone.
            let graph = self.graph();
            let idle = blocking.iter().filter(|uid| graph.get(uid).is_some_and(|n| !n.ending));
            idle.for_each(|uid| self.queue.add(uid.clone()));
            return Ok(());
        }
        self.remove_finalizer(uid, node, FOREGROUND).await
    }

    /// Lets all dependents go, then the owner.
    async fn orphan(&self, uid: &str, node: &Node) -> Result<(), Error> {
        let dependents: Vec<(String, Node)> = {
            let graph = self.graph();
            graph.dependents(uid).map(|(uid, n)| (uid.clone(), n.clone())).collect()
        };
        for (dependent, its) in dependents {
            let Some(live) = self.live(&its, &dependent).await? else { continue };
            if let Some(rest) = plan::owners_without(&live, uid) {
                self.patch(&its, &plan::with_owners(&live, &rest)).await?;
            }
        }
        self.remove_finalizer(uid, node, ORPHAN).await
    }

    async fn remove_finalizer(&self, uid: &str, node: &Node, finalizer: &str) -> Result<(), Error> {
        let Some(live) = self.live(node, uid).await? else { return Ok(()) };
        match plan::without_finalizer(&live, finalizer) {
            Some(patch) => self.patch(node, &patch).await,
            None => Ok(()),
        }
    }

    /// The object as the server has it, if it is still the same one.
    async fn live(&self, node: &Node, uid: &str) -> Result<Option<Value>, Error> {
        let target = node.resource.path(&node.namespace, &node.name);
        let live: Result<Value, Error> =
            self.client.send(Method::GET, target, None, Bytes::new()).await;
        match live {
            Ok(live) if live["metadata"]["uid"] == uid => Ok(Some(live)),
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn patch(&self, node: &Node, patch: &Value) -> Result<(), Error> {
        let request = Request {
            method: Method::PATCH,
            target: node.resource.path(&node.namespace, &node.name),
            content_type: Some("application/merge-patch+json"),
            body: Bytes::from(patch.to_string()),
        };
        self.send(request).await
    }

    async fn delete(&self, node: &Node, live: &Value, propagation: &str) -> Result<(), Error> {
        let meta = &live["metadata"];
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
            "propagationPolicy": propagation,
            "preconditions": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}});
        let request = Request {
            method: Method::DELETE,
            target: node.resource.path(&node.namespace, &node.name),
            content_type: None,
            body: Bytes::from(options.to_string()),
        };
        self.send(request).await
    }

    async fn send(&self, request: Request) -> Result<(), Error> {
        match self.client.call(request).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}

fn owners(live: &Value) -> Vec<Owner> {
    api::Meta::of(live, 0, &[]).owners.into_vec()
}
