//! What the node agent must be told: its settings, and the hooks its caller implements.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use client::{Client, Informer};
use k8s_openapi::api::core::v1::{Service, Taint};
use runtime::{ImageService, RuntimeService};
use tokio::net::TcpStream;

use crate::admission::Sysctls;
use crate::images::ProviderFiles;
use crate::node::Capacity;
use crate::node::shutdown::{LogindPlaces, ShutdownPeriod};
use crate::thresholds::{EvictionConfig, Signal};

/// Where static pods are found.
#[derive(Debug, Clone)]
pub struct StaticPods {
    /// A manifest, or a folder of them (`staticPodPath`).
    pub path: Option<PathBuf>,
    /// `staticPodURL`.
    pub url: Option<String>,
    /// Sent to it (`staticPodURLHeader`).
    pub url_headers: Vec<(String, String)>,
    /// How often the path is read without news of changes (`fileCheckFrequency`).
    pub file_check: Duration,
    /// How often the URL is asked (`httpCheckFrequency`).
    pub http_check: Duration,
}

impl Default for StaticPods {
    fn default() -> StaticPods {
        StaticPods {
            path: None,
            url: None,
            url_headers: Vec::new(),
            file_check: Duration::from_secs(20),
            http_check: Duration::from_secs(20),
        }
    }
}

/// A cgroup of the node's own daemons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservedCgroup {
    /// `System` or `Kube`.
    pub of: &'static str,
    pub path: String,
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub pids: Option<u64>,
    /// Only CPU, which the kernel takes back when others need it.
    pub only_compressible: bool,
}

/// Cgroups that the node keeps: of its pods, and of its daemons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCgroups {
    /// Where cgroups are mounted; `None`: the node keeps none.
    pub mount: Option<PathBuf>,
    /// Pods' own groups are made here, because the runtime does not: a foreign one. The embedded one does.
    pub makes_pods: bool,
    /// Pods together have what is allocatable, not all that the node has (`enforceNodeAllocatable`).
    pub enforce_pods: bool,
    /// Processes that are not for pods.
    pub reserved_pids: u64,
    /// Held to what is kept for them.
    pub reserved: Vec<ReservedCgroup>,
}

impl Default for NodeCgroups {
    fn default() -> NodeCgroups {
        NodeCgroups {
            mount: None,
            makes_pods: false,
            enforce_pods: true,
            reserved_pids: 0,
            reserved: Vec::new(),
        }
    }
}

/// Which CPUs and memory containers get.
#[derive(Debug, Clone)]
pub struct PlacementConfig {
    /// What the node keeps back is added from its other settings.
    pub settings: placement::Settings,
    /// How often containers are bound anew to the CPUs that they share (`cpuManagerReconcilePeriod`).
    pub reconcile: Duration,
    /// Where the kernel tells of the machine.
    pub sys: PathBuf,
}

impl Default for PlacementConfig {
    fn default() -> PlacementConfig {
        PlacementConfig {
            settings: placement::Settings::default(),
            reconcile: Duration::from_secs(10),
            sys: "/sys".into(),
        }
    }
}

