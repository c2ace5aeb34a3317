//! New pods: one after the other, in the order of their creation, each is taken or refused.
//!
//! Changes of pods come by one queue, so that what is said of a pod arrives in order and a decision
//! sees all those made before it. A pod that an earlier run of the agent has taken is not judged
//! again: an agent that restarts ends no running pod.

pub(crate) mod sources;
mod victims;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::{Change, EventType, Tasks};
use k8s_openapi::api::core::v1::{Node, Pod};
use runtime::cri::{ContainerFilter, ContainerState, ContainerStateValue};
use tokio::sync::mpsc;

use crate::admission::{self, Inputs, Refusal};
use crate::kubelet::Shared;
use crate::node::{self, shutdown};
use crate::pod::{Admission, Event, pod_reference};
use crate::spec::resize::{Allocation, News, Pending, Verdict, summary};
use crate::spec::{
    described, has_ended, labels, name_of, namespace_of, resources, spec_of, uid_of,
};
use sources::is_mirror;
use victims::Victims;

/// Longest wait for the node's newest labels; other pods wait meanwhile.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
/// Changes of resources that there was no room for are tried again so often.
const RESIZE_RETRY: Duration = Duration::from_secs(30);

/// Ends when the agent does.
pub(crate) async fn run(
    shared: Arc<Shared>,
    tasks: Tasks,
    mut changes: mpsc::UnboundedReceiver<Change<Pod>>,
) {
    let (freed, mut admitted) = mpsc::unbounded_channel();
    let mut intake = Intake {
        shared,
        tasks,
        taken: HashSet::new(),
        leaving: HashSet::new(),
        held: HashSet::new(),
        freed,
        waiting: BTreeMap::new(),
        pending: BTreeMap::new(),
    };
    let mut ends = intake.shared.pods.ends();
    let mut first = Vec::new();
    while let Ok(change) = changes.try_recv() {
        first.push(change);
    }
    first.sort_by_key(|c| c.object().metadata.creation_timestamp.as_ref().map(|t| t.0));
    for change in first {
        intake.change(&change).await;
    }
    let mut ticks = tokio::time::interval(RESIZE_RETRY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => intake.change(&change).await,
                None => return,
            },
            Ok(()) = ends.changed() => intake.retry_statics().await,
            Some(uid) = admitted.recv() => intake.admitted(&uid).await,
            _ = ticks.tick() => intake.retry_resizes().await,
        }
    }
}

struct Intake {
    shared: Arc<Shared>,
    tasks: Tasks,
    taken: HashSet<String>,
    /// Ended to make room; they count no more, though they may take a while.
    leaving: HashSet<String>,
    /// Pods that others make room for. They count, and wait until those have ended.
    held: HashSet<String>,
    /// Told of each pod in `held` when there is room for it.
    freed: mpsc::UnboundedSender<String>,
    /// Static pods by uid that wait for the end of another one of their name.
    waiting: BTreeMap<String, Arc<Pod>>,
    /// Changes of resources that there was no room for, by the pods' uids.
    pending: BTreeMap<String, Pending>,
}

/// Taken before, or on its way out: nothing is to be decided.
fn is_settled(pod: &Pod) -> bool {
    let started = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
    started || has_ended(pod) || pod.metadata.deletion_timestamp.is_some()
}

impl Intake {
    async fn change(&mut self, change: &Change<Pod>) {
        let pod = change.object();
        let uid = uid_of(pod);
        if is_mirror(pod) && !self.shared.pods.is_static(uid) {
            return self.mirror_changed(change);
        }
        if let Change::Deleted(last) = change {
            self.tell_changed(last);
            self.shared.tell(uid, Event::Gone);
            self.taken.remove(uid);
            self.leaving.remove(uid);
            self.held.remove(uid);
            self.waiting.remove(uid);
            self.pending.remove(uid);
            self.shared.allocations.forget(uid);
            self.shared.places.forget(uid);
            self.shared.classes_due.notify_one();
            return self.retry_resizes().await;
        }
        if self.taken.contains(uid) {
            self.resize(pod).await;
        }
        if !self.tell_changed(pod) {
            self.add(pod).await;
        } else if has_ended(pod) {
            self.retry_resizes().await;
        }
    }

