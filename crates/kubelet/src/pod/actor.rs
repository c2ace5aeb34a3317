//! The actor: hears events, looks at the runtime, plans, starts operations, writes the status.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::{EventType, Tasks};
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{mpsc, oneshot, watch};

use super::execute::{self, Outcome};
use super::memory::{Busy, Ending, Memory, Pace, Slot, Verdicts, Volumes, Waiting};
use super::observed::{self, Observed, State};
use super::plan::{self, Action, View};
use super::start::{Failure, pod_reference, reference};
use super::{Admission, Event, Handle, replace, reset, resize, spans, terminate};
use crate::images;
use crate::kubelet::Shared;
use crate::objects::User;
use crate::probe::{ProbeKind, Probers};
use crate::spec::resize::Allocation;
use crate::spec::resources::{PodLimits, pod_limits};
use crate::spec::{described, spec_of, uid_of};
use crate::status;
use crate::volumes::Tokens;

/// Wait before a failed step (sandbox, volumes, configuration, API) is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// After a failed pull was shown, `ImagePullBackOff` is.
const PULL_BACKOFF_SHOWN_AFTER: Duration = Duration::from_secs(1);

type Op = BoxFuture<'static, (Slot, u64, Option<Outcome>)>;

pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) user: User,
    pub(super) observed: Observed,
    pub(super) memory: Memory,
    pub(super) tokens: Tokens,
    probers: Probers,
    ops: FuturesUnordered<Op>,
    running: HashMap<Slot, (u64, AbortHandle)>,
    sequence: u64,
    /// Names of the containers that run, for kills that wait for each other.
    alive: watch::Sender<BTreeSet<String>>,
    /// The runtime must be looked at again.
    pub(super) dirty: bool,
    /// A referred object changed while the volumes were being written.
    stale: bool,
    pub(super) written: Option<PodStatus>,
    finished: bool,
    pub(super) is_static: bool,
    /// What the API shows of a static pod.
    pub(super) mirror: Option<Arc<Pod>>,
    /// Dropped once nothing of the pod runs any more.
    waiting_for_end: Vec<oneshot::Sender<()>>,
}

/// Starts the actor of a pod.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    pod: Arc<Pod>,
    admission: Admission,
) -> Handle {
    let (sender, events) = mpsc::unbounded_channel();
    let handle = Handle { sender };
    let user = User { uid: uid_of(&pod).to_owned(), handle: handle.clone() };
    let probers = Probers::new(shared.clone(), tasks.child(), handle.clone());
    let restarting = reset::was_under_way(&pod);
    // A change that was under way is finished, whatever of it was done.
    let has = if resize::was_under_way(&pod) { PodLimits::default() } else { pod_limits(&pod) };
    let resizing = resize::Memory { pod: Some(has), ..resize::Memory::default() };
    let runtime_name = shared.runtime_name();
    let is_static = shared.pods.is_static(uid_of(&pod));
    let held = matches!(admission, Admission::Held);
    let rejected = match admission {
        Admission::Refused(refusal) => Some(refusal),
        Admission::Taken | Admission::Held => None,
    };
    let actor = Actor {
        shared: shared.clone(),
        pod,
        user,
        observed: Observed::default(),
        memory: Memory {
            runtime_name,
            rejected,
            held,
            restarting,
            resize: resizing,
            ..Memory::default()
        },
        tokens: Tokens::default(),
        probers,
        ops: FuturesUnordered::new(),
        running: HashMap::new(),
        sequence: 0,
        alive: watch::Sender::new(BTreeSet::new()),
        dirty: true,
        stale: false,
        written: None,
        finished: false,
        is_static,
        mirror: None,
        waiting_for_end: Vec::new(),
    };
    tasks.spawn("pod", actor.run(events));
    handle
}

