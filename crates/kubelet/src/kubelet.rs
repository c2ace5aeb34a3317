//! The agent as a whole: pods from the API to their actors, runtime events to theirs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use client::{Client, Follow, Informer, Recorder, Tasks};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use runtime::cri::{ContainerEventResponse, ContainerFilter, PodSandboxFilter};
use runtime::{ImageService, RuntimeService};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};

use crate::admission::{Pressure, apparmor_is_enabled};
use crate::config::{Authorizer, Deps, Dialer, KubeletConfig};
use crate::images::{Providers, Pulled};
use crate::intake::sources::{Pods, Source};
use crate::node::dra::{self, Dra};
use crate::node::placing::{self, Places};
use crate::node::pod_resources::{self, PodResources};
use crate::node::{cgroups, devices};
use crate::objects::Objects;
use crate::pod::{self, Admission, Event, Handle};
use crate::probe::counts::Counts;
use crate::rates::Rates;
use crate::spec::resources::NodeResources;
use crate::spec::{labels, uid_of};
use crate::userns::Ranges;
use crate::volumes::{self, Allocations};
use crate::{intake, node, plugins, server, upkeep};

/// Wait before the runtime is asked again for what it could not give.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);

/// What all parts of the agent use.
pub(crate) struct Shared {
    pub(crate) config: KubeletConfig,
    pub(crate) client: Client,
    pub(crate) runtime: Arc<dyn RuntimeService>,
    pub(crate) images: Arc<dyn ImageService>,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) recorder: Recorder,
    pub(crate) services: Informer<Service>,
    pub(crate) pods: Pods,
    /// The node's own object.
    pub(crate) node: Informer<Node>,
    pub(crate) apparmor: bool,
    pub(crate) userns: Ranges,
    pub(crate) allocations: Allocations,
    pub(crate) volumes: volumes::Manager,
    pub(crate) pulled: Pulled,
    pub(crate) providers: Providers,
    pub(crate) places: Places,
    pub(crate) dra: Arc<Dra>,
    pub(crate) pod_resources: PodResources,
    pub(crate) probes: Counts,
    /// The results of health checks, for `/metrics/slis`.
    pub(crate) checks: telemetry::checks::HealthChecks,
    pub(crate) rates: Rates,
    pressure: Mutex<Vec<Pressure>>,
    pub(crate) objects: Objects,
    actors: Mutex<HashMap<String, Handle>>,
    /// Container or sandbox id → pod uid, for events that name only the container.
    owners: Mutex<HashMap<String, String>>,
    resources: NodeResources,
    runtime_name: OnceLock<String>,
    /// What the node's pods use of the memory, where the node has a part of a machine only.
    pub(crate) pods_memory: AtomicU64,
    /// The machine is about to go down.
    pub(crate) shutting_down: AtomicBool,
    /// Told when the node's status is to be written without delay.
    pub(crate) status_due: Notify,
    /// Told when the shares of a class of pods may be others.
    pub(crate) classes_due: Notify,
    pub(crate) tasks: Tasks,
}

/// The sources of static pods that the node has.
fn sources(config: &KubeletConfig) -> Vec<Source> {
    let file = config.static_pods.path.as_ref().map(|_| Source::File);
    let url = config.static_pods.url.as_ref().map(|_| Source::Url);
    file.into_iter().chain(url).collect()
}

/// One node's agent. Clones are the same agent.
#[derive(Clone)]
pub struct Kubelet {
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl std::fmt::Debug for Kubelet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kubelet({})", self.shared.config.node_name)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn node_resources(&self) -> NodeResources {
        self.resources.clone()
    }

    /// The runtime's own name, known before the first actor starts.
    pub(crate) fn runtime_name(&self) -> String {
        self.runtime_name.get().cloned().unwrap_or_default()
    }

    /// An actor has ended.
    pub(crate) fn forget(&self, uid: &str) {
        lock(&self.actors).remove(uid);
        lock(&self.owners).retain(|_, owner| owner != uid);
        self.pods.end_static(uid);
        self.probes.forget(uid);
    }

    pub(crate) fn tell(&self, uid: &str, event: Event) -> bool {
        lock(&self.actors).get(uid).is_some_and(|handle| handle.send(event))
    }

    /// Starts the pod's actor; one that the node refuses only ends there.
    pub(crate) fn start(self: &Arc<Self>, tasks: &Tasks, pod: Arc<Pod>, admission: Admission) {
        // Held from before the start: who looks for pods without an actor finds this one.
        let mut actors = lock(&self.actors);
        let uid = uid_of(&pod).to_owned();
        actors.insert(uid, pod::spawn(self, tasks, pod, admission));
    }

    /// Whether a pod of this uid is on the node or on its way.
    pub(crate) fn knows(&self, uid: &str) -> bool {
        lock(&self.actors).contains_key(uid) || self.pods.list().iter().any(|p| uid_of(p) == uid)
    }

    pub(crate) fn pressure(&self) -> Vec<Pressure> {
        lock(&self.pressure).clone()
    }

    pub(crate) fn set_pressure(&self, pressure: Vec<Pressure>) {
        *lock(&self.pressure) = pressure;
    }

    fn tell_all(&self) {
        for handle in lock(&self.actors).values() {
            handle.send(Event::Runtime);
        }
    }
}

