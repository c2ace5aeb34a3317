//! Resource quotas: their status says what the namespace's objects cost.
//!
//! Admission charges new objects; this controller counts at first, gives back what goes, and
//! corrects what was charged for nothing. Follows the resources that quotas limit, no others.

mod count;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use admission::quota::{self, Amounts, add, resource_of};
use client::run_workers;
use client::{Action, Change, Client, Error, Follow, FollowEvent, Informer, Queue, Tasks};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;
use tokio::time::Instant;

use self::count::{Counts, Resource, Shift};
use self::plan::Known;
use crate::Context;
use crate::discovery::discover;
use crate::meta::{Key, key};

/// Quotas settled at once (upstream's --concurrent-resource-quota-syncs).
const WORKERS: usize = 5;
/// After this time without a charge every object charged is stored and seen, or never will be.
const SETTLED: Duration = Duration::from_secs(10);

pub(crate) fn start(context: &Context) {
    let this = Quotas {
        client: context.client.clone(),
        tasks: context.tasks.clone(),
        quotas: context.informers.of(),
        state: Arc::default(),
        queue: Queue::new(),
    };
    this.watch();
    context.tasks.spawn("resource quota definitions", this.clone().follow_definitions());
    context.tasks.required("resource quota", this.run());
}

#[derive(Default)]
struct State {
    counts: Counts,
    /// By quota: what went since its status was written.
    released: HashMap<Key, Amounts>,
    /// By quota: when its status last changed.
    changed: HashMap<Key, Instant>,
}

#[derive(Clone)]
struct Quotas {
    client: Client,
    tasks: Tasks,
    quotas: Informer<ResourceQuota>,
    state: Arc<Mutex<State>>,
    queue: Queue<Key>,
}

fn read(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    quota::amounts(&serde_json::to_value(list).unwrap_or_default())
}

fn write(list: &Amounts) -> BTreeMap<String, Quantity> {
    list.iter().map(|(name, amount)| (name.clone(), Quantity(amount.to_string()))).collect()
}

fn hard(quota: &ResourceQuota) -> Amounts {
    read(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()))
}

fn spec(quota: &ResourceQuota) -> Value {
    serde_json::to_value(&quota.spec).unwrap_or_default()
}

fn resources(hard: &Amounts) -> BTreeSet<Resource> {
    hard.keys().filter_map(|name| resource_of(name)).collect()
}

