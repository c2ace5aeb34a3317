//! The scheduler's memory: cache, queue and nominations, changed by what the informers tell.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use client::Change;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use tokio::time::Instant;

use crate::cache::Cache;
use crate::event::{Action, ClusterEvent, Object, node_actions, pod_actions};
use crate::labels::Labels;
use crate::nominated::Nominated;
use crate::pod::{PodInfo, node_of, scheduler_name};
use crate::profile::Profile;
use crate::queue::{Hints, Queue};
use crate::snapshot::Snapshot;

/// The profiles by the scheduler names of their pods.
#[derive(Debug, Clone, Default)]
pub(crate) struct Profiles(pub(crate) Arc<HashMap<String, Arc<Profile>>>);

impl Profiles {
    pub(crate) fn new(all: Vec<Arc<Profile>>) -> Profiles {
        Profiles(Arc::new(all.into_iter().map(|p| (p.name.clone(), p)).collect()))
    }

    pub(crate) fn of(&self, pod: &PodInfo) -> Option<&Arc<Profile>> {
        self.0.get(pod.scheduler_name())
    }
}

impl Hints for Profiles {
    fn gate(&self, pod: &PodInfo) -> Option<&'static str> {
        self.of(pod)?.gate(pod).map(|(plugin, _)| plugin)
    }

    fn is_worth_requeuing(
        &self,
        pod: &PodInfo,
        rejectors: &BTreeSet<&'static str>,
        event: &ClusterEvent,
    ) -> bool {
        // An extender does not say what helps it.
        rejectors.contains(crate::extender::EXTENDER)
            || self.of(pod).is_some_and(|p| p.is_worth_requeuing(pod, rejectors, event))
    }
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) cache: Cache,
    pub(crate) queue: Queue,
    nominated: Arc<Nominated>,
    namespaces: Arc<HashMap<String, Labels>>,
    profiles: Profiles,
}

impl Core {
    pub(crate) fn new(profiles: Profiles, queue: Queue) -> Core {
        Core {
            cache: Cache::default(),
            queue,
            nominated: Arc::default(),
            namespaces: Arc::default(),
            profiles,
        }
    }

    /// Brings the snapshot up to date. Only the taking happens here, under the lock.
    pub(crate) fn update_of_snapshot(&mut self) -> impl FnOnce(&mut Snapshot) + use<> {
        let update = self.cache.take_update();
        let (nominated, namespaces) = (self.nominated.clone(), self.namespaces.clone());
        move |snapshot| snapshot.apply(update, nominated, namespaces)
    }

    pub(crate) fn pop(&mut self, now: Instant) -> Result<Arc<PodInfo>, Option<Instant>> {
        self.queue.pop(&self.profiles, now)
    }

    pub(crate) fn on_event(&mut self, event: &ClusterEvent, now: Instant) {
        self.queue.on_event(event, &self.profiles, now);
    }

    pub(crate) fn add_unschedulable(
        &mut self,
        uid: &str,
        rejectors: BTreeSet<&'static str>,
        now: Instant,
    ) {
        self.queue.add_unschedulable(uid, rejectors, &self.profiles, now);
    }

    pub(crate) fn add_failed(&mut self, pod: Arc<PodInfo>, now: Instant) {
        self.queue.add_failed(pod, &self.profiles, now);
    }

    pub(crate) fn end_preempting(&mut self, uid: &str, failed: bool, now: Instant) {
        self.queue.end_preempting(uid, failed, &self.profiles, now);
    }

    /// Keeps room on `node` for the pod, against pods of lower priority.
    pub(crate) fn nominate(&mut self, node: &str, pod: Arc<PodInfo>) {
        Arc::make_mut(&mut self.nominated).add(node, pod);
    }

    pub(crate) fn forget_nomination(&mut self, uid: &str) -> Option<String> {
        self.nominated.node_of(uid)?;
        Arc::make_mut(&mut self.nominated).remove(uid)
    }

