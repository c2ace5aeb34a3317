//! Containers: their life, and what is told of them.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::details::{
    device_rules, log_path, make_sources, merge, refuse, signal_number, start_failed,
};
use super::foreign::OciRuntime;
use super::pins;
use super::records::{self, ContainerRecord, SandboxRecord};
use super::sandbox::{namespaces, on_node};
use super::{Container, Inner, new_id, now_ns};
use crate::cdi::{self, Edits};
use crate::cri::{Container as Listed, *};
use crate::error::{Error, IoContext, Result};
use crate::image::StoredImage;
use crate::image::lookup::{self, Found};
use crate::plan::users::{self, Files};
use crate::plan::{self, Input, Layout, Namespaces};
use crate::wire::{Ask, Run, Signal as SignalAsk};

/// How long a killed process may take to be gone before that is an error: it is stuck in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn state_of(record: &ContainerRecord) -> ContainerState {
    match &record.run {
        None => ContainerState::Created,
        Some(run) if run.ended => ContainerState::Exited,
        Some(_) => ContainerState::Running,
    }
}

pub(super) fn status(record: &ContainerRecord) -> ContainerStatus {
    let config = record.config();
    let run = record.run.clone().unwrap_or_default();
    let plan = record.plan.clone().unwrap_or_default();
    let resources = config.linux.as_ref().and_then(|l| l.resources.clone());
    ContainerStatus {
        id: record.id.clone(),
        metadata: config.metadata,
        state: state_of(record) as i32,
        created_at: record.created_at,
        started_at: run.started_at,
        finished_at: run.finished_at,
        exit_code: run.exit_code,
        image: config.image,
        image_ref: record.image_ref.clone(),
        image_id: record.image_id.clone(),
        reason: record.reason.clone(),
        message: record.message.clone(),
        labels: config.labels,
        annotations: config.annotations,
        mounts: config.mounts,
        log_path: plan.log_path,
        resources: Some(ContainerResources { linux: resources }),
        user: Some(ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: plan.uid.into(),
                gid: plan.gid.into(),
                supplemental_groups: plan.groups.iter().map(|g| i64::from(*g)).collect(),
            }),
        }),
        stop_signal: config.stop_signal,
    }
}

pub(super) fn listed(record: &ContainerRecord) -> Listed {
    let config = record.config();
    Listed {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox_id.clone(),
        metadata: config.metadata,
        image: config.image,
        image_ref: record.image_ref.clone(),
        state: state_of(record) as i32,
        created_at: record.created_at,
        labels: config.labels,
        annotations: config.annotations,
        image_id: record.image_id.clone(),
    }
}

