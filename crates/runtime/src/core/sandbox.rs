//! Sandboxes: their life, and what is told of them.

use std::net::IpAddr;
use std::sync::Arc;

use super::pins::{self, Made, Wanted};
use super::records::{self, SandboxRecord};
use super::{Inner, Sandbox, details, new_id, now_ns, users};
use crate::cri::*;
use crate::error::{Error, Result};
use crate::plan;
use crate::service::SandboxNet;
use crate::wire::Ask;

/// Bytes of /dev/shm that a pod's containers share: what Docker and containerd give.
const SHM_BYTES: u64 = 64 << 20;

/// The sandbox's security context, or an empty one.
fn context(config: &PodSandboxConfig) -> LinuxSandboxSecurityContext {
    config.linux.as_ref().and_then(|l| l.security_context.clone()).unwrap_or_default()
}

pub(super) fn namespaces(config: &PodSandboxConfig) -> NamespaceOption {
    context(config).namespace_options.unwrap_or_default()
}

pub(super) fn on_node(mode: i32) -> bool {
    mode == NamespaceMode::Node as i32
}

pub(super) fn status(record: &SandboxRecord) -> PodSandboxStatus {
    let config = record.config();
    let mut ips = record.ips.iter();
    PodSandboxStatus {
        id: record.id.clone(),
        metadata: config.metadata.clone(),
        state: state(record),
        created_at: record.created_at,
        network: Some(PodSandboxNetworkStatus {
            ip: ips.next().cloned().unwrap_or_default(),
            additional_ips: ips.map(|ip| PodIP { ip: ip.clone() }).collect(),
        }),
        linux: Some(LinuxPodSandboxStatus {
            namespaces: Some(Namespace { options: Some(namespaces(&config)) }),
        }),
        labels: config.labels,
        annotations: config.annotations,
        runtime_handler: record.handler.clone(),
    }
}

fn state(record: &SandboxRecord) -> i32 {
    if record.ready { PodSandboxState::Ready as i32 } else { PodSandboxState::Notready as i32 }
}

pub(super) fn listed(record: &SandboxRecord) -> PodSandbox {
    let config = record.config();
    PodSandbox {
        id: record.id.clone(),
        metadata: config.metadata,
        state: state(record),
        created_at: record.created_at,
        labels: config.labels,
        annotations: config.annotations,
        runtime_handler: record.handler.clone(),
    }
}

/// Whether the sandbox has an init of its own, for containers that share its pid namespace.
fn has_pause(record: &SandboxRecord) -> bool {
    let config = record.config();
    namespaces(&config).pid == NamespaceMode::Pod as i32 && wants_shared_pid(&config)
}

/// The kernel's `__NEW_UTS_LEN`.
const HOST_NAME_MAX: usize = 64;

impl Inner {
    pub(super) async fn run_sandbox(
        self: &Arc<Self>,
        request: RunPodSandboxRequest,
    ) -> Result<String> {
        let config =
            request.config.ok_or_else(|| Error::Invalid("no sandbox config".to_owned()))?;
        check(&config)?;
        if let Some(runtime) = self.oci_runtime(&request.runtime_handler)? {
            runtime.check()?;
            if users::wanted(&namespaces(&config))?.is_some() {
                let handler = &request.runtime_handler;
                let text = format!("user namespaces with the runtime handler {handler:?}");
                return Err(Error::Unsupported(text));
            }
        }
        // Containers come soon: the cgroup attach lock may warm up while the network is made.
        self.client.ask(Ask::Warm(true), &[]).await?;
        let id = new_id();
        let hostname = self.hostname(&config);
        let mut record = SandboxRecord {
            id: id.clone(),
            config: Some(config),
            created_at: now_ns(),
            handler: request.runtime_handler,
            hostname,
            ..SandboxRecord::default()
        };
        match self.build_sandbox(&mut record).await {
            Ok(()) => {
                let sandbox = Sandbox { record, turn: Arc::default() };
                self.state().sandboxes.insert(id.clone(), sandbox);
                self.emit(&id, ContainerEventType::Started);
                Ok(id)
            }
            Err(e) => {
                if let Err(more) = self.release_sandbox(&mut record).await {
                    tracing::warn!(sandbox = id, "after a failed start: {}", more.chain());
                }
                remove_dir(&self.sandbox_dir(&id));
                Err(e)
            }
        }
    }

    fn hostname(&self, config: &PodSandboxConfig) -> String {
        if !config.hostname.is_empty() {
            return config.hostname.clone();
        }
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let pod = config.metadata.as_ref().map_or("", |m| m.name.as_str());
        let fits = (1..=HOST_NAME_MAX).contains(&pod.len());
        if fits && !on_node(namespaces(config).network) { pod.to_owned() } else { name }
    }