impl Actor {
    async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        while !self.finished {
            let wake = self.step().await;
            let pause = wake.map_or(Duration::from_secs(3600), |at| {
                Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
            });
            tokio::select! {
                Some(event) = events.recv() => {
                    self.hear(event);
                    while let Ok(event) = events.try_recv() {
                        self.hear(event);
                    }
                }
                Some((slot, sequence, outcome)) = self.ops.next() => self.done(slot, sequence, outcome),
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.shared.objects.release(&self.user.uid);
        self.shared.forget(&self.user.uid);
    }

    async fn step(&mut self) -> Option<Timestamp> {
        if self.dirty {
            match observed::observe(&self.shared, &self.user.uid, &self.observed).await {
                Ok(seen) => {
                    self.dirty = false;
                    self.observed = seen;
                    let names = self.observed.running().map(|i| i.name.clone()).collect();
                    self.alive.send_replace(names);
                    if let Some(s) = self.observed.sandbox().filter(|s| !s.ips.is_empty()) {
                        self.memory.ips = s.ips.clone();
                    }
                    self.remember_verdicts();
                }
                Err(error) => {
                    tracing::warn!(pod = described(&self.pod), %error, "runtime not readable");
                    return Timestamp::now().checked_add(RETRY).ok();
                }
            }
        }
        let now = Timestamp::now();
        if !self.waiting_for_end.is_empty() && terminate::is_stopped(&self.view(now)) {
            self.waiting_for_end.clear();
        }
        self.memory.restarting = reset::is_under_way(&self.view(now));
        self.follow_resize(now);
        self.report();
        let mut planned = plan::plan(&self.view(now));
        for action in std::mem::take(&mut planned.actions) {
            self.act(action, now);
        }
        self.probe();
        if self.dirty {
            // An action (the pod's end, a start given up) is something to look at by itself.
            return Some(now);
        }
        let status = self.memory.status_retry.filter(|at| *at > now);
        let hidden = replace::hidden_until(&self.view(now));
        [planned.wake, status, hidden].into_iter().flatten().min()
    }

    /// After a restart of the agent the API's status is the memory of what probes had found, so that
    /// adopted containers do not lose their readiness until probed again.
    fn remember_verdicts(&mut self) {
        let Some(status) = &self.pod.status else { return };
        let all = status.container_statuses.iter().chain(&status.init_container_statuses);
        for old in all.flatten() {
            let Some(i) = self.observed.latest(&old.name).filter(|i| i.state == State::Running)
            else {
                continue;
            };
            let same = old.container_id.as_deref().is_some_and(|id| id.ends_with(&i.id));
            let verdicts =
                &mut self.memory.containers.entry(old.name.clone()).or_default().verdicts;
            if same && verdicts.instance != i.id {
                *verdicts = Verdicts {
                    instance: i.id.clone(),
                    started: old.started.filter(|on| *on),
                    ready: Some(old.ready).filter(|on| *on),
                    alive: None,
                };
            }
        }
    }

    pub(super) fn view(&self, now: Timestamp) -> View<'_> {
        View { pod: &self.pod, observed: &self.observed, memory: &self.memory, now }
    }

    /// Writes the status when it is not what the API has.
    fn report(&mut self) {
        let now = Timestamp::now();
        let mut new = status::build(&self.view(now), &self.shared.config.node_ips);
        self.shared.places.devices.show(uid_of(&self.pod), &mut new);
        self.shared.dra.show(&self.pod, &mut new);
        let same = self.written.as_ref() == Some(&new);
        let Some(shown) = self.shown(&new) else { return };
        let patch = status::patch(&shown, &new);
        self.memory.status_written = patch.is_none() || same;
        let held = self.memory.held && !terminate::is_ending(&self.view(now));
        let hidden = replace::hidden_until(&self.view(now)).is_some();
        let wait = held || hidden || self.memory.status_retry.is_some_and(|at| at > now);
        let Some(patch) = patch.filter(|_| !same && !wait && !self.memory.gone) else { return };
        if self.memory.is_busy(&Slot::Status) {
            return;
        }
        self.memory.status_retry = None;
        let op = execute::write_status(self.shared.clone(), shown, patch, new);
        self.launch(Slot::Status, Busy::Other, Box::pin(op));
    }

    fn probe(&mut self) {
        let view = View {
            pod: &self.pod,
            observed: &self.observed,
            memory: &self.memory,
            now: Timestamp::now(),
        };
        let ending = terminate::is_ending(&view);
        self.probers.align(&self.pod, &self.observed, &self.memory, ending);
    }