impl Kubelet {
    /// Follows the node's pods from now on; nothing is done to them before [`Kubelet::run`]. Refuses settings
    /// of CPUs and memory that do not fit the machine, or what an earlier run gave away.
    pub fn new(config: KubeletConfig, deps: Deps, tasks: &Tasks) -> Result<Kubelet, String> {
        cgroups::begin(&config)?;
        let tasks = tasks.child();
        let client = deps.client;
        let mine = Follow {
            field_selector: format!("spec.nodeName={}", config.node_name),
            ..Follow::default()
        };
        let own = Follow {
            field_selector: format!("metadata.name={}", config.node_name),
            ..Follow::default()
        };
        let shared = Shared {
            recorder: Recorder::new(client.clone(), &tasks, "kubelet", &config.node_name),
            services: deps.services.unwrap_or_else(|| Informer::new(&client, &tasks)),
            pods: Pods::new(Informer::selected(&client, &tasks, mine), sources(&config)),
            node: Informer::selected(&client, &tasks, own),
            apparmor: apparmor_is_enabled(),
            userns: Ranges::load(&config.root_dir),
            allocations: Allocations::new(&config.root_dir),
            volumes: volumes::Manager::new(&config.root_dir),
            pulled: Pulled::new(&config.root_dir),
            providers: Providers::load(config.credential_providers.as_ref())?,
            places: Places::open(&config, &tasks)?,
            dra: Dra::open(&config.root_dir, &config.node_name, client.clone(), tasks.child())?,
            pod_resources: PodResources::default(),
            probes: Counts::default(),
            checks: telemetry::checks::HealthChecks::default(),
            rates: Rates::default(),
            pressure: Mutex::default(),
            objects: Objects::new(client.clone(), tasks.child()),
            actors: Mutex::default(),
            owners: Mutex::default(),
            resources: node::resources(&config),
            runtime_name: OnceLock::new(),
            pods_memory: AtomicU64::new(0),
            shutting_down: AtomicBool::new(false),
            status_due: Notify::new(),
            classes_due: Notify::new(),
            tasks: tasks.child(),
            runtime: deps.runtime,
            images: deps.images,
            dialer: deps.dialer,
            authorizer: deps.authorizer,
            client,
            config,
        };
        Ok(Kubelet { shared: Arc::new(shared), tasks })
    }

    /// Runs the node until the tasks given to [`Kubelet::new`] are cancelled.
    pub async fn run(&self) {
        let shared = self.shared.clone();
        self.tasks.essential("node status", move || node::run_status(shared.clone()));
        let shared = self.shared.clone();
        self.tasks.essential("node lease", move || node::run_lease(shared.clone()));
        let shared = self.shared.clone();
        self.tasks.essential("runtime events", move || runtime_events(shared.clone()));
        self.ask_runtime_name().await;
        // Pods' environments show services: the first pod must not miss them.
        self.shared.services.synced().await;
        let (sender, changes) = mpsc::unbounded_channel();
        let told = sender.clone();
        self.shared.pods.api.on_change(move |change| {
            // Nobody listens once the node ends.
            let _ended = told.send(change.clone());
        });
        self.shared.pods.api.synced().await;
        intake::sources::run(&self.shared, &self.tasks, sender);
        let upkeep = upkeep::Upkeep::new(&self.shared);
        let kubelet = self.clone();
        self.tasks.spawn("orphans", async move { kubelet.adopt_orphans().await });
        self.tasks.spawn("pods", intake::run(self.shared.clone(), self.tasks.clone(), changes));
        self.tasks.spawn("upkeep", upkeep.run(self.shared.clone()));
        let shared = self.shared.clone();
        self.tasks.essential("node shutdown", move || node::shutdown::run(shared.clone()));
        let shared = self.shared.clone();
        self.tasks.essential("CSI node", move || volumes::csi::run_node_info(shared.clone()));
        let shared = self.shared.clone();
        self.tasks.essential("plugin registration", move || run_plugins(shared.clone()));
        let devices = self.shared.places.devices.clone();
        self.tasks.essential("device plugins", move || devices::registration::run(devices.clone()));
        let shared = self.shared.clone();
        self.tasks.essential("device news", move || device_news(shared.clone()));
        let shared = self.shared.clone();
        self.tasks.essential("claims", move || run_claims(shared.clone()));
        let shared = self.shared.clone();
        self.tasks.spawn("ResourceSlices", async move { shared.dra.wipe_slices().await });
        let shared = self.shared.clone();
        self.tasks.essential("pod resources", move || pod_resources::run(shared.clone()));
        let shared = self.shared.clone();
        self.tasks.essential("cgroups", move || cgroups::run(shared.clone()));
        let shared = self.shared.clone();
        self.tasks.essential("placement", move || placing::run(shared.clone()));
        let shared = self.shared.clone();
        self.tasks.essential("storage limits", move || upkeep::run_limits(shared.clone()));
        self.tasks.cancelled().await;
    }