    async fn build_sandbox(self: &Arc<Self>, record: &mut SandboxRecord) -> Result<()> {
        let config = record.config();
        let options = namespaces(&config);
        record.attached = !on_node(options.network);
        // Written before anything exists: after a crash there is someone to clean up.
        records::save(&self.sandbox_dir(&record.id), record)?;
        let group = self.cgroups.create(&self.parent_group(&config))?;
        if let Some(limits) = own_group(&config).and_then(|linux| linux.resources.as_ref()) {
            group.apply(limits)?;
        }
        let dir = self.pin_dir(&record.id);
        let made = self.user_namespace(&options).await?;
        let wanted = Wanted {
            made,
            net: !on_node(options.network),
            ipc: !on_node(options.ipc),
            hostname: record.hostname.clone(),
            sysctls: sysctls(&config),
            node_net: self.config.node_netns.clone(),
            shm_bytes: SHM_BYTES,
        };
        pins::on_thread(move || pins::make(&dir, &wanted)).await?;
        if record.attached {
            let net = self.sandbox_net(record);
            let ips = self.network.attach(&net).await.map_err(Error::Network)?;
            record.ips = ips.iter().map(IpAddr::to_string).collect();
        }
        if has_pause(record) {
            self.start_pause(record).await?;
        }
        record.ready = true;
        records::save(&self.sandbox_dir(&record.id), record)
    }

    /// The pod's user namespace, with the namespaces that belong to it.
    async fn user_namespace(&self, options: &NamespaceOption) -> Result<Option<Made>> {
        let Some(users) = users::wanted(options)? else { return Ok(None) };
        let (net, ipc) = (!on_node(options.network), !on_node(options.ipc));
        let fds = self.client.user_namespace(users::ask(&users, net, ipc)).await?;
        Ok(Some(Made { fds, root: users::root_on_host(&users).unwrap_or_default() }))
    }

    /// The init of a pod whose containers share their pid namespace.
    async fn start_pause(&self, record: &SandboxRecord) -> Result<()> {
        let path = format!("{}/{}", self.parent_group(&record.config()), record.id);
        let group = self.cgroups.create(&path)?;
        let text = |p: &std::path::Path| p.to_string_lossy().into_owned();
        let unified = group.unified_dir().map(text).unwrap_or_default();
        let v1 = group.v1_dirs().map(text).collect();
        let point = text(&self.config.state_dir.join("rootfs"));
        let pod = users::wanted(&namespaces(&record.config()))?;
        let user_ns = pod.map(|_| text(&pins::user(&self.pin_dir(&record.id)))).unwrap_or_default();
        let plan = plan::pause(&record.id, point, unified, v1, user_ns);
        let (run, _) = self.client.start(&plan, &[]).await?;
        let watch = tokio::sync::watch::Sender::new(Some(run));
        self.state().others.insert(record.id.clone(), watch);
        Ok(())
    }

    pub(super) fn parent_group(&self, config: &PodSandboxConfig) -> String {
        let own = config.linux.as_ref().map_or("", |l| l.cgroup_parent.as_str());
        if own.is_empty() { self.config.cgroup_parent.clone() } else { own.to_owned() }
    }

    /// The pod's cgroup goes with its last sandbox; with another one in it the kernel refuses.
    fn remove_group(&self, config: &PodSandboxConfig) {
        let Some(linux) = own_group(config) else { return };
        let others = self.state().sandboxes.values().any(|s| {
            own_group(&s.record.config()).is_some_and(|o| o.cgroup_parent == linux.cgroup_parent)
        });
        if others {
            return;
        }
        let removed = self.cgroups.group(&linux.cgroup_parent).and_then(|group| group.remove());
        if let Err(error) = removed {
            tracing::debug!(group = linux.cgroup_parent, "not removed: {}", error.chain());
        }
    }

    fn sandbox_net(&self, record: &SandboxRecord) -> SandboxNet {
        let config = record.config();
        let meta = config.metadata.unwrap_or_default();
        SandboxNet {
            id: record.id.clone(),
            namespace: meta.namespace,
            name: meta.name,
            uid: meta.uid,
            netns: pins::net(&self.pin_dir(&record.id)),
            hostname: record.hostname.clone(),
            port_mappings: config.port_mappings,
            annotations: config.annotations,
        }
    }