    /// The actor of a static pod learns what the API shows of it.
    fn mirror_changed(&self, change: &Change<Pod>) {
        let mirror = change.object();
        let (namespace, name) = (namespace_of(mirror), name_of(mirror));
        if let Some(pod) = self.shared.pods.find_static(namespace, name) {
            let there = !matches!(change, Change::Deleted(_));
            self.shared.tell(uid_of(&pod), Event::Mirror(there.then(|| mirror.clone())));
        }
        self.shared.pods.mirrors.notify_one();
    }

    /// A static pod has ended: another one of its name may start.
    async fn retry_statics(&mut self) {
        let waiting: Vec<_> = self.waiting.values().cloned().collect();
        for pod in waiting {
            self.add(&pod).await;
        }
    }

    /// The pod's actor sees it with what the node has given it.
    fn tell_changed(&self, pod: &Arc<Pod>) -> bool {
        self.shared.tell(uid_of(pod), Event::Changed(self.shared.allocations.effective(pod)))
    }

    /// Gives the pod what its spec has come to ask for, if there is room.
    async fn resize(&mut self, pod: &Arc<Pod>) {
        let uid = uid_of(pod);
        if self.held.contains(uid) {
            return;
        }
        let Some(given) = self.shared.allocations.get(uid) else { return };
        if given.fits(pod) {
            if self.pending.remove(uid).is_some() {
                self.shared.tell(uid, Event::Resize(News { pending: None, allocated: None }));
            }
            return;
        }
        if has_ended(pod) || pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        let generation = pod.metadata.generation.unwrap_or(0);
        let decision = match self.decide_resize(pod, &given).await {
            // The change is decided again when there is room.
            Ok(victims) if self.make_room(uid, &victims) => return,
            Ok(_) => {
                let written = self.shared.allocations.give(pod);
                written.map_err(|e| (Verdict::Deferred, e.to_string()))
            }
            Err(refused) => Err(refused),
        };
        let about = pod_reference(pod);
        match decision {
            Ok(()) => {
                self.pending.remove(uid);
                let text = summary("Pod resize started", pod, generation, "");
                self.shared.recorder.event(&about, EventType::Normal, "ResizeStarted", text);
                let news = News { pending: None, allocated: Some(generation) };
                self.tell_changed(pod);
                self.shared.classes_due.notify_one();
                self.shared.tell(uid, Event::Resize(news));
            }
            Err((verdict, message)) => {
                let pending = Pending { verdict, message, generation: pod.metadata.generation };
                let news = News { pending: Some(pending.clone()), allocated: None };
                let before = self.pending.insert(uid.to_owned(), pending.clone());
                if before.is_none_or(|b| b.generation != pending.generation) {
                    let reason = verdict.reason();
                    let what = format!("Pod resize {reason}");
                    let text = summary(&what, pod, generation, &pending.message);
                    let reason = format!("Resize{reason}");
                    self.shared.recorder.event(&about, EventType::Warning, &reason, text);
                }
                self.shared.tell(uid, Event::Resize(news));
            }
        }
    }

    /// There may be room now: first for the pods of the highest priority, then for guaranteed ones.
    async fn retry_resizes(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut pods = self.shared.pods.list();
        pods.retain(|pod| self.pending.contains_key(uid_of(pod)));
        pods.sort_by_key(|pod| {
            let guaranteed = resources::qos(pod) == resources::Qos::Guaranteed;
            Reverse((spec_of(pod).priority.unwrap_or(0), guaranteed))
        });
        for pod in pods {
            self.resize(&pod).await;
        }
    }