    /// Pods of lower priority for which room was kept on the node: they have to find another place.
    pub(crate) fn take_lower_nominations(
        &mut self,
        node: &str,
        priority: i32,
    ) -> Vec<Arc<PodInfo>> {
        let lower = self.nominated.on(node).iter().filter(|p| p.priority() < priority);
        let lower: Vec<Arc<PodInfo>> = lower.cloned().collect();
        lower.iter().for_each(|p| drop(self.forget_nomination(p.uid())));
        lower
    }

    /// An assumed pod is not bound after all: its room is free again.
    pub(crate) fn forget(&mut self, pod: &Arc<PodInfo>, now: Instant) {
        if self.cache.forget(pod.uid()) {
            self.room_is_free(pod, now);
        }
    }

    fn room_is_free(&mut self, pod: &Arc<PodInfo>, now: Instant) {
        let mut gone = (*pod.pod).clone();
        // It was as good as on a node.
        gone.status.get_or_insert_default().nominated_node_name.get_or_insert("assumed".into());
        let event = ClusterEvent::new(Action::DELETE, Object::Pod((Some(Arc::new(gone)), None)));
        self.on_event(&event, now);
    }

    pub(crate) fn pod_changed(&mut self, change: &Change<Pod>, now: Instant) {
        let pod = change.object();
        let uid = pod.metadata.uid.as_deref().unwrap_or("");
        if matches!(change, Change::Deleted(_)) || is_over(pod) {
            self.pod_gone(pod, uid, now);
        } else if node_of(pod).is_some() {
            self.pod_on_node(change.old(), pod, uid, now);
        } else {
            self.pod_without_node(change.old(), pod, uid, now);
        }
    }

    fn pod_gone(&mut self, pod: &Arc<Pod>, uid: &str, now: Instant) {
        self.queue.remove(uid);
        let nominated = self.forget_nomination(uid).is_some();
        let assumed =
            self.cache.is_assumed(uid).then(|| self.cache.placed(uid).map(|(_, p)| p.clone()));
        let placed = self.cache.remove_pod(uid);
        match assumed.flatten() {
            Some(info) if placed => self.room_is_free(&info, now),
            _ if placed || nominated => {
                let event =
                    ClusterEvent::new(Action::DELETE, Object::Pod((Some(pod.clone()), None)));
                self.on_event(&event, now);
            }
            _ => {}
        }
    }

    fn pod_on_node(&mut self, old: Option<&Arc<Pod>>, pod: &Arc<Pod>, uid: &str, now: Instant) {
        self.queue.remove(uid);
        self.forget_nomination(uid);
        let node = node_of(pod).unwrap_or("");
        let assumed = self.cache.is_assumed(uid);
        let placed = self.cache.placed(uid);
        let here = placed.filter(|(info, _)| &*info.name == node).map(|(_, p)| p.pod.clone());
        if !assumed && here.as_ref().is_some_and(|known| counts_alike(known, pod)) {
            return;
        }
        self.cache.add_pod(node, Arc::new(PodInfo::new(pod.clone())));
        let before = old.filter(|old| node_of(old).is_some());
        let event = match before {
            Some(old) => ClusterEvent::new(
                pod_actions(old, pod),
                Object::Pod((Some(old.clone()), Some(pod.clone()))),
            ),
            None => ClusterEvent::new(Action::ADD, Object::Pod((None, Some(pod.clone())))),
        };
        self.on_event(&event, now);
    }