impl Quotas {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let this = self.clone();
        self.quotas.on_change(move |change| {
            let quota = change.object();
            let key = key(&**quota);
            if matches!(change, Change::Deleted(_)) {
                let mut state = this.state();
                state.released.remove(&key);
                state.changed.remove(&key);
            } else {
                this.state().changed.insert(key.clone(), Instant::now());
            }
            let spec_stays = change.old().is_some_and(|old| old.spec == quota.spec);
            let hard_told = quota.status.as_ref().is_some_and(|s| {
                s.hard == quota.spec.as_ref().and_then(|s| s.hard.clone()) && s.used.is_some()
            });
            let only_charged = spec_stays && hard_told && !matches!(change, Change::Deleted(_));
            let delay = if only_charged { SETTLED } else { Duration::ZERO };
            this.queue.add_after(key, delay);
        });
    }

    async fn run(self) {
        self.quotas.synced().await;
        let queue = self.queue.clone();
        let work = move |key: Key| {
            let this = self.clone();
            async move { this.sync(key).await }
        };
        run_workers("resource quota", queue, WORKERS, work).await;
    }

    /// Resources come with definitions: quotas that count what was unknown are looked at again.
    async fn follow_definitions(self) {
        let mut follower = self.client.follow(Follow {
            group: "apiextensions.k8s.io".into(),
            version: "v1".into(),
            resource: "customresourcedefinitions".into(),
            ..Follow::default()
        });
        while let Some(event) = follower.next().await {
            if matches!(event, FollowEvent::Put(_)) {
                let unknown = std::mem::take(&mut self.state().counts.unknown);
                if !unknown.is_empty() {
                    self.queue_those_with(|resource| unknown.contains(resource));
                }
            }
        }
    }

    fn queue_those_with(&self, wanted: impl Fn(&Resource) -> bool) {
        for quota in self.quotas.list() {
            if resources(&hard(&quota)).iter().any(&wanted) {
                self.queue.add(key(&*quota));
            }
        }
    }

    async fn follow(self, resource: Resource, version: String) {
        let mut follower = self.client.follow(Follow {
            group: resource.0.clone(),
            version,
            resource: resource.1.clone(),
            ..Follow::default()
        });
        let mut unseen: BTreeSet<Key> = BTreeSet::new();
        while let Some(event) = follower.next().await {
            match event {
                FollowEvent::Reset => unseen = self.state().counts.keys(&resource),
                FollowEvent::Put(object) => {
                    let meta = object.meta();
                    let key = (meta.namespace.to_string(), meta.name.to_string());
                    unseen.remove(&key);
                    self.shift(&key.0, |counts| counts.put(&resource, &object));
                }
                FollowEvent::Delete(object) => {
                    let meta = object.meta();
                    let key = (meta.namespace.to_string(), meta.name.to_string());
                    self.shift(&key.0, |counts| counts.remove(&resource, &key));
                }
                FollowEvent::Synced(_) => {
                    for key in std::mem::take(&mut unseen) {
                        self.shift(&key.0, |counts| counts.remove(&resource, &key));
                    }
                    self.state().counts.set_synced(&resource);
                    self.queue_those_with(|r| *r == resource);
                }
            }
        }
    }

    /// Takes a change of an object in, and tells the namespace's quotas.
    fn shift(&self, namespace: &str, change: impl FnOnce(&mut Counts) -> Option<Shift>) {
        let quotas = self.quotas.list_namespace(namespace);
        let mut state = self.state();
        let Some(shift) = change(&mut state.counts) else { return };
        let now = Timestamp::now();
        for quota in quotas {
            let released = count::released(&shift, &spec(&quota), now);
            let released = plan::masked(released, &hard(&quota));
            let key = key(&*quota);
            if released.is_empty() {
                self.queue.add_after(key.clone(), SETTLED);
            } else {
                add(state.released.entry(key.clone()).or_default(), &released);
                self.queue.add(key.clone());
            }
            let ends = shift.after.as_ref().and_then(|after| after.until());
            let left = ends.and_then(|ends| Duration::try_from(ends.duration_since(now)).ok());
            if let Some(left) = left {
                self.queue.add_after(key, left + SETTLED);
            }
        }
    }

    async fn sync(&self, key: Key) -> Result<Action, Error> {
        let Some(quota) = self.quotas.get(&key.0, &key.1) else {
            self.trim();
            return Ok(Action::Done);
        };
        let wanted = resources(&hard(&quota));
        self.follow_new(&wanted).await?;
        let Some((plan, released)) = self.plan(&key, &quota, &wanted) else {
            return Ok(Action::Done);
        };
        if let Some(used) = plan.write
            && let Err(error) = self.write(&quota, &used).await
        {
            add(self.state().released.entry(key).or_default(), &released);
            return if error.is_not_found() { Ok(Action::Done) } else { Err(error) };
        }
        Ok(if plan.again { Action::After(SETTLED) } else { Action::Done })
    }

    /// Starts following what is counted from now on.
    async fn follow_new(&self, wanted: &BTreeSet<Resource>) -> Result<(), Error> {
        let new: Vec<&Resource> = {
            let counts = &self.state().counts;
            let known = |r: &&Resource| counts.follows(r) || counts.unknown.contains(*r);
            wanted.iter().filter(|r| !known(r)).collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        self.trim();
        let served = discover(&self.client).await?.resources;
        for resource in new {
            let found = served.iter().find(|s| s.group == resource.0 && s.name == resource.1);
            let Some(found) = found.filter(|s| s.namespaced && s.can("list") && s.can("watch"))
            else {
                self.state().counts.unknown.insert(resource.clone());
                continue;
            };
            let tasks = self.tasks.child();
            if self.state().counts.start(resource, tasks.clone()) {
                let follow = self.clone().follow(resource.clone(), found.version.clone());
                tasks.spawn("resource quota follower", follow);
            }
        }
        Ok(())
    }

    /// Ends following what no quota limits any more.
    fn trim(&self) {
        let wanted = self.quotas.list().iter().flat_map(|quota| resources(&hard(quota))).collect();
        self.state().counts.keep_only(&wanted);
    }

    /// What to do, and what of it gives back what went; nothing until all is counted.
    fn plan(
        &self,
        key: &Key,
        quota: &ResourceQuota,
        wanted: &BTreeSet<Resource>,
    ) -> Option<(plan::Plan, Amounts)> {
        let mut state = self.state();
        if !wanted.iter().all(|resource| state.counts.is_synced(resource)) {
            return None;
        }
        let released = state.released.remove(key).unwrap_or_default();
        let hard = hard(quota);
        let counts = &state.counts;
        let counted = counts.total(wanted, &key.0, &spec(quota), Timestamp::now());
        let followed = |name: &&String| resource_of(name).is_some_and(|r| counts.follows(&r));
        let status = quota.status.as_ref();
        let plan = plan::plan(&Known {
            hard: &hard,
            told_hard: &read(status.and_then(|s| s.hard.as_ref())),
            used: &read(status.and_then(|s| s.used.as_ref())),
            counted: &counted,
            countable: &hard.keys().filter(followed).cloned().collect(),
            released: &released,
            quiet: state.changed.get(key).is_none_or(|at| at.elapsed() >= SETTLED),
        });
        Some((plan, released))
    }

    async fn write(&self, quota: &ResourceQuota, used: &Amounts) -> Result<(), Error> {
        let mut quota = quota.clone();
        quota.status = Some(ResourceQuotaStatus {
            hard: quota.spec.as_ref().and_then(|spec| spec.hard.clone()),
            used: Some(write(used)),
        });
        self.client.update_status(&quota).await.map(drop)
    }
}