    async fn add(&mut self, pod: &Arc<Pod>) {
        let uid = uid_of(pod);
        if !is_file_name(uid) {
            return tracing::error!(pod = described(pod), "uid is no name of a directory: ignored");
        }
        let is_static = self.shared.pods.is_static(uid);
        if is_static && !self.shared.pods.start_static(pod) {
            self.waiting.insert(uid.to_owned(), pod.clone());
            return;
        }
        self.waiting.remove(uid);
        self.shared.allocations.recall(pod);
        let wish = pod;
        let pod = &self.shared.allocations.effective(wish);
        let is_decided = is_settled(pod) && !is_static;
        let decision = if is_decided { Ok(Vec::new()) } else { self.decide(pod).await };
        let admission = match decision {
            Ok(victims) => {
                self.taken.insert(uid.to_owned());
                self.given(pod);
                self.shared.classes_due.notify_one();
                match self.make_room(uid, &victims) {
                    true => Admission::Held,
                    false => Admission::Taken,
                }
            }
            Err(refusal) => {
                self.shared.places.refuse(uid);
                let about = pod_reference(pod);
                let (reason, message) = (refusal.reason.clone(), refusal.message.clone());
                self.shared.recorder.event(&about, EventType::Warning, &reason, message);
                Admission::Refused(refusal)
            }
        };
        self.shared.start(&self.tasks, pod.clone(), admission);
        if is_static && let Some(mirror) = self.shared.pods.mirror(pod) {
            self.shared.tell(uid, Event::Mirror(Some(mirror)));
        }
        if self.taken.contains(uid) {
            self.resize(wish).await;
        }
    }

    /// Writes down what the pod has, unless an earlier run of the agent did.
    fn given(&self, pod: &Pod) {
        let known = self.shared.allocations.get(uid_of(pod)).is_some();
        if known || has_ended(pod) {
            return;
        }
        if let Err(error) = self.shared.allocations.give(pod) {
            tracing::warn!(%error, pod = described(pod), "allocation not written");
        }
    }

    /// Ends the victims; whether the pod of this uid has to wait for them.
    fn make_room(&mut self, uid: &str, victims: &[String]) -> bool {
        if victims.is_empty() {
            return false;
        }
        self.leaving.extend(victims.iter().cloned());
        self.held.insert(uid.to_owned());
        let victims = Victims::evict(&self.shared, victims);
        let (shared, freed, uid) = (self.shared.clone(), self.freed.clone(), uid.to_owned());
        self.tasks.spawn("preemption", async move {
            victims.ended(&shared).await;
            // Nobody listens once the node ends.
            let _ended = freed.send(uid);
        });
        true
    }

    /// There is room for a pod that was held.
    async fn admitted(&mut self, uid: &str) {
        if !self.held.remove(uid) {
            return;
        }
        self.shared.tell(uid, Event::Admitted);
        if let Some(pod) = self.shared.pods.list().into_iter().find(|pod| uid_of(pod) == uid) {
            self.resize(&pod).await;
        }
    }

    /// Some changes no room would make possible.
    async fn decide_resize(
        &self,
        pod: &Pod,
        given: &Allocation,
    ) -> Result<Vec<String>, (Verdict, String)> {
        let places = &self.shared.places;
        let policies = [
            (places.has_static_cpus, "cpu", "CPU", "static"),
            (places.has_static_memory, "memory", "Memory", "Static"),
        ];
        let guaranteed = resources::qos(pod) == resources::Qos::Guaranteed;
        let bound = |(on, name, ..): &&(bool, &str, &str, &str)| *on && given.changes(pod, name);
        if let Some((.., manager, policy)) = policies.iter().find(bound).filter(|_| guaranteed) {
            let text = "Resize is infeasible for Guaranteed Pods alongside";
            let message = format!("{text} {manager} Manager policy {policy:?}");
            return Err((Verdict::Infeasible, message));
        }
        self.decide(pod).await.map_err(|refusal| (Verdict::Deferred, refusal.message))
    }