    fn pod_without_node(
        &mut self,
        old: Option<&Arc<Pod>>,
        pod: &Arc<Pod>,
        uid: &str,
        now: Instant,
    ) {
        let ours = self.profiles.0.contains_key(scheduler_name(pod));
        if !ours || pod.metadata.deletion_timestamp.is_some() {
            return self.pod_gone(pod, uid, now);
        }
        if self.cache.is_placed(uid) {
            return;
        }
        let info = Arc::new(PodInfo::new(pod.clone()));
        let nominated = |p: &Arc<Pod>| {
            let name = p.status.as_ref().and_then(|s| s.nominated_node_name.clone());
            name.filter(|n| !n.is_empty())
        };
        match nominated(pod) {
            Some(node) => self.nominate(&node, info.clone()),
            // Told to give up its place; a nomination of ours that is not written yet stays.
            None if old.is_some_and(|old| nominated(old).is_some()) => {
                self.forget_nomination(uid);
            }
            None => {
                if let Some(node) = self.nominated.node_of(uid).map(str::to_owned) {
                    self.nominate(&node, info.clone());
                }
            }
        }
        self.queue.put(info, &self.profiles, now);
        if let Some(old) =
            old.filter(|old| nominated(old).is_some() && nominated(old) != nominated(pod))
        {
            let event = ClusterEvent::new(Action::DELETE, Object::Pod((Some(old.clone()), None)));
            self.on_event(&event, now);
        }
    }

    pub(crate) fn node_changed(&mut self, change: &Change<Node>, now: Instant) {
        let (action, object) = match change {
            Change::Deleted(node) => {
                self.cache.remove_node(node.metadata.name.as_deref().unwrap_or(""));
                (Some(Action::DELETE), Object::Node((Some(node.clone()), None)))
            }
            Change::Added(node) => {
                self.cache.set_node(node.clone());
                (Some(Action::ADD), Object::Node((None, Some(node.clone()))))
            }
            Change::Updated { old, new } => {
                if weighs_alike(old, new) {
                    return;
                }
                self.cache.set_node(new.clone());
                (node_actions(old, new), Object::Node((Some(old.clone()), Some(new.clone()))))
            }
        };
        if let Some(action) = action {
            self.on_event(&ClusterEvent::new(action, object), now);
        }
    }

    pub(crate) fn namespace_changed(&mut self, change: &Change<Namespace>, now: Instant) {
        let namespace = change.object();
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        let gone = matches!(change, Change::Deleted(_));
        if !gone && self.namespaces.get(&name) == Some(&labels) {
            return;
        }
        let namespaces = Arc::make_mut(&mut self.namespaces);
        match gone {
            true => drop(namespaces.remove(&name)),
            false => drop(namespaces.insert(name, labels)),
        }
        let action = if change.old().is_some() { Action::UPDATE } else { Action::ADD };
        let after = (!gone).then(|| namespace.clone());
        let event = ClusterEvent::new(action, Object::Namespace((change.old().cloned(), after)));
        self.on_event(&event, now);
    }
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether two states of a placed pod mean the same to others.
fn counts_alike(old: &Pod, new: &Pod) -> bool {
    let spec = |p: &Pod| p.spec.as_ref().map(|s| (s.containers.clone(), s.resources.clone()));
    let resized = |p: &Pod| {
        let status = p.status.as_ref();
        let containers = status.and_then(|s| s.container_statuses.as_ref());
        let amounts = containers.into_iter().flatten();
        amounts.map(|c| (c.resources.clone(), c.allocated_resources.clone())).collect::<Vec<_>>()
    };
    let target = |p: &Pod| {
        let conditions = p.status.as_ref().and_then(|s| s.conditions.as_deref());
        conditions.unwrap_or_default().iter().any(|c| c.type_ == "DisruptionTarget")
    };
    old.metadata.labels == new.metadata.labels
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        && target(old) == target(new)
        && spec(old) == spec(new)
        && resized(old) == resized(new)
}

/// Whether two states of a node mean the same to pods: heartbeats change nothing.
fn weighs_alike(old: &Node, new: &Node) -> bool {
    let status = |n: &Node| {
        let status = n.status.as_ref();
        status.map(|s| (s.allocatable.clone(), s.images.clone(), s.declared_features.clone()))
    };
    old.metadata.labels == new.metadata.labels && old.spec == new.spec && status(old) == status(new)
}