/// Settings of one node agent.
#[derive(Debug, Clone)]
pub struct KubeletConfig {
    pub node_name: String,
    /// For `/statusz` and `/flagz`.
    pub component: telemetry::zpages::Component,
    /// The `kubernetes.io/hostname` label and the `Hostname` address.
    pub hostname: String,
    /// Pods' directories and volumes; upstream's default is `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// Containers' logs; upstream's default is `/var/log/pods`.
    pub log_dir: PathBuf,
    /// Logs of the node's own services, which `/logs/` shows.
    pub node_log_dir: PathBuf,
    /// Primary first; at most one of each family.
    pub node_ips: Vec<IpAddr>,
    pub cluster_dns: Vec<IpAddr>,
    /// E.g. `cluster.local`.
    pub cluster_domain: String,
    /// The file whose name servers pods with `dnsPolicy: Default` get.
    pub resolv_conf: PathBuf,
    /// The file whose entries host-network pods get in `/etc/hosts`.
    pub hosts_file: PathBuf,
    pub max_pods: u32,
    /// Added to the node's own labels when it registers.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// `spec.providerID`.
    pub provider_id: Option<String>,
    /// Create the Node object; otherwise it must exist.
    pub register_node: bool,
    /// The node API's port, as announced in the Node's status.
    pub port: u16,
    /// Where pods' cgroups go, e.g. `/kubepods`.
    pub cgroup_root: String,
    /// The node's part of a machine that it shares with others; `None`: all of it.
    pub capacity: Option<Capacity>,
    /// Kept back from `allocatable`, of memory beside the threshold of eviction.
    pub reserved_cpu_millis: u64,
    pub reserved_memory_bytes: u64,
    pub reserved_storage_bytes: u64,
    pub cgroups: NodeCgroups,
    /// How often an unchanged node status is reported (the lease says that the node is alive).
    pub status_report_interval: Duration,
    /// How often the node's own state is looked at.
    pub status_update_interval: Duration,
    pub lease_duration: Duration,
    /// How often logs, images and free space are looked at.
    pub upkeep_interval: Duration,
    /// A container's log is put aside when it is longer.
    pub log_max_bytes: u64,
    /// Most files of a container's log, the current one included.
    pub log_max_files: u32,
    /// Images that nobody uses go when the disk is fuller than this, …
    pub image_gc_high_percent: u8,
    /// … until it is no fuller than this.
    pub image_gc_low_percent: u8,
    /// Most processes of a pod; `None`: no limit of its own.
    pub pod_pids_max: Option<u64>,
    /// Containers without a seccomp profile have the runtime's.
    pub seccomp_default: bool,
    /// Where `Localhost` seccomp profiles lie: the runtime is told absolute paths. `None`: it knows the folder
    /// itself, as the embedded one does.
    pub seccomp_root: Option<PathBuf>,
    /// Records what is done for pods and requests (KubeletConfiguration's `tracing`), if anything does.
    pub tracer: Option<Arc<traces::Tracer>>,
    /// Burstable containers may use their part of the machine's swap (`LimitedSwap`); else none may.
    /// On cgroup v1 none may in any case.
    pub limited_swap: bool,
    /// Most images that the Node's status names; `None` for all.
    pub status_images: Option<usize>,
    /// Longest wait before a container that crashes is started again.
    pub restart_max: Duration,
    /// A younger image stays, though nobody uses it.
    pub image_min_age: Duration,
    /// One that nobody has used for longer goes, whatever room there is.
    pub image_max_age: Option<Duration>,
    /// When pods end for the node's sake.
    pub eviction: EvictionConfig,
    pub static_pods: StaticPods,
    /// How long pods have when the machine shuts down; none: they are not waited for.
    pub shutdown: Vec<ShutdownPeriod>,
    pub logind: LogindPlaces,
    pub placement: PlacementConfig,
    /// Plugins that know logins of registries.
    pub credential_providers: Option<ProviderFiles>,
    pub(crate) sysctls: Sysctls,
}