    /// The sandboxes that were attached by a former process. What fails here must not keep the runtime
    /// from opening: the pods run.
    pub(super) async fn resume_network(&self) {
        let attached: Vec<SandboxRecord> = {
            let state = self.state();
            let all = state.sandboxes.values().map(|s| &s.record);
            all.filter(|record| record.ready && record.attached).cloned().collect()
        };
        if attached.is_empty() {
            return;
        }
        let told = attached.iter().map(|record| {
            let ips = record.ips.iter().filter_map(|ip| ip.parse().ok());
            (self.sandbox_net(record), ips.collect())
        });
        if let Err(error) = self.network.resume(told.collect()).await {
            tracing::warn!(%error, "the pod network is not as it was");
        }
    }

    /// Gives back what a sandbox holds outside its record.
    async fn release_sandbox(&self, record: &mut SandboxRecord) -> Result<()> {
        let pause = self.state().others.get(&record.id).map(|w| w.subscribe());
        if let Some(watch) = pause {
            self.kill(&record.id, watch).await?;
        }
        // The init may have ended by itself: its books and its group stay until now.
        if has_pause(record) {
            self.forget(&record.id).await?;
            self.cgroups
                .group(&format!("{}/{}", self.parent_group(&record.config()), record.id))?
                .remove()?;
        }
        if record.attached {
            self.network.detach(&self.sandbox_net(record)).await.map_err(Error::Network)?;
            record.attached = false;
        }
        pins::release(&self.pin_dir(&record.id))
    }

    fn sandbox_turn(&self, id: &str) -> Option<Arc<tokio::sync::Mutex<()>>> {
        self.state().sandboxes.get(id).map(|s| s.turn.clone())
    }

    fn containers_of(&self, sandbox: &str) -> Vec<String> {
        let state = self.state();
        let mine = state.containers.values().filter(|c| c.record.sandbox_id == sandbox);
        mine.map(|c| c.record.id.clone()).collect()
    }

    pub(super) async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Some(turn) = self.sandbox_turn(id) else { return Ok(()) };
        let _turn = turn.lock().await;
        for container in self.containers_of(id) {
            self.stop_container(&container, 0).await?;
        }
        let Some(mut record) = self.state().sandboxes.get(id).map(|s| s.record.clone()) else {
            return Ok(());
        };
        self.release_sandbox(&mut record).await?;
        let was_ready = std::mem::replace(&mut record.ready, false);
        records::save(&self.sandbox_dir(id), &record)?;
        if let Some(sandbox) = self.state().sandboxes.get_mut(id) {
            sandbox.record = record;
        }
        if was_ready {
            self.emit(id, ContainerEventType::Stopped);
        }
        Ok(())
    }

    pub(super) async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        self.stop_sandbox(id).await?;
        for container in self.containers_of(id) {
            self.remove_container(&container).await?;
        }
        remove_dir(&self.sandbox_dir(id));
        let removed = self.state().sandboxes.remove(id);
        if let Some(sandbox) = removed {
            self.remove_group(&sandbox.record.config());
            self.emit(id, ContainerEventType::Deleted);
        }
        Ok(())
    }
}

fn remove_dir(dir: &std::path::Path) {
    if let Err(e) = crate::tree::remove(dir) {
        tracing::error!("remove {}: {e}", dir.display());
    }
}

/// The configuration of a sandbox whose pod has a cgroup of its own.
fn own_group(config: &PodSandboxConfig) -> Option<&LinuxPodSandboxConfig> {
    config.linux.as_ref().filter(|linux| !linux.cgroup_parent.is_empty())
}

/// Nothing said about pids means containers of their own, as does the CRI's zero value with no options.
fn wants_shared_pid(config: &PodSandboxConfig) -> bool {
    context(config).namespace_options.is_some()
}

fn check(config: &PodSandboxConfig) -> Result<()> {
    users::wanted(&namespaces(config))?;
    details::refuse_labels(
        context(config).apparmor.as_ref(),
        context(config).selinux_options.as_ref(),
    )?;
    for name in config.linux.iter().flat_map(|linux| linux.sysctls.keys()) {
        pins::check_sysctl(name, &namespaces(config))?;
    }
    if config.hostname.len() > HOST_NAME_MAX {
        return Err(Error::Invalid("hostname is longer than 64 bytes".to_owned()));
    }
    Ok(())
}

/// The pod's own; and ports below 1024 and ping for everyone, which harms nobody in a namespace of its own.
fn sysctls(config: &PodSandboxConfig) -> Vec<(String, String)> {
    let asked = config.linux.as_ref().map(|l| l.sysctls.clone()).unwrap_or_default();
    let usual = [
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("net.ipv4.ping_group_range", "0 2147483647"),
    ];
    let mut list: Vec<(String, String)> = Vec::new();
    if !on_node(namespaces(config).network) {
        let ours = usual.iter().filter(|(name, _)| !asked.contains_key(*name));
        list.extend(ours.map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
    }
    list.extend(asked);
    list
}
