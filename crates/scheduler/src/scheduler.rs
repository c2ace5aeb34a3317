//! The wiring: informers into memory, the planner's loop, bindings and reports beside it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Change, Informer, Informers, Recorder, Resource, Tasks};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::Setup;
use crate::build::{self, Handle};
use crate::census;
use crate::core::{Core, Profiles};
use crate::event::{self, Action, ClusterEvent, Object};
use crate::extender::{Extender, Extenders};
use crate::figures::{self, Ended};
use crate::framework::Victims;
use crate::planner::{Bind, Outcome, Planner};
use crate::pod::PodInfo;
use crate::queue::Queue;
use crate::report::{Reason, Reporter};
use crate::store::{Listers, Store};

/// Requests under way at once: enough to hide the store's fsync, few enough not to flood it.
const REQUESTS_MAX: usize = 256;
/// Longest that the planner works before the async side looks whether to end.
const TURN: Duration = Duration::from_millis(50);

pub(crate) fn start(setup: Setup, informers: &Informers, tasks: &Tasks) -> Result<(), String> {
    let client = setup.client.unwrap_or_else(|| informers.client().clone());
    let configs = setup.config.extenders();
    if configs.len() != setup.extenders.len() {
        return Err("couldn't build extenders: an extender has no transport".into());
    }
    let pairs = configs.iter().cloned().zip(setup.extenders);
    let extenders = pairs.map(|(config, transport)| Extender { config, transport }).collect();
    let handle = Handle {
        listers: Arc::default(),
        client: Some(client.clone()),
        tasks: Some(tasks.clone()),
        extenders: Extenders(Arc::new(extenders)),
    };
    let profiles = Profiles::new(build::profiles(&setup.config, &handle)?);
    let reporter = |name: &String| Reporter {
        client: client.clone(),
        recorder: Recorder::new(client.clone(), tasks, name, ""),
        scheduler_name: name.clone(),
    };
    let reporters = profiles.0.keys().map(|name| (name.clone(), reporter(name))).collect();
    let queue = Queue::new(setup.config.initial_backoff, setup.config.max_backoff);
    let scheduler = Scheduler {
        core: Arc::new(Mutex::new(Core::new(profiles.clone(), queue))),
        planner: Arc::default(),
        profiles,
        listers: handle.listers,
        wake: Arc::new(Notify::new()),
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
        reporters: Arc::new(reporters),
        tasks: tasks.clone(),
    };
    census::count_in(Arc::downgrade(&scheduler.core), informers.of().listing());
    let synced = scheduler.follow(informers);
    let synced = Arc::new(tokio::sync::Mutex::new(Some(synced)));
    tasks.essential("scheduler", move || {
        let (scheduler, synced) = (scheduler.clone(), synced.clone());
        async move {
            // A half-known cluster would make for bad choices.
            if let Some(synced) = synced.lock().await.take() {
                synced.await;
            }
            scheduler.run().await;
        }
    });
    Ok(())
}

#[derive(Clone)]
struct Scheduler {
    core: Arc<Mutex<Core>>,
    planner: Arc<Mutex<Planner>>,
    profiles: Profiles,
    listers: Arc<Listers>,
    wake: Arc<Notify>,
    requests: Arc<Semaphore>,
    /// By scheduler name.
    reporters: Arc<HashMap<String, Reporter>>,
    tasks: Tasks,
}