    async fn decide(&self, pod: &Pod) -> Result<Vec<String>, Refusal> {
        if self.shared.shutting_down.load(Ordering::Relaxed) {
            return Err(shutdown::refusal());
        }
        let name = &self.shared.config.node_name;
        let known = self.shared.node.get("", name);
        let node = known.unwrap_or_else(|| Arc::new(node::expected(&self.shared.config)));
        let strict_groups = self.strict_groups(pod).await;
        self.with_inputs(pod, &node, strict_groups, admission::check_before)?;
        let running = self.running_before(pod).await;
        self.shared.places.admit(pod, &self.shared.pods, running).await?;
        let mut node = node;
        self.shared.places.devices.sanitize(uid_of(pod), Arc::make_mut(&mut node));
        let refusal = match self.check(pod, &node, strict_groups) {
            Err(refusal) if admission::is_about_labels(&refusal) => refusal,
            decided => return decided,
        };
        // The pod may have come sooner than the news of the label that it was bound for.
        let newest = self.shared.client.get::<Node>("", name);
        match tokio::time::timeout(NODE_TIMEOUT, newest).await {
            Ok(Ok(mut node)) => {
                self.shared.places.devices.sanitize(uid_of(pod), &mut node);
                self.check(pod, &node, strict_groups)
            }
            _ => Err(refusal),
        }
    }

    /// Containers of the pod that run already, while not all sources of pods were read: the kubelet was started
    /// anew, and they have all that they need.
    async fn running_before(&self, pod: &Pod) -> Vec<String> {
        if self.shared.pods.is_complete() {
            return Vec::new();
        }
        let filter = ContainerFilter {
            state: Some(ContainerStateValue { state: ContainerState::Running as i32 }),
            label_selector: [(labels::POD_UID.to_owned(), uid_of(pod).to_owned())].into(),
            ..ContainerFilter::default()
        };
        let found = self.shared.runtime.list_containers(filter).await.unwrap_or_default();
        found.into_iter().filter_map(|c| c.metadata).map(|meta| meta.name).collect()
    }

    fn check(&self, pod: &Pod, node: &Node, strict_groups: bool) -> Result<Vec<String>, Refusal> {
        self.with_inputs(pod, node, strict_groups, admission::check_after)
    }

    fn with_inputs<T>(
        &self,
        pod: &Pod,
        node: &Node,
        strict_groups: bool,
        check: impl FnOnce(&Inputs<'_>) -> T,
    ) -> T {
        let mut others = self.shared.pods.list();
        others.retain(|other| {
            let uid = uid_of(other);
            let counts = self.taken.contains(uid) && !self.leaving.contains(uid);
            counts && uid != uid_of(pod) && !has_ended(other)
        });
        let others: Vec<_> =
            others.iter().map(|other| self.shared.allocations.effective(other)).collect();
        check(&Inputs {
            pod,
            node,
            others: &others,
            pressure: &self.shared.pressure(),
            sysctls: &self.shared.config.sysctls,
            apparmor: self.shared.apparmor,
            strict_groups,
            statics: &self.shared.pods.static_uids(),
        })
    }

    /// Asked only when the pod wants it.
    async fn strict_groups(&self, pod: &Pod) -> bool {
        let spec = spec_of(pod);
        let context = spec.security_context.as_ref();
        if context.is_none_or(|s| s.supplemental_groups_policy.is_none()) {
            return false;
        }
        let status = self.shared.runtime.status(false).await;
        status.is_ok_and(|s| s.features.is_some_and(|f| f.supplemental_groups_policy))
    }
}

fn is_file_name(text: &str) -> bool {
    !text.is_empty() && !matches!(text, "." | "..") && !text.contains(['/', '\0'])
}