    async fn ask_runtime_name(&self) {
        loop {
            match self.shared.runtime.version().await {
                Ok(version) => {
                    // Set once: `run` is called once.
                    let _again = self.shared.runtime_name.set(version.runtime_name);
                    return;
                }
                Err(error) => tracing::warn!(error = error.chain(), "the runtime does not answer"),
            }
            tokio::time::sleep(RUNTIME_RETRY).await;
        }
    }

    /// Serves the node API on an open listener until cancelled.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
        let (_kept, tls) = watch::channel(tls);
        self.serve_live(listener, tls).await;
    }

    /// As [`Kubelet::serve`], with certificates and authorities that may become others. Connections end, after
    /// the request that they carry, when that happens.
    pub async fn serve_live(
        &self,
        listener: TcpListener,
        tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    ) {
        server::serve(self.shared.clone(), &self.tasks, listener, tls).await;
    }

    /// What runs for pods that no source has any more ends like any pod.
    async fn adopt_orphans(&self) {
        self.shared.pods.complete().await;
        let listed = self.shared.runtime.list_pod_sandboxes(PodSandboxFilter::default()).await;
        let sandboxes = match listed {
            Ok(sandboxes) => sandboxes,
            Err(error) => {
                tracing::warn!(error = error.chain(), "sandboxes not listed, orphans are left");
                return;
            }
        };
        for sandbox in sandboxes {
            let Some(meta) = sandbox.metadata else { continue };
            let ours = sandbox.labels.get(labels::POD_UID) == Some(&meta.uid);
            if !ours || self.shared.knows(&meta.uid) {
                continue;
            }
            let mut pod = Pod::default();
            pod.metadata.name = Some(meta.name);
            pod.metadata.namespace = Some(meta.namespace);
            pod.metadata.uid = Some(meta.uid.clone());
            self.shared.start(&self.tasks, Arc::new(pod), Admission::Taken);
            self.shared.tell(&meta.uid, Event::Gone);
        }
    }
}

/// The handlers of all types of plugins, and their sockets.
async fn run_plugins(shared: Arc<Shared>) {
    let csi = volumes::csi::registration::Handler::new(shared.clone());
    let devices = devices::registration::Handler(shared.places.devices.clone());
    let drivers = dra::registration::Handler(shared.dra.clone());
    let handlers: plugins::Handlers = vec![
        ("CSIPlugin", Arc::new(csi)),
        ("DevicePlugin", Arc::new(devices)),
        ("DRAPlugin", Arc::new(drivers)),
    ];
    plugins::run(&shared.config.root_dir, handlers).await;
}

/// Devices that come, go or change their health change the node's status and that of pods.
async fn device_news(shared: Arc<Shared>) {
    let devices = &shared.places.devices;
    loop {
        devices.news.notified().await;
        shared.status_due.notify_one();
        for uid in devices.take_affected() {
            shared.tell(&uid, Event::Runtime);
        }
    }
}

/// Claims of pods that are no more are unprepared; pods whose devices changed their health are looked at.
async fn run_claims(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(dra::RECONCILE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.dra.news.notified() => {
                for uid in shared.dra.take_affected() {
                    shared.tell(&uid, Event::Runtime);
                }
            }
            _ = ticks.tick() => if shared.pods.is_complete() {
                shared.dra.reconcile(|uid| shared.knows(uid)).await;
            }
        }
    }
}

async fn runtime_events(shared: Arc<Shared>) {
    loop {
        match shared.runtime.events().await {
            Ok(mut events) => {
                // What happened before the subscription was missed.
                shared.tell_all();
                while let Some(Ok(event)) = events.next().await {
                    route(&shared, &event).await;
                }
            }
            Err(error) => tracing::warn!(error = error.chain(), "no runtime events"),
        }
        tokio::time::sleep(RUNTIME_RETRY).await;
    }
}

async fn route(shared: &Shared, event: &ContainerEventResponse) {
    let sandbox = event.pod_sandbox_status.as_ref().and_then(|s| s.labels.get(labels::POD_UID));
    let mut statuses = event.containers_statuses.iter();
    let named = statuses.find_map(|s| s.labels.get(labels::POD_UID)).or(sandbox).cloned();
    let known = named.or_else(|| lock(&shared.owners).get(&event.container_id).cloned());
    let uid = match known {
        Some(uid) => uid,
        None => match find_owner(shared, &event.container_id).await {
            Some(uid) => uid,
            None => return shared.tell_all(),
        },
    };
    lock(&shared.owners).insert(event.container_id.clone(), uid.clone());
    shared.tell(&uid, Event::Runtime);
}

async fn find_owner(shared: &Shared, id: &str) -> Option<String> {
    let filter = ContainerFilter { id: id.to_owned(), ..ContainerFilter::default() };
    let found = shared.runtime.list_containers(filter).await.ok()?;
    found.first().and_then(|c| c.labels.get(labels::POD_UID)).cloned()
}
