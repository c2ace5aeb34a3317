//! The embedded runtime itself: sandboxes and containers, their records, and what is running.
//!
//! State is in memory, every change is written down before it is acted upon, and the supervisor's list
//! of runs has the last word on what lives. Locks are held for a look-up only, never across an await.

mod client;
mod container;
mod details;
mod exec_sync;
mod figures;
mod files;
mod foreign;
mod pins;
mod private;
mod program;
mod records;
mod sandbox;
mod service;
mod stats;
mod streams;
mod users;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cgroup::Hierarchies;
use crate::config::Config;
use crate::cri::{ContainerEventResponse, ContainerEventType};
use crate::error::{IoContext, Result};
use crate::image::ImageStore;
use crate::plan::seccomp;
use crate::service::SandboxNetwork;
use crate::wire::{Ask, Run};
use client::{Client, News};
use records::{ContainerRecord, SandboxRecord};
use sandbox::on_node;

/// Events a slow reader may lag behind: some hundred pods' worth.
const EVENT_BACKLOG: usize = 4096;

/// The exit code of what ended while nobody looked.
const UNSEEN: i32 = 255;

/// How long killed processes may take to leave their cgroups.
const RESET_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

struct Container {
    record: ContainerRecord,
    /// The run's latest state: stops and attachments wait on it.
    run: watch::Sender<Option<Run>>,
    /// One start, stop or removal at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Sandbox {
    record: SandboxRecord,
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    sandboxes: HashMap<String, Sandbox>,
    containers: HashMap<String, Container>,
    /// Execs, and the inits of shared pid namespaces.
    others: HashMap<String, watch::Sender<Option<Run>>>,
}

struct Inner {
    config: Config,
    images: Arc<ImageStore>,
    network: Arc<dyn SandboxNetwork>,
    cgroups: Hierarchies,
    seccomp: seccomp::Cache,
    client: Arc<Client>,
    state: Mutex<State>,
    events: broadcast::Sender<ContainerEventResponse>,
    pod_cidr: Mutex<String>,
    user_namespaces: tokio::sync::OnceCell<bool>,
}

/// The embedded runtime: [`crate::RuntimeService`] and [`crate::ImageService`]. Dropping the last clone
/// stops its tasks and no container.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
    stop: CancellationToken,
    /// The reader of the supervisor's socket.
    reading: Arc<Mutex<Option<JoinHandle<()>>>>,
    _guard: Arc<tokio_util::sync::DropGuard>,
}

impl Embedded {
    /// Opens the stores, connects to the supervisor (starting it if need be), and picks up what runs.
    pub async fn open(config: Config, network: Arc<dyn SandboxNetwork>) -> Result<Embedded> {
        for dir in [&config.root, &config.state_dir] {
            private::directory(dir)?;
        }
        pins::private_mount(&config.state_dir)?;
        let mount_point = config.state_dir.join("rootfs");
        std::fs::create_dir_all(&mount_point).at("make", &mount_point)?;
        let images = Arc::new(ImageStore::open(config.root.join("images"))?);
        let cgroups = Hierarchies::detect(&config.cgroup_root)?;
        let mut state = State::default();
        let loaded = load(&config.root, &mut state)?;
        end_lost_sandboxes(&config, &mut state)?;
        let unstarted = state.containers.values().filter(|c| c.record.run.is_none());
        let unstarted: Vec<String> = unstarted.map(|c| c.record.id.clone()).collect();
        let stop = CancellationToken::new();
        let client = Client::connect(&config, stop.clone()).await?;
        let inner = Arc::new(Inner {
            images,
            network,
            cgroups,
            seccomp: seccomp::Cache::default(),
            client: client.clone(),
            state: Mutex::new(state),
            events: broadcast::Sender::new(EVENT_BACKLOG),
            pod_cidr: Mutex::default(),
            user_namespaces: tokio::sync::OnceCell::new(),
            config,
        });
        let guard = Arc::new(stop.clone().drop_guard());
        let reading = start_tasks(&inner, client, &stop).await;
        inner.end_abandoned_execs();
        inner.end_half_started(unstarted).await;
        inner.end_damaged(loaded).await;
        inner.resume_network().await;
        let reading = Arc::new(Mutex::new(Some(reading)));
        Ok(Embedded { inner, stop, reading, _guard: guard })
    }

    /// Stops the tasks and waits for their end: no supervisor is started after. Containers and the
    /// supervisor stay.
    pub async fn close(&self) {
        self.stop.cancel();
        let reading = self.reading.lock().expect("no holder panics").take();
        let Some(reading) = reading else { return };
        if let Err(e) = reading.await {
            tracing::error!("the supervisor's reader: {e}");
        }
    }

    /// The image store, for imports and images made on the spot.
    pub fn images(&self) -> Arc<ImageStore> {
        self.inner.images.clone()
    }

    /// The machine's cgroups, for the kubelet's own groups.
    pub fn cgroups(&self) -> Hierarchies {
        self.inner.cgroups.clone()
    }