    pub(super) fn launch(&mut self, slot: Slot, busy: Busy, op: BoxFuture<'static, Outcome>) {
        if let Some((_, abort)) = self.running.remove(&slot) {
            abort.abort();
        }
        self.sequence += 1;
        let sequence = self.sequence;
        let (abort, registration) = AbortHandle::new_pair();
        let tracer = self.shared.config.tracer.as_ref();
        let span = tracer.map(|tracer| spans::begin(tracer, &self.pod, (&slot, &busy)));
        self.memory.busy.insert(slot.clone(), busy);
        self.running.insert(slot.clone(), (sequence, abort));
        let traced = async move {
            let outcome = traces::within(span.as_ref(), op).await;
            drop(span);
            outcome
        };
        let op = Abortable::new(traced, registration);
        self.ops.push(Box::pin(async move { (slot, sequence, op.await.ok()) }));
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Changed(pod) => {
                if revision(&pod) >= revision(&self.pod) {
                    self.changed(pod);
                }
            }
            Event::Gone => self.memory.gone = true,
            Event::Mirror(mirror) => self.mirror_changed(mirror),
            Event::Runtime => self.dirty = true,
            Event::Resize(news) => self.heard_of_resize(news),
            Event::Admitted => self.memory.held = false,
            Event::Evict { reason, message, grace, disruption, announced, ended } => {
                self.waiting_for_end.extend(ended);
                let reason = reason.into();
                self.evict(Ending { reason, message, grace, disruption }, announced);
            }
            Event::Reference => {
                self.stale = true;
                self.refresh();
            }
            Event::Probe { container, instance, kind, healthy } => {
                let verdicts = &mut self.memory.container(&container).verdicts;
                if verdicts.instance != instance {
                    *verdicts = Verdicts { instance, ..Verdicts::default() };
                }
                tracing::debug!(container, ?kind, healthy, "probe");
                match kind {
                    ProbeKind::Startup => verdicts.started = Some(healthy),
                    ProbeKind::Readiness => verdicts.ready = Some(healthy),
                    ProbeKind::Liveness => verdicts.alive = Some(healthy),
                }
            }
        }
    }

    /// Ends the pod at once; one that ends already is left to do so.
    fn evict(&mut self, ending: Ending, announced: bool) {
        if terminate::is_ending(&self.view(Timestamp::now())) {
            return;
        }
        if announced {
            let about = pod_reference(&self.pod);
            let (reason, message) = (ending.reason.clone(), ending.message.clone());
            self.shared.recorder.event(&about, EventType::Warning, &reason, message);
        }
        self.memory.ending = Some(ending);
        self.dirty = true;
    }

    /// Volumes may show the pod's own labels, annotations and resources.
    fn changed(&mut self, mut pod: Arc<Pod>) {
        if self.is_static {
            Arc::make_mut(&mut pod).status.clone_from(&self.pod.status);
        }
        let (old, new) = (&self.pod.metadata, &pod.metadata);
        self.stale |= !Allocation::of(&self.pod).fits(&pod);
        self.stale |= old.labels != new.labels || old.annotations != new.annotations;
        self.pod = pod;
        self.refresh();
    }

    /// A referred object changed: volumes are written anew, failed configurations tried again.
    fn refresh(&mut self) {
        if !self.stale || self.memory.is_busy(&Slot::Volumes) {
            return;
        }
        self.stale = false;
        match &mut self.memory.volumes {
            Volumes::Mounted { refresh_at } => *refresh_at = Some(Timestamp::now()),
            Volumes::Failed { retry_at } => *retry_at = Timestamp::now(),
            Volumes::Unmounted | Volumes::TornDown => {}
        }
        for memory in self.memory.containers.values_mut() {
            if let Some(w) = &mut memory.waiting
                && w.reason == "CreateContainerConfigError"
            {
                w.retry_at = None;
            }
        }
    }

    fn act(&mut self, action: Action, now: Timestamp) {
        match action {
            Action::BackOff { container, message, until } => {
                self.back_off(&container, message, until)
            }
            Action::Cancel { container } => {
                let slot = Slot::Container(container);
                if let Some((_, abort)) = self.running.remove(&slot) {
                    abort.abort();
                }
                self.memory.busy.remove(&slot);
                self.dirty = true;
            }
            Action::End { reason, message } => {
                let about = pod_reference(&self.pod);
                self.shared.recorder.event(&about, EventType::Normal, reason, message);
                let (reason, message) = (reason.into(), message.into());
                self.memory.ending =
                    Some(Ending { reason, message, grace: None, disruption: None });
                self.dirty = true;
            }
            Action::Reset { .. } => {
                for i in &self.observed.containers {
                    let memory = self.memory.containers.entry(i.name.clone()).or_default();
                    memory.removed = memory.removed.max(Some(i.attempt));
                    memory.waiting = None;
                }
                execute::launch(self, action);
            }
            Action::Start { ref container, .. } => {
                let ended = self.observed.latest(container).and_then(plan::ended_at);
                let pace = Pace::up_to(self.shared.config.restart_max);
                let memory = self.memory.container(container);
                if let Some(ended) = ended {
                    memory.crash.pace = pace;
                    memory.crash.next(ended, now);
                }
                execute::launch(self, action);
            }
            Action::Kill { ref container, ref id, .. } => {
                let replaced = replace::note(&self.view(now), container, id);
                self.memory.container(container).replaced = replaced;
                execute::launch(self, action);
            }
            other => execute::launch(self, other),
        }
    }

    fn back_off(&mut self, container: &str, message: String, until: Timestamp) {
        let about = reference(&self.pod, container);
        let text = format!(
            "Back-off restarting failed container {container} in pod {}",
            described(&self.pod)
        );
        self.shared.recorder.event(&about, EventType::Warning, "BackOff", text);
        let waiting = Waiting { reason: "CrashLoopBackOff".into(), message, retry_at: Some(until) };
        self.memory.container(container).waiting = Some(waiting);
        self.report();
    }

    fn done(&mut self, slot: Slot, sequence: u64, outcome: Option<Outcome>) {
        if self.running.get(&slot).is_none_or(|(current, _)| *current != sequence) {
            return;
        }
        self.running.remove(&slot);
        self.memory.busy.remove(&slot);
        let Some(outcome) = outcome else { return };
        if slot != Slot::Status {
            self.dirty = true;
        }
        let retry = Timestamp::now().checked_add(RETRY).ok();
        match outcome {
            Outcome::Done => {}
            Outcome::Sandbox(ok) => self.memory.sandbox_retry = retry.filter(|_| !ok),
            Outcome::Mounted(Ok(refresh_at)) => {
                self.memory.volumes = Volumes::Mounted { refresh_at };
                self.refresh();
            }
            Outcome::Mounted(Err(())) => {
                self.memory.volumes = Volumes::Failed { retry_at: retry.unwrap_or(Timestamp::MAX) };
                self.refresh();
            }
            Outcome::TornDown(true) => self.memory.volumes = Volumes::TornDown,
            Outcome::TornDown(false) => self.memory.teardown_retry = retry,
            Outcome::Started(container, result) => self.started(&container, result),
            Outcome::Status(Ok((pod, status))) => {
                self.written = Some(*status);
                if self.is_static {
                    self.mirror = Some(pod).filter(|_| self.mirror.is_some());
                } else if revision(&pod) >= revision(&self.pod) {
                    self.pod = self.shared.allocations.effective(&pod);
                }
            }
            Outcome::Status(Err(())) => self.memory.status_retry = retry,
            Outcome::Deleted(ok) => {
                self.memory.delete_sent = ok;
                self.memory.delete_retry = retry.filter(|_| !ok);
            }
            Outcome::CleanedUp => self.finished = true,
            Outcome::Resized(done) => self.resized(*done),
        }
    }

    fn started(&mut self, name: &str, result: Result<String, Failure>) {
        let now = Timestamp::now();
        let Err(failure) = result else {
            self.memory.container(name).waiting = None;
            return;
        };
        let after = |d: Duration| now.checked_add(d).ok();
        let retry_at = match failure.reason {
            reason if images::is_pull_error(reason) => {
                let pull = self.memory.pulls.entry(failure.image).or_default();
                pull.backoff.next(now, now);
                pull.error = format!("{reason}: {}", failure.message);
                after(PULL_BACKOFF_SHOWN_AFTER)
            }
            "ImagePullBackOff" => {
                let pull = self.memory.pulls.get(&failure.image);
                pull.and_then(|pull| pull.backoff.wait_since_update(now))
            }
            "RunContainerError" | "PostStartHookError" => None,
            _ => after(RETRY * 5),
        };
        let waiting = Waiting { reason: failure.reason.into(), message: failure.message, retry_at };
        self.memory.container(name).waiting = Some(waiting);
    }

    pub(super) fn running_names(&self) -> watch::Receiver<BTreeSet<String>> {
        self.alive.subscribe()
    }

    /// The running instance of an ephemeral container's target.
    pub(super) fn target_of(&self, name: &str) -> Option<String> {
        let spec = spec_of(&self.pod);
        let all = spec.ephemeral_containers.iter().flatten();
        let own = all.into_iter().find(|c| c.name == name)?;
        let target = own.target_container_name.as_deref().filter(|t| !t.is_empty())?;
        self.observed.latest(target).filter(|i| i.state == State::Running).map(|i| i.id.clone())
    }
}

/// Resource versions are only compared to drop an older state of one object.
pub(super) fn revision(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
