//! The pods of the node: the API's but for mirrors, and the static ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use client::{Change, Informer};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, watch};

use super::{MIRROR, SEEN, SOURCE, Source};
use crate::spec::{name_of, namespace_of, uid_of};

/// Namespace and name: what a static pod and its mirror have in common.
pub(crate) type FullName = (String, String);

pub(crate) fn full_name(pod: &Pod) -> FullName {
    (namespace_of(pod).to_owned(), name_of(pod).to_owned())
}

pub(crate) fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR))
}

#[derive(Debug, Default)]
struct Statics {
    /// By uid.
    pods: BTreeMap<String, (Source, Arc<Pod>)>,
    /// Those that have an actor, also when their manifest is gone.
    running: BTreeMap<String, FullName>,
    /// Sources that were read.
    read: BTreeSet<Source>,
}

impl Statics {
    fn replace(&mut self, source: Source, pods: Vec<Pod>) -> Vec<Change<Pod>> {
        self.read.insert(source);
        let mut kept = BTreeSet::new();
        let mut changes = Vec::new();
        for pod in pods {
            let uid = uid_of(&pod).to_owned();
            let taken = self.pods.get(&uid).is_some_and(|(of, _)| *of != source);
            if taken || !kept.insert(uid.clone()) {
                tracing::error!(uid, "two static pods with one uid: the second is left out");
                continue;
            }
            changes.extend(self.put(source, uid, pod));
        }
        let mut gone = Vec::new();
        self.pods.retain(|uid, (of, pod)| {
            let stays = *of != source || kept.contains(uid);
            if !stays {
                gone.push(Change::Deleted(pod.clone()));
            }
            stays
        });
        // The end of a pod comes before the start of another one of its name.
        gone.extend(changes);
        gone
    }

    fn put(&mut self, source: Source, uid: String, mut pod: Pod) -> Option<Change<Pod>> {
        let old = self.pods.get(&uid).map(|(_, old)| old.clone());
        mark(&mut pod, source, old.as_deref());
        if old.as_ref().is_some_and(|old| is_same(old, &pod)) {
            return None;
        }
        pod.status = old.as_ref().and_then(|old| old.status.clone());
        let new = Arc::new(pod);
        self.pods.insert(uid, (source, new.clone()));
        Some(match old {
            Some(old) => Change::Updated { old, new },
            None => Change::Added(new),
        })
    }

    fn start(&mut self, pod: &Pod) -> bool {
        let (uid, name) = (uid_of(pod), full_name(pod));
        if self.running.iter().any(|(other, of)| *of == name && other != uid) {
            return false;
        }
        self.running.insert(uid.to_owned(), name);
        true
    }

    fn has(&self, name: &FullName) -> bool {
        let there = self.pods.values().any(|(_, pod)| full_name(pod) == *name);
        there || self.running.values().any(|of| of == name)
    }
}

pub(crate) struct Pods {
    /// What the API has, mirrors included.
    pub(crate) api: Informer<Pod>,
    /// Sources that there are beside the API.
    sources: BTreeSet<Source>,
    statics: Mutex<Statics>,
    /// Told when mirrors may have to be made or removed.
    pub(crate) mirrors: Notify,
    /// Whether all sources were read.
    complete: watch::Sender<bool>,
    /// Counts ends of static pods: the next of the same name may start.
    ended: watch::Sender<u64>,
}

impl Pods {
    pub(crate) fn new(api: Informer<Pod>, sources: impl IntoIterator<Item = Source>) -> Pods {
        let sources: BTreeSet<Source> = sources.into_iter().collect();
        Pods {
            api,
            complete: watch::Sender::new(sources.is_empty()),
            sources,
            statics: Mutex::default(),
            mirrors: Notify::new(),
            ended: watch::Sender::new(0),
        }
    }

    fn statics(&self) -> MutexGuard<'_, Statics> {
        self.statics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All pods that the node is to run, or that it refused.
    pub(crate) fn list(&self) -> Vec<Arc<Pod>> {
        let mut all = self.api.list();
        all.retain(|pod| !is_mirror(pod));
        all.extend(self.list_static());
        all
    }

    pub(crate) fn list_static(&self) -> Vec<Arc<Pod>> {
        self.statics().pods.values().map(|(_, pod)| pod.clone()).collect()
    }