    /// Removes every sandbox, ends the supervisor, and leaves neither mounts nor cgroups: what is left
    /// are the two directories. The runtime cannot be used after.
    pub async fn reset(self) -> Result<()> {
        let inner = &self.inner;
        let sandboxes: Vec<String> = inner.state().sandboxes.keys().cloned().collect();
        for id in sandboxes {
            inner.remove_sandbox(&id).await?;
        }
        self.close().await;
        let group = inner.cgroups.group(&inner.config.cgroup_parent)?;
        let deadline = tokio::time::Instant::now() + RESET_LIMIT;
        while let Err(e) = group.kill().and_then(|()| group.remove()) {
            if tokio::time::Instant::now() > deadline {
                return Err(e);
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        pins::unmount_state(&inner.config.state_dir)
    }

    /// Pushes an image under a name to its registry; returns the name with the manifest's digest.
    pub async fn push_image(
        &self,
        image: &str,
        name: &str,
        auth: crate::cri::AuthConfig,
    ) -> Result<String> {
        crate::pull::push(&self.inner.images, &self.inner.config, image, name, auth).await
    }

    /// Where the files are that a container has changed, in overlayfs' form.
    pub fn changes_of(&self, container: &str) -> Result<PathBuf> {
        let record = self.inner.container_record(container)?;
        Ok(self.inner.container_dir(&record.id).join("upper"))
    }

    /// Removes layers that no image and no container uses.
    pub fn collect_layers(&self) -> Result<()> {
        self.inner.images.collect(&self.inner.layers_in_use())
    }
}

/// Fills the state with what is written down; returns the containers whose records are damaged.
fn load(root: &Path, state: &mut State) -> Result<Vec<String>> {
    let aside = root.join("damaged");
    let sandboxes = records::load::<SandboxRecord>(&root.join("sandboxes"), &aside)?;
    for record in sandboxes.records {
        state.sandboxes.insert(record.id.clone(), Sandbox { record, turn: Arc::default() });
    }
    let containers = records::load::<ContainerRecord>(&root.join("containers"), &aside)?;
    for record in containers.records {
        let run = watch::Sender::new(record.run.clone());
        let container = Container { run, turn: Arc::default(), record };
        state.containers.insert(container.record.id.clone(), container);
    }
    Ok(containers.damaged)
}

/// Sandboxes of before the machine's last start have no namespaces any more: nothing can be started in them.
fn end_lost_sandboxes(config: &Config, state: &mut State) -> Result<()> {
    for (id, sandbox) in &mut state.sandboxes {
        let record = &mut sandbox.record;
        if !record.ready || pins::are_alive(&config.state_dir.join("sandboxes").join(id)) {
            continue;
        }
        tracing::info!(sandbox = id, "its namespaces are gone");
        record.ready = false;
        records::save(&config.root.join("sandboxes").join(id), record)?;
    }
    Ok(())
}

/// Starts the reader of the supervisor's socket, and the task that books its news; returns after the
/// first list.
async fn start_tasks(
    inner: &Arc<Inner>,
    client: Arc<Client>,
    stop: &CancellationToken,
) -> JoinHandle<()> {
    let (sender, mut news) = mpsc::unbounded_channel();
    let reading = tokio::spawn(client.run(sender));
    if let Some(first) = news.recv().await {
        let strays = inner.book(first);
        inner.forget_strays(strays).await;
    }
    let books = Arc::downgrade(inner);
    let booking = async move {
        while let Some(item) = news.recv().await {
            let Some(inner) = books.upgrade() else { return };
            let strays = inner.book(item);
            inner.forget_strays(strays).await;
        }
    };
    drop(tokio::spawn(stop.clone().run_until_cancelled_owned(booking)));
    reading
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Returns runs that have ended and that nobody here knows.
    fn book(self: &Arc<Self>, news: News) -> Vec<String> {
        match news {
            News::Exited(run) => {
                self.ended(run);
                Vec::new()
            }
            News::Listed(runs, since) => self.reconcile(runs, since),
        }
    }

    /// The supervisor was not there, or we were not, when these were to be forgotten.
    async fn forget_strays(&self, ids: Vec<String>) {
        for id in ids {
            if let Err(e) = self.forget(&id).await {
                tracing::warn!(run = id, "not forgotten: {}", e.chain());
            }
        }
    }

    /// A container, an exec or a pause has ended.
    fn ended(self: &Arc<Self>, run: Run) {
        let id = run.id.clone();
        {
            let mut state = self.state();
            if let Some(other) = state.others.remove(&id) {
                other.send_replace(Some(run));
                return;
            }
            let Some(container) = state.containers.get_mut(&id) else { return };
            container.record.run = Some(run.clone());
            container.record.reason = reason(&run).to_owned();
            self.save_container(&container.record);
            container.run.send_replace(Some(run));
        }
        self.emit(&id, ContainerEventType::Stopped);
    }

    /// What we think runs, and the supervisor does not know, has ended unseen. Returns what has ended
    /// and only the supervisor knows.
    fn reconcile(self: &Arc<Self>, runs: Vec<Run>, since: i64) -> Vec<String> {
        let mut known: HashMap<String, Run> = runs.into_iter().map(|r| (r.id.clone(), r)).collect();
        let mut ended = Vec::new();
        let strays: Vec<String>;
        {
            let mut state = self.state();
            for (id, container) in &mut state.containers {
                let believed = container.record.running();
                match known.remove(id) {
                    Some(run) if run.ended && believed => ended.push(run),
                    Some(run) if !run.ended => {
                        container.record.run = Some(run.clone());
                        container.run.send_replace(Some(run));
                    }
                    None if believed => {
                        let mut run = container.record.run.clone().unwrap_or_default();
                        (run.ended, run.exit_code, run.finished_at) = (true, UNSEEN, now_ns());
                        ended.push(run);
                    }
                    _ => {}
                }
            }
            // Execs of an earlier supervisor: nobody will tell of their end.
            for (id, other) in &state.others {
                let run = other.borrow().clone();
                if let Some(mut run) =
                    run.filter(|r| r.started_at < since && !known.contains_key(id))
                {
                    (run.ended, run.exit_code, run.finished_at) = (true, UNSEEN, now_ns());
                    run.unseen = true;
                    ended.push(run);
                }
            }
            let over = |run: &&Run| run.ended && !run.exec;
            let others = &state.others;
            ended.extend(
                known.values().filter(over).filter(|r| others.contains_key(&r.id)).cloned(),
            );
            strays = known.values().filter(over).map(|r| r.id.clone()).collect();
            for run in known.into_values().filter(|r| !r.ended && !r.exec) {
                state.others.insert(run.id.clone(), watch::Sender::new(Some(run)));
            }
        }
        for run in ended {
            self.ended(run);
        }
        strays
    }

    fn emit(self: &Arc<Self>, id: &str, kind: ContainerEventType) {
        let event = {
            let state = self.state();
            let sandbox_id = state.containers.get(id).map_or(id, |c| &c.record.sandbox_id);
            let statuses = state.containers.values().filter(|c| c.record.sandbox_id == sandbox_id);
            ContainerEventResponse {
                container_id: id.to_owned(),
                container_event_type: kind as i32,
                created_at: now_ns(),
                pod_sandbox_status: state
                    .sandboxes
                    .get(sandbox_id)
                    .map(|s| sandbox::status(&s.record)),
                containers_statuses: statuses.map(|c| container::status(&c.record)).collect(),
            }
        };
        // No reader is no error.
        let _ = self.events.send(event);
    }

    fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.config.root.join("sandboxes").join(id)
    }

    fn pin_dir(&self, id: &str) -> PathBuf {
        self.config.state_dir.join("sandboxes").join(id)
    }

    fn container_dir(&self, id: &str) -> PathBuf {
        self.config.root.join("containers").join(id)
    }

    /// A record that cannot be written now is written with its next change; the run's own status is
    /// with the supervisor in any case.
    fn save_container(&self, record: &ContainerRecord) {
        if let Err(e) = records::save(&self.container_dir(&record.id), record) {
            tracing::error!(container = record.id, "{}", e.chain());
        }
    }

    /// Nobody knows these containers any more: should one run, it would run beside its successor.
    async fn end_damaged(&self, ids: Vec<String>) {
        for id in ids {
            if !self.state().others.contains_key(&id) {
                continue;
            }
            if let Err(e) = self.signal(&id, libc::SIGKILL).await {
                tracing::error!(container = id, "not ended: {}", e.chain());
            }
        }
    }

    /// A container that was created by its OCI runtime, and whose start nobody has seen to its end, waits for
    /// ever: it ends, and can be started anew.
    async fn end_half_started(&self, unstarted: Vec<String>) {
        for id in unstarted {
            let Ok(record) = self.container_record(&id) else { continue };
            let is_foreign = self.oci_runtime_of(&record).is_ok_and(|found| found.is_some());
            if !is_foreign || !record.running() {
                continue;
            }
            if let Err(e) = self.signal(&id, libc::SIGKILL).await {
                tracing::error!(container = id, "not ended: {}", e.chain());
            }
        }
    }

    fn layers_in_use(&self) -> HashSet<String> {
        self.state().containers.values().flat_map(|c| c.record.layers.clone()).collect()
    }

    async fn forget(&self, id: &str) -> Result<()> {
        self.client.ask(Ask::Forget(id.to_owned()), &[]).await.map(drop)
    }
}

/// Why a container has ended, in the words that clients know.
fn reason(run: &Run) -> &'static str {
    match run.exit_code {
        _ if run.oom_killed => "OOMKilled",
        0 => "Completed",
        _ => "Error",
    }
}

/// Nanoseconds since 1970.
fn now_ns() -> i64 {
    jiff::Timestamp::now().as_nanosecond() as i64
}

/// A fresh id: 64 hex digits, as clients expect.
fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}