impl KubeletConfig {
    /// Upstream's defaults for a node of this name.
    pub fn new(node_name: impl Into<String>) -> KubeletConfig {
        let node_name = node_name.into();
        KubeletConfig {
            hostname: node_name.clone(),
            node_name,
            component: telemetry::zpages::Component {
                name: "kubelet".to_owned(),
                ..Default::default()
            },
            root_dir: "/var/lib/kubelet".into(),
            log_dir: "/var/log/pods".into(),
            node_log_dir: "/var/log".into(),
            node_ips: Vec::new(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            hosts_file: "/etc/hosts".into(),
            max_pods: 110,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            provider_id: None,
            register_node: true,
            port: 10250,
            cgroup_root: "/kubepods".into(),
            capacity: None,
            reserved_cpu_millis: 0,
            reserved_memory_bytes: 0,
            reserved_storage_bytes: 0,
            cgroups: NodeCgroups::default(),
            status_report_interval: Duration::from_secs(300),
            status_update_interval: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            upkeep_interval: Duration::from_secs(10),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            image_gc_high_percent: 85,
            image_gc_low_percent: 80,
            pod_pids_max: None,
            seccomp_default: false,
            seccomp_root: None,
            tracer: None,
            limited_swap: false,
            status_images: Some(50),
            restart_max: Duration::from_secs(300),
            image_min_age: Duration::from_secs(120),
            image_max_age: None,
            eviction: EvictionConfig::default(),
            static_pods: StaticPods::default(),
            shutdown: Vec::new(),
            logind: LogindPlaces::default(),
            placement: PlacementConfig::default(),
            credential_providers: None,
            sysctls: Sysctls::safe(),
        }
    }

    /// Bytes of a huge page, and how many of them the node has. Nodes that share a machine have none: nobody
    /// says whose they are.
    pub(crate) fn huge_pages(&self) -> Vec<(u64, u64)> {
        let found = placement::huge_pages(&self.placement.sys.join("kernel/mm/hugepages"));
        let own = |(size, count)| (size, if self.capacity.is_some() { 0 } else { count });
        found.into_iter().map(own).collect()
    }

    /// What of the node's memory is not for pods' ordinary pages.
    pub(crate) fn unallocatable_memory_bytes(&self, of: u64) -> u64 {
        let pages = self.huge_pages().into_iter().map(|(size, count)| size.saturating_mul(count));
        pages.fold(self.kept_memory_bytes(of), u64::saturating_add)
    }

    /// What of the node's memory is not for pods: what is reserved, and what eviction keeps free.
    pub(crate) fn kept_memory_bytes(&self, of: u64) -> u64 {
        let threshold = self.eviction.hard.get(Signal::Memory).map_or(0, |kept| kept.of(of));
        self.reserved_memory_bytes.saturating_add(threshold)
    }

    /// Lets pods set these kernel parameters beside the safe ones (`allowedUnsafeSysctls`): names, or
    /// beginnings that end with `*`.
    pub fn allow_sysctls(&mut self, patterns: &[String]) -> Result<(), String> {
        self.sysctls.allow(patterns)
    }
}

/// What the agent works with.
#[derive(Clone)]
pub struct Deps {
    pub client: Client,
    pub runtime: Arc<dyn RuntimeService>,
    pub images: Arc<dyn ImageService>,
    /// Opens probes' connections inside the node's network namespace.
    pub dialer: Arc<dyn Dialer>,
    pub authorizer: Arc<dyn Authorizer>,
    /// The cluster's services, when the process has such a view already.
    pub services: Option<Informer<Service>>,
}

/// Opens connections to pods and to the node itself.
#[async_trait]
pub trait Dialer: Send + Sync {
    async fn tcp(&self, address: SocketAddr) -> io::Result<TcpStream>;
}

/// Connects from the process's own network namespace.
#[derive(Debug, Default)]
pub struct PlainDialer;

#[async_trait]
impl Dialer for PlainDialer {
    async fn tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}

/// Who calls the node API: the client certificate's common name and organisations, or whom the API
/// server knows by a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct NodeUser {
    pub name: String,
    pub groups: Vec<String>,
    pub uid: String,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Decides who may use the node API.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Whose token this is; without a way to find out it is nobody's.
    async fn authenticate(&self, _token: &str) -> Option<NodeUser> {
        None
    }

    /// `verb` is the API's (`get`, `create`, …), `subresource` that of `nodes`, most specific first:
    /// one that is allowed is enough.
    async fn allow(&self, user: &NodeUser, verb: &str, subresources: &[&str]) -> bool;
}

/// Allows the group `system:masters` and the API server's own identity, nobody else.
#[derive(Debug, Default)]
pub struct SystemMasters;

#[async_trait]
impl Authorizer for SystemMasters {
    async fn allow(&self, user: &NodeUser, _: &str, _: &[&str]) -> bool {
        user.name == "kube-apiserver-kubelet-client"
            || user.groups.iter().any(|g| g == "system:masters")
    }
}