impl Inner {
    pub(super) async fn create_container(
        self: &Arc<Self>,
        request: CreateContainerRequest,
    ) -> Result<String> {
        let config =
            request.config.ok_or_else(|| Error::Invalid("no container config".to_owned()))?;
        let sandbox = self.sandbox_record(&request.pod_sandbox_id)?;
        if !sandbox.ready {
            return Err(Error::Precondition(format!("sandbox {} is not ready", sandbox.id)));
        }
        let inner = self.clone();
        let work = move || inner.prepare_container(config, &sandbox);
        let record = tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| Error::Supervisor(e.to_string()))??;
        let id = record.id.clone();
        let run = watch::Sender::new(None);
        self.state().containers.insert(id.clone(), Container { record, run, turn: Arc::default() });
        self.emit(&id, ContainerEventType::Created);
        Ok(id)
    }

    pub(super) fn sandbox_record(&self, id: &str) -> Result<SandboxRecord> {
        let found = self.state().sandboxes.get(id).map(|s| s.record.clone());
        found.ok_or_else(|| Error::not_found("sandbox", id))
    }

    fn prepare_container(
        &self,
        mut config: ContainerConfig,
        sandbox: &SandboxRecord,
    ) -> Result<ContainerRecord> {
        refuse(&config)?;
        self.name_mounted_images(&mut config)?;
        let id = new_id();
        let name = config.image.as_ref().map_or("", |i| i.image.as_str());
        let image = self.images.find(name).ok_or_else(|| Error::not_found("image", name))?;
        let dir = self.container_dir(&id);
        let group = format!("{}/{id}", self.parent_group(&sandbox.config()));
        // What is recorded is what was asked for.
        let mut edited = config.clone();
        let edits = cdi::inject(&mut edited, &self.config.cdi_dirs)?;
        let done = self
            .with_sandbox_files(&edited, sandbox)
            .and_then(|c| self.plan_container(&id, (&c, &edits), sandbox, &image, &group));
        let plan = match done {
            Ok(plan) => plan,
            Err(e) => {
                // The first error is the one to tell.
                let _ = crate::tree::remove(&dir);
                let _ = self.cgroups.group(&group).and_then(|g| g.remove());
                return Err(e);
            }
        };
        let stop_signal = Signal::try_from(config.stop_signal).map_or("", Signal::name);
        let stop_signal =
            if stop_signal.is_empty() { image.process.stop_signal.as_str() } else { stop_signal };
        let record = ContainerRecord {
            id,
            sandbox_id: sandbox.id.clone(),
            created_at: now_ns(),
            image_ref: image.digests.first().unwrap_or(&image.id).clone(),
            image_id: image.id.clone(),
            layers: self.layers_of(&image, &config)?,
            plan: Some(plan),
            stop_signal: stop_signal.to_owned(),
            cgroup: group,
            config: Some(config),
            ..ContainerRecord::default()
        };
        records::save(&dir, &record)?;
        Ok(record)
    }

    fn plan_container(
        &self,
        id: &str,
        (config, edits): (&ContainerConfig, &Edits),
        sandbox: &SandboxRecord,
        image: &StoredImage,
        group_path: &str,
    ) -> Result<crate::wire::Plan> {
        let context = plan::context(config);
        let sandbox_config = sandbox.config();
        let options = namespaces(&sandbox_config);
        let layers = self.images.layer_dirs(image);
        let users =
            super::users::of_container(&sandbox_config, context.namespace_options.as_ref())?;
        let user = users::resolve(&context, &image.process.user, &Files::read(&layers))?;
        let group = self.cgroups.create(group_path)?;
        if let Some(resources) = config.linux.as_ref().and_then(|l| l.resources.as_ref()) {
            group.apply(resources)?;
        }
        // An OCI runtime does that itself.
        if !context.privileged && self.oci_runtime(&sandbox.handler)?.is_none() {
            let mut rules = device_rules(config)?;
            rules.extend(edits.nodes.iter().filter_map(|node| node.rule()));
            group.restrict_devices(&rules)?;
        }
        let pins = self.pin_dir(&sandbox.id);
        let shm = if on_node(options.ipc) { "/dev/shm".into() } else { pins::shm(&pins) };
        let root = users.as_ref().and_then(super::users::root_on_host);
        let layout = self.layout(id, config, layers, shm, root)?;
        let log_path = log_path(&sandbox_config, config)?;
        make_sources(config)?;
        let text = |p: std::path::PathBuf| p.to_string_lossy().into_owned();
        plan::container(&Input {
            id,
            config,
            edits,
            image: &image.process,
            user: &user,
            hostname: &sandbox.hostname,
            namespaces: Namespaces {
                user: users.as_ref().map(|_| text(pins::user(&pins))).unwrap_or_default(),
                ..self.container_namespaces(&context, sandbox, &options)?
            },
            host_uid: users.as_ref().and_then(|u| super::users::on_host(&u.uids, user.uid)),
            users,
            layout,
            v1_dirs: group.v1_dirs().map(Path::to_owned).collect(),
            unified_dir: group.unified_dir().map(Path::to_owned),
            is_v2: group.is_v2(),
            seccomp: plan::filters(&self.seccomp, &context, &self.config)?,
            log_path,
            log_max_bytes: self.config.log_max_bytes,
            log_max_files: self.config.log_max_files,
        })
    }

    /// Image volumes are told with the id of the image that is mounted.
    fn name_mounted_images(&self, config: &mut ContainerConfig) -> Result<()> {
        let mounted = config.mounts.iter_mut().filter_map(|mount| mount.image.as_mut());
        for spec in mounted.filter(|spec| !spec.image.is_empty()) {
            let found = self.images.find(&spec.image);
            spec.image_ref = found.ok_or_else(|| Error::not_found("image", &spec.image))?.id;
        }
        Ok(())
    }

    /// The layers that must stay while the container is there: its image's, and those of its mounts.
    fn layers_of(&self, image: &StoredImage, config: &ContainerConfig) -> Result<Vec<String>> {
        let mut layers = image.layers.clone();
        for spec in config.mounts.iter().filter_map(|m| m.image.as_ref()) {
            if spec.image.is_empty() {
                continue;
            }
            let mounted = self.images.find(&spec.image);
            let mounted = mounted.ok_or_else(|| Error::not_found("image", &spec.image))?;
            layers.extend(mounted.layers);
        }
        layers.sort_unstable();
        layers.dedup();
        Ok(layers)
    }

    fn layout(
        &self,
        id: &str,
        config: &ContainerConfig,
        layers: Vec<std::path::PathBuf>,
        shm: std::path::PathBuf,
        root: Option<(u32, u32)>,
    ) -> Result<Layout> {
        let dir = self.container_dir(id);
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        for dir in [&upper, &work] {
            std::fs::create_dir_all(dir).at("make", dir)?;
        }
        // The upper directory becomes the root's own attributes: those of the topmost layer.
        if let Some(top) = layers.first() {
            let permissions = std::fs::metadata(top).at("inspect", top)?.permissions();
            std::fs::set_permissions(&upper, permissions).at("open", &upper)?;
        }
        // In a user namespace its owner is that of the files that will be made there.
        if let Some((uid, gid)) = root {
            std::os::unix::fs::chown(&upper, Some(uid), Some(gid)).at("give away", &upper)?;
        }
        let mut image_mounts = Vec::new();
        for (index, mount) in config.mounts.iter().enumerate() {
            let Some(spec) = mount.image.as_ref().filter(|i| !i.image.is_empty()) else { continue };
            let image = self
                .images
                .find(&spec.image)
                .ok_or_else(|| Error::not_found("image", &spec.image))?;
            let layers = self.images.layer_dirs(&image);
            let found = lookup::lookup(&layers, Path::new(&mount.image_sub_path)).map_err(|e| {
                let (what, path) = ("find the sub path of an image volume", &mount.image_sub_path);
                Error::File { what, path: path.into(), source: e }
            })?;
            let parts = match found {
                Found::File(file) => vec![file],
                Found::Directory(parts) => parts,
            };
            image_mounts.extend(parts.into_iter().map(|part| (index, part)));
        }
        let mount_point = self.config.state_dir.join("rootfs");
        Ok(Layout { layers, upper, work, shm, mount_point, image_mounts })
    }

    fn container_namespaces(
        &self,
        context: &LinuxContainerSecurityContext,
        sandbox: &SandboxRecord,
        options: &NamespaceOption,
    ) -> Result<Namespaces> {
        let pins = self.pin_dir(&sandbox.id);
        let text = |p: std::path::PathBuf| p.to_string_lossy().into_owned();
        let node_net = || self.config.node_netns.clone().map(text).unwrap_or_default();
        let mode = plan::pid_mode(context);
        let shared = self.state().others.contains_key(&sandbox.id);
        let target = context.namespace_options.as_ref().map_or("", |o| o.target_id.as_str());
        let pid_of = match mode {
            NamespaceMode::Target if !self.state().containers.contains_key(target) => {
                return Err(Error::not_found("container", target));
            }
            NamespaceMode::Target => self.pid_owner(target),
            NamespaceMode::Pod if shared => sandbox.id.clone(),
            _ => String::new(),
        };
        Ok(Namespaces {
            net: if on_node(options.network) { node_net() } else { text(pins::net(&pins)) },
            ipc: if on_node(options.ipc) { String::new() } else { text(pins::ipc(&pins)) },
            uts: text(pins::uts(&pins)),
            user: String::new(),
            new_pid: pid_of.is_empty() && mode != NamespaceMode::Node,
            pid_of,
        })
    }

    /// The run whose init made the target's pid namespace: a target may share someone else's.
    fn pid_owner(&self, target: &str) -> String {
        let state = self.state();
        let plan = state.containers.get(target).and_then(|c| c.record.plan.as_ref());
        plan.map(|p| p.pid_ns_of.clone())
            .filter(|p| !p.is_empty())
            .unwrap_or_else(|| target.to_owned())
    }

    pub(super) fn turn(&self, id: &str) -> Option<Arc<tokio::sync::Mutex<()>>> {
        self.state().containers.get(id).map(|c| c.turn.clone())
    }

    pub(super) fn container_record(&self, id: &str) -> Result<ContainerRecord> {
        let found = self.state().containers.get(id).map(|c| c.record.clone());
        found.ok_or_else(|| Error::not_found("container", id))
    }

    pub(super) async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let turn = self.turn(id).ok_or_else(|| Error::not_found("container", id))?;
        let _turn = turn.lock().await;
        let record = self.container_record(id)?;
        if record.run.is_some() {
            return Err(Error::Precondition(format!("container {id} is not in created state")));
        }
        let started = match self.oci_runtime_of(&record)? {
            Some(runtime) => self.start_in_oci(&runtime, &record).await,
            None => self.start_embedded(&record).await.map(|(run, _)| run),
        };
        {
            let mut state = self.state();
            let Some(container) = state.containers.get_mut(id) else {
                return Err(Error::not_found("container", id));
            };
            match &started {
                // Its end may have been booked already: it is the later news.
                Ok(_) if container.record.run.is_some() => {}
                Ok(run) => container.record.run = Some(run.clone()),
                Err(e) => start_failed(&mut container.record, e),
            }
            self.save_container(&container.record);
            container.run.send_replace(container.record.run.clone());
        }
        match started {
            Ok(_) => {
                self.emit(id, ContainerEventType::Started);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    async fn start_embedded(&self, record: &ContainerRecord) -> Result<(Run, Option<OwnedFd>)> {
        self.client.start(&record.plan.clone().unwrap_or_default(), &[]).await
    }

    pub(super) async fn signal(&self, id: &str, number: i32) -> Result<()> {
        let ask = Ask::Signal(SignalAsk { id: id.to_owned(), number });
        match self.client.ask(ask, &[]).await {
            // It has ended meanwhile: that is what signals are for.
            Err(Error::Start { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Kills and waits for the end.
    pub(super) async fn kill(
        &self,
        id: &str,
        mut watch: watch::Receiver<Option<Run>>,
    ) -> Result<()> {
        self.signal(id, libc::SIGKILL).await?;
        let ended = watch.wait_for(|run| run.as_ref().is_none_or(|r| r.ended));
        match tokio::time::timeout(KILL_LIMIT, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Precondition(format!("{id} does not end when killed"))),
        }
    }

    pub(super) async fn stop_container(self: &Arc<Self>, id: &str, timeout: i64) -> Result<()> {
        let Some(turn) = self.turn(id) else { return Ok(()) };
        let _turn = turn.lock().await;
        let (record, mut watch) = {
            let state = self.state();
            let Some(container) = state.containers.get(id) else { return Ok(()) };
            (container.record.clone(), container.run.subscribe())
        };
        if !record.running() {
            return Ok(());
        }
        // One that is configured no longer is done without.
        let runtime = self.oci_runtime_of(&record).unwrap_or_default();
        if timeout > 0 {
            self.ask_to_end(runtime.as_ref(), &record).await?;
            let ended = watch.wait_for(|run| run.as_ref().is_none_or(|r| r.ended));
            let limit = Duration::from_secs(timeout.unsigned_abs());
            if tokio::time::timeout(limit, ended).await.is_ok() {
                return Ok(());
            }
        }
        if let Some(runtime) = &runtime
            && let Err(e) = self.signal_in_oci(runtime, id, libc::SIGKILL).await
        {
            // Its processes are killed all the same.
            tracing::debug!(container = id, "{}", e.chain());
        }
        self.kill(id, watch).await
    }

    /// Sends the stop signal; one that cannot be sent by an OCI runtime any more is sent directly.
    async fn ask_to_end(
        &self,
        runtime: Option<&OciRuntime>,
        record: &ContainerRecord,
    ) -> Result<()> {
        let number = signal_number(&record.stop_signal);
        if let Some(runtime) = runtime {
            match self.signal_in_oci(runtime, &record.id, number).await {
                Ok(()) => return Ok(()),
                Err(e) => tracing::debug!(container = record.id, "{}", e.chain()),
            }
        }
        self.signal(&record.id, number).await
    }

    pub(super) async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        self.stop_container(id, 0).await?;
        let Some(turn) = self.turn(id) else { return Ok(()) };
        let _turn = turn.lock().await;
        let Ok(record) = self.container_record(id) else { return Ok(()) };
        self.release_in_oci(&record).await?;
        self.forget(id).await?;
        let group = self.cgroups.group(&record.cgroup)?;
        let dir = self.container_dir(id);
        let work = move || {
            group.remove()?;
            crate::tree::remove(&dir).at("remove", &dir)
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| Error::Supervisor(e.to_string()))??;
        self.emit(id, ContainerEventType::Deleted);
        self.state().containers.remove(id);
        Ok(())
    }

    pub(super) fn update_resources(&self, request: UpdateContainerResourcesRequest) -> Result<()> {
        let Some(wanted) = request.linux else { return Ok(()) };
        let record = self.container_record(&request.container_id)?;
        self.cgroups.group(&record.cgroup)?.apply(&wanted)?;
        let mut state = self.state();
        if let Some(container) = state.containers.get_mut(&record.id) {
            let config = container.record.config.get_or_insert_default();
            let linux = config.linux.get_or_insert_default();
            merge(linux.resources.get_or_insert_default(), &wanted);
            self.save_container(&container.record);
        }
        Ok(())
    }
}