    /// The pod of that name; a mirror stands for its static pod.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let own = self.find_static(namespace, name);
        own.or_else(|| self.api.get(namespace, name).filter(|pod| !is_mirror(pod)))
    }

    /// Those whose turn has come: another one of the same name has ended.
    pub(super) fn list_started(&self) -> Vec<Arc<Pod>> {
        let statics = self.statics();
        let started = |(uid, _): &(&String, _)| statics.running.contains_key(*uid);
        statics.pods.iter().filter(started).map(|(_, (_, pod))| pod.clone()).collect()
    }

    pub(crate) fn find_static(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let statics = self.statics();
        let mut all = statics.pods.values().map(|(_, pod)| pod);
        all.find(|pod| namespace_of(pod) == namespace && name_of(pod) == name).cloned()
    }

    /// The mirror that the API shows of a static pod, whichever manifest it was made of.
    pub(crate) fn mirror(&self, pod: &Pod) -> Option<Arc<Pod>> {
        self.api.get(namespace_of(pod), name_of(pod)).filter(|found| is_mirror(found))
    }

    /// Whether a static pod has this uid. Pods of the API never have one of these: no annotation
    /// makes a pod static.
    pub(crate) fn is_static(&self, uid: &str) -> bool {
        let statics = self.statics();
        statics.pods.contains_key(uid) || statics.running.contains_key(uid)
    }

    pub(crate) fn static_uids(&self) -> BTreeSet<String> {
        let statics = self.statics();
        statics.pods.keys().chain(statics.running.keys()).cloned().collect()
    }

    /// Whether all sources were read: what none of them has is an orphan.
    pub(crate) fn is_complete(&self) -> bool {
        *self.complete.borrow()
    }

    /// Waits until all sources were read once.
    pub(crate) async fn complete(&self) {
        let mut complete = self.complete.subscribe();
        // The sender lives as long as this.
        let _there = complete.wait_for(|complete| *complete).await;
    }

    /// The source has these pods, and no others; what that changes.
    pub(super) fn replace(&self, source: Source, pods: Vec<Pod>) -> Vec<Change<Pod>> {
        let mut statics = self.statics();
        let changes = statics.replace(source, pods);
        let complete = statics.read == self.sources;
        drop(statics);
        self.complete.send_if_modified(|was| !std::mem::replace(was, complete) && complete);
        self.mirrors.notify_one();
        changes
    }

    /// What the node's own API shows of a static pod.
    pub(crate) fn set_status(&self, uid: &str, status: &PodStatus) {
        if let Some((_, pod)) = self.statics().pods.get_mut(uid) {
            Arc::make_mut(pod).status = Some(status.clone());
        }
    }

    /// A static pod has an actor; `false` when another one of its name still has one.
    pub(crate) fn start_static(&self, pod: &Pod) -> bool {
        let started = self.statics().start(pod);
        self.mirrors.notify_one();
        started
    }

    /// The actor of a pod has ended.
    pub(crate) fn end_static(&self, uid: &str) {
        if self.statics().running.remove(uid).is_some() {
            self.ended.send_modify(|count| *count += 1);
            self.mirrors.notify_one();
        }
    }

    pub(crate) fn ends(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// Whether a static pod of this name is there or has not ended yet.
    pub(crate) fn has_static(&self, name: &FullName) -> bool {
        self.statics().has(name)
    }
}

/// Says where the pod came from, and since when.
fn mark(pod: &mut Pod, source: Source, old: Option<&Pod>) {
    let before = old.and_then(|old| old.metadata.annotations.as_ref()?.get(SEEN).cloned());
    let seen = before.unwrap_or_else(|| jiff::Timestamp::now().to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(SEEN.to_owned(), seen);
    annotations.insert(SOURCE.to_owned(), source.name().to_owned());
}

fn is_same(old: &Pod, new: &Pod) -> bool {
    old.metadata == new.metadata && old.spec == new.spec
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, image: &str) -> Pod {
        let spec = json!({"containers": [{"name": "c", "image": image}]});
        let meta = json!({"name": name, "namespace": "default", "uid": uid});
        serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
    }

    fn told(changes: &[Change<Pod>]) -> Vec<String> {
        let one = |change: &Change<Pod>| {
            let kind = match change {
                Change::Added(_) => "added",
                Change::Updated { .. } => "updated",
                Change::Deleted(_) => "deleted",
            };
            format!("{kind} {}", uid_of(change.object()))
        };
        changes.iter().map(one).collect()
    }

    #[test]
    fn a_source_replaces_its_own_pods() {
        let mut statics = Statics::default();
        let mut told_of = |source, list| told(&statics.replace(source, list));
        assert_eq!(told_of(Source::File, vec![pod("a", "1", "i")]), ["added 1"]);
        assert!(told_of(Source::File, vec![pod("a", "1", "i")]).is_empty(), "nothing changed");
        assert_eq!(told_of(Source::Url, vec![pod("b", "2", "i")]), ["added 2"]);
        assert_eq!(told_of(Source::File, vec![pod("a", "1", "j")]), ["updated 1"]);
        assert_eq!(told_of(Source::File, vec![pod("a", "3", "j")]), ["deleted 1", "added 3"]);
        assert_eq!(told_of(Source::Url, vec![]), ["deleted 2"], "the other source keeps its own");
        assert!(told_of(Source::Url, vec![pod("x", "3", "i")]).is_empty(), "one uid is one pod");
        assert_eq!((statics.pods.len(), statics.read.len()), (1, 2));
        let annotations = statics.pods["3"].1.metadata.annotations.clone().unwrap();
        assert_eq!(annotations[SOURCE], "file");
        assert!(annotations[SEEN].parse::<jiff::Timestamp>().is_ok());
    }

    #[test]
    fn a_name_is_one_pods_until_that_has_ended() {
        let mut statics = Statics::default();
        let (old, new) = (pod("a", "1", "i"), pod("a", "2", "j"));
        assert!(statics.start(&old) && statics.start(&old));
        assert!(!statics.start(&new));
        statics.running.remove("1");
        assert!(statics.start(&new) && statics.has(&full_name(&new)));
        statics.running.remove("2");
        assert!(!statics.has(&full_name(&new)));
    }
}