/// Resolves when all informers have seen the whole of what they follow.
type Synced = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Scheduler {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Feeds memory from the informers.
    fn follow(&self, informers: &Informers) -> Synced {
        let mut synced: Vec<Synced> = Vec::new();
        let this = self.clone();
        let namespaces: Informer<Namespace> = informers.of();
        namespaces.on_change(move |change| {
            this.core().namespace_changed(change, Instant::now());
            this.wake.notify_one();
        });
        synced.push(Box::pin(async move { namespaces.synced().await }));
        self.follow_storage(informers, &mut synced);
        self.follow_devices(informers, &mut synced);
        self.follow_owners(informers, &mut synced);
        let this = self.clone();
        let nodes: Informer<Node> = informers.of();
        nodes.on_change(move |change| {
            this.core().node_changed(change, Instant::now());
            this.wake.notify_one();
        });
        synced.push(Box::pin(async move { nodes.synced().await }));
        let this = self.clone();
        let pods: Informer<Pod> = informers.of();
        pods.on_change(move |change| {
            this.core().pod_changed(change, Instant::now());
            this.wake.notify_one();
        });
        synced.push(Box::pin(async move { pods.synced().await }));
        Box::pin(async move {
            for one in synced {
                one.await;
            }
        })
    }

    fn follow_storage(&self, informers: &Informers, synced: &mut Vec<Synced>) {
        self.store(informers, synced, |l| &l.volumes, Some(Object::Volume));
        self.store(informers, synced, |l| &l.claims, Some(Object::Claim));
        self.store(informers, synced, |l| &l.classes, Some(Object::StorageClass));
        self.store(informers, synced, |l| &l.csi_nodes, Some(Object::CsiNode));
        self.store(informers, synced, |l| &l.csi_drivers, Some(Object::CsiDriver));
        self.store(informers, synced, |l| &l.capacities, Some(Object::Capacity));
        self.store(informers, synced, |l| &l.attachments, Some(|_| Object::Attachment));
    }

    fn follow_device_claims(&self, informers: &Informers, synced: &mut Vec<Synced>) {
        let this = self.clone();
        let claims: Informer<ResourceClaim> = informers.of();
        claims.on_change(move |change| {
            let (action, after) = match change {
                Change::Deleted(claim) => {
                    this.listers.remove_resource_claim(claim);
                    (Action::DELETE, None)
                }
                Change::Added(claim) => {
                    this.listers.put_resource_claim(claim);
                    (Action::ADD, Some(claim.clone()))
                }
                Change::Updated { new, .. } => {
                    this.listers.put_resource_claim(new);
                    (Action::UPDATE, Some(new.clone()))
                }
            };
            let object = Object::ResourceClaim((change.old().cloned(), after));
            this.core().on_event(&ClusterEvent::new(action, object), Instant::now());
            this.wake.notify_one();
        });
        synced.push(Box::pin(async move { claims.synced().await }));
    }

    fn follow_devices(&self, informers: &Informers, synced: &mut Vec<Synced>) {
        self.follow_device_claims(informers, synced);
        let this = self.clone();
        let classes: Informer<DeviceClass> = informers.of();
        classes.on_change(move |change| {
            let action = match change {
                Change::Deleted(class) => {
                    this.listers.device_classes.remove(class);
                    Action::DELETE
                }
                Change::Added(class) => {
                    this.listers.device_classes.put(class.clone());
                    Action::ADD
                }
                Change::Updated { new, .. } => {
                    this.listers.device_classes.put(new.clone());
                    Action::UPDATE
                }
            };
            let mut core = this.core();
            // Classes decide which extended resources a node may lack.
            core.cache.renew_all();
            core.on_event(&ClusterEvent::new(action, Object::DeviceClass), Instant::now());
            drop(core);
            this.wake.notify_one();
        });
        synced.push(Box::pin(async move { classes.synced().await }));
        let this = self.clone();
        let slices: Informer<ResourceSlice> = informers.of();
        slices.on_change(move |change| {
            let action = match change {
                Change::Deleted(slice) => {
                    this.listers.slices.remove(slice);
                    Action::DELETE
                }
                Change::Added(slice) => {
                    this.listers.slices.put(slice);
                    Action::ADD
                }
                Change::Updated { new, .. } => {
                    this.listers.slices.put(new);
                    Action::UPDATE
                }
            };
            let event = ClusterEvent::new(action, Object::ResourceSlice);
            this.core().on_event(&event, Instant::now());
            this.wake.notify_one();
        });
        synced.push(Box::pin(async move { slices.synced().await }));
    }

    fn follow_owners(&self, informers: &Informers, synced: &mut Vec<Synced>) {
        self.store(informers, synced, |l| &l.replication_controllers, None);
        self.store(informers, synced, |l| &l.replica_sets, None);
        self.store(informers, synced, |l| &l.stateful_sets, None);
        self.store(informers, synced, |l| &l.budgets, None);
        let listers = self.listers.clone();
        let services: Informer<Service> = informers.of();
        services.on_change(move |change| match change {
            Change::Deleted(service) => listers.services.remove(service),
            other => listers.services.put(other.object()),
        });
        synced.push(Box::pin(async move { services.synced().await }));
    }

    /// Keeps the objects of a kind; where `object` is given, their changes are cluster events.
    fn store<K: Resource>(
        &self,
        informers: &Informers,
        synced: &mut Vec<Synced>,
        store: fn(&Listers) -> &Store<K>,
        object: Option<fn(event::Change<K>) -> Object>,
    ) {
        let this = self.clone();
        let informer: Informer<K> = informers.of();
        informer.on_change(move |change| {
            let kept = store(&this.listers);
            let (action, after) = match change {
                Change::Deleted(gone) => {
                    kept.remove(gone);
                    (Action::DELETE, None)
                }
                Change::Added(new) => {
                    kept.put(new.clone());
                    (Action::ADD, Some(new.clone()))
                }
                Change::Updated { new, .. } => {
                    kept.put(new.clone());
                    (Action::UPDATE, Some(new.clone()))
                }
            };
            if let Some(object) = object {
                let event = ClusterEvent::new(action, object((change.old().cloned(), after)));
                this.core().on_event(&event, Instant::now());
                this.wake.notify_one();
            }
        });
        synced.push(Box::pin(async move { informer.synced().await }));
    }

    async fn run(self) {
        loop {
            let this = self.clone();
            let due = match tokio::task::spawn_blocking(move || this.work()).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::error!(%error, "the planner failed");
                    return;
                }
            };
            match due {
                Due::Now => tokio::task::yield_now().await,
                Due::Woken => self.wake.notified().await,
                Due::At(due) => {
                    drop(tokio::time::timeout_at(due, self.wake.notified()).await);
                }
            }
        }
    }

    /// Scheduling cycles until no pod is ready, or the turn is over.
    fn work(&self) -> Due {
        let mut planner = self.planner.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = std::time::Instant::now();
        while begun.elapsed() < TURN {
            let (pod, update) = {
                let mut core = self.core();
                match core.pop(Instant::now()) {
                    Ok(pod) => (pod, core.update_of_snapshot()),
                    Err(None) => return Due::Woken,
                    Err(Some(due)) => return Due::At(due),
                }
            };
            let tried = Instant::now();
            let planned = std::panic::catch_unwind(AssertUnwindSafe(|| {
                update(&mut planner.snapshot);
                planner.plan(&self.profiles, &pod)
            }));
            let outcome = planned.unwrap_or_else(|_| {
                // The panic was logged where it happened; what it left half done is thrown away.
                *planner = Planner::default();
                self.core().cache.touch_all();
                Outcome::Failed("the scheduling cycle panicked".into())
            });
            figures::searched(tried.elapsed());
            self.settle(pod, outcome, tried);
        }
        Due::Now
    }

    fn settle(&self, pod: Arc<PodInfo>, outcome: Outcome, tried: Instant) {
        let attempted = |ended| figures::attempted(ended, pod.scheduler_name(), tried.elapsed());
        match outcome {
            Outcome::Bind(bind) => self.settle_bind(pod, bind, tried),
            Outcome::Failed(why) => {
                attempted(Ended::Error);
                let mut core = self.core();
                if core.queue.contains(pod.uid()) {
                    core.forget_nomination(pod.uid());
                    core.add_failed(pod.clone(), Instant::now());
                    drop(core);
                    self.spawn_report(pod, Reason::SchedulerError, why, Some(String::new()));
                }
            }
            Outcome::Unschedulable { message, rejectors, victims, clear_nomination } => {
                attempted(Ended::Unschedulable);
                let mut core = self.core();
                if !core.queue.contains(pod.uid()) {
                    return core.queue.done(pod.uid());
                }
                let Some(victims) = victims else {
                    let nominated = clear_nomination.then(String::new);
                    if clear_nomination {
                        core.forget_nomination(pod.uid());
                    }
                    core.add_unschedulable(pod.uid(), rejectors, Instant::now());
                    drop(core);
                    return self.spawn_report(pod, Reason::Unschedulable, message, nominated);
                };
                figures::preempted(victims.pods.len());
                let displaced = core.take_lower_nominations(&victims.node, pod.priority());
                core.nominate(&victims.node, pod.clone());
                core.queue.start_preempting(pod.uid());
                core.add_unschedulable(pod.uid(), rejectors, Instant::now());
                drop(core);
                let this = self.clone();
                self.tasks.spawn("preempt", this.preempt(pod, message, victims, displaced));
            }
        }
    }

    fn settle_bind(&self, pod: Arc<PodInfo>, mut bind: Bind, tried: Instant) {
        let reserved = bind.profile.reserve(&mut bind.state, &pod, &bind.node);
        let mut core = self.core();
        core.cache.touch(bind.slot);
        if !core.queue.contains(pod.uid()) {
            core.queue.done(pod.uid());
            drop(core);
            return bind.profile.unreserve(&mut bind.state, &pod, &bind.node);
        }
        if let Err(status) = reserved {
            core.add_failed(pod.clone(), Instant::now());
            drop(core);
            figures::attempted(Ended::Error, pod.scheduler_name(), tried.elapsed());
            let plugin = status.plugin;
            let why = format!("running Reserve plugin \"{plugin}\": {}", status.message());
            return self.spawn_report(pod, Reason::SchedulerError, why, Some(String::new()));
        }
        core.cache.assume(&bind.node, pod.clone());
        core.forget_nomination(pod.uid());
        core.queue.done(pod.uid());
        drop(core);
        self.tasks.spawn("bind", self.clone().bind(pod, bind, tried));
    }

    fn reporter(&self, pod: &PodInfo) -> Option<&Reporter> {
        self.reporters.get(pod.scheduler_name())
    }

    async fn bind(self, pod: Arc<PodInfo>, mut bind: Bind, tried: Instant) {
        let attempts = self.core().queue.attempts(pod.uid());
        let running = figures::Running::binding();
        let permit = self.requests.acquire().await;
        let outcome = bind.profile.bind(&mut bind.state, &pod, &bind.node).await;
        drop((permit, running));
        let ended = if outcome.is_ok() { Ended::Scheduled } else { Ended::Error };
        figures::attempted(ended, pod.scheduler_name(), tried.elapsed());
        let Some(reporter) = self.reporter(&pod) else { return };
        let Err(why) = outcome else {
            if let Some((attempts, first)) = attempts {
                figures::bound(attempts, first.elapsed());
            }
            return reporter.bound(&pod, &bind.node);
        };
        tracing::debug!(pod = pod.name(), node = &*bind.node, why, "binding failed");
        bind.profile.unreserve(&mut bind.state, &pod, &bind.node);
        let now = Instant::now();
        let waits = {
            let mut core = self.core();
            core.forget(&pod, now);
            // Gone, or bound after all: the informer told or will tell.
            let waits = core.queue.contains(pod.uid()) && !core.cache.is_placed(pod.uid());
            if waits {
                core.add_failed(pod.clone(), now);
            }
            waits
        };
        self.wake.notify_one();
        if waits {
            let cleared = Some("");
            let told = reporter.refused(&pod.pod, Reason::SchedulerError, &why, cleared).await;
            log_unwritten(&pod, told);
        }
    }

    fn spawn_report(
        &self,
        pod: Arc<PodInfo>,
        reason: Reason,
        message: String,
        nominated: Option<String>,
    ) {
        let this = self.clone();
        self.tasks.spawn("report unschedulable", async move {
            let _permit = this.requests.acquire().await;
            if let Some(reporter) = this.reporter(&pod) {
                let told = reporter.refused(&pod.pod, reason, &message, nominated.as_deref());
                log_unwritten(&pod, told.await);
            }
        });
    }

    /// Tells the pod where it will go, and ends those that have to make room.
    async fn preempt(
        self,
        pod: Arc<PodInfo>,
        message: String,
        victims: Victims,
        displaced: Vec<Arc<PodInfo>>,
    ) {
        let permit = self.requests.acquire().await;
        let mut failed = false;
        if let Some(reporter) = self.reporter(&pod) {
            let node = Some(victims.node.as_str());
            let told = reporter.refused(&pod.pod, Reason::Unschedulable, &message, node).await;
            log_unwritten(&pod, told);
            for other in displaced {
                log_unwritten(&other, reporter.clear_nomination(&other.pod).await);
            }
            let evicted = reporter.evict(&pod, &victims).await;
            failed = evicted.is_err();
            log_unwritten(&pod, evicted);
        }
        drop(permit);
        self.core().end_preempting(pod.uid(), failed, Instant::now());
        self.wake.notify_one();
    }
}

/// When there is work again.
enum Due {
    Now,
    At(Instant),
    Woken,
}

fn log_unwritten(pod: &PodInfo, outcome: Result<(), client::Error>) {
    if let Err(error) = outcome {
        tracing::debug!(pod = pod.name(), %error, "a pod's status was not written");
    }
}
