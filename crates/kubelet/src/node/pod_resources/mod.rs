//! The pod resources API: which CPUs, memory and devices the containers of the node have, for monitors on the
//! node (KEP-606, KEP-2043). Served on a socket of its own, and only so many times a second.

mod limit;
mod wire;

use std::sync::Arc;

use grpc::Code;
use grpc::server::{Methods, Status};
use k8s_openapi::api::core::v1 as core;
use placement::{Block, CpuSet, NO_NODE};
use prometheus::IntCounterVec;

use crate::kubelet::Shared;
use crate::node::dra::ClaimInfo;
use crate::spec::{is_sidecar, name_of, namespace_of, spec_of, uid_of};
use limit::Limit;
use wire::*;

/// Below the kubelet's root.
const SOCKET: &str = "pod-resources/kubelet.sock";
/// Questions are short.
const MESSAGE_MAX: usize = 64 << 10;

/// The API's counters.
pub(crate) struct PodResources {
    registry: telemetry::Registry,
    total: IntCounterVec,
    list: IntCounterVec,
    allocatable: IntCounterVec,
    get: IntCounterVec,
    get_errors: IntCounterVec,
}

impl Default for PodResources {
    fn default() -> PodResources {
        let registry = telemetry::Registry::default();
        let counters = |name: &str, what: &str| {
            let help = format!("{what} Broken down by server api version.");
            let name = format!("kubelet_pod_resources_endpoint_{name}");
            registry.counters(&name, &help, &["server_api_version"])
        };
        let total = counters(
            "requests_total",
            "Cumulative number of requests to the PodResource endpoint.",
        );
        let list =
            counters("requests_list", "Number of requests to the PodResource List endpoint.");
        let allocatable = counters(
            "requests_get_allocatable",
            "Number of requests to the PodResource GetAllocatableResources endpoint.",
        );
        let get = counters("requests_get", "Number of requests to the PodResource Get endpoint.");
        let get_errors = counters(
            "errors_get",
            "Number of requests to the PodResource Get endpoint which returned error.",
        );
        PodResources { registry, total, list, allocatable, get, get_errors }
    }
}

impl PodResources {
    /// In Prometheus' text form.
    pub(crate) fn metrics(&self) -> String {
        self.registry.families()
    }
}

/// Serves until cancelled; ends only when that is not possible.
pub(crate) async fn run(shared: Arc<Shared>) {
    let socket = shared.config.root_dir.join(SOCKET);
    let listener = match grpc::server::bind(&socket) {
        Ok(listener) => listener,
        Err(error) => {
            let socket = socket.display();
            return tracing::error!(%error, %socket, "the pod resources API is not served");
        }
    };
    let limit = Arc::new(Limit::default());
    let methods = Methods::new(MESSAGE_MAX);
    let api = |shared: &Arc<Shared>| (shared.clone(), limit.clone());
    let (list, allocatable, get, alpha) = (api(&shared), api(&shared), api(&shared), api(&shared));
    let methods = methods
        .unary("/v1.PodResourcesLister/List", move |_: Empty| {
            let (shared, limit) = list.clone();
            async move {
                limit.take()?;
                Ok(answer_list(&shared).await)
            }
        })
        .unary("/v1.PodResourcesLister/GetAllocatableResources", move |_: Empty| {
            let (shared, limit) = allocatable.clone();
            async move {
                limit.take()?;
                Ok(answer_allocatable(&shared).await)
            }
        })
        .unary("/v1.PodResourcesLister/Get", move |request: GetRequest| {
            let (shared, limit) = get.clone();
            async move {
                limit.take()?;
                answer_get(&shared, request).await
            }
        })
        .unary("/v1alpha1.PodResourcesLister/List", move |_: Empty| {
            let (shared, limit) = alpha.clone();
            async move {
                limit.take()?;
                Ok(answer_alpha(&shared))
            }
        });
    grpc::server::listen(listener, Arc::new(methods)).await;
}

async fn answer_list(shared: &Shared) -> ListResponse {
    let counts = &shared.pod_resources;
    counts.total.with_label_values(&["v1"]).inc();
    counts.list.with_label_values(&["v1"]).inc();
    shared.places.retain_devices(&shared.pods);
    let mut all = ListResponse::default();
    for pod in shared.places.active_pods(&shared.pods.list()) {
        all.pod_resources.push(of_pod(shared, &pod).await);
    }
    all
}

async fn answer_get(shared: &Shared, request: GetRequest) -> Result<GetResponse, Status> {
    let counts = &shared.pod_resources;
    counts.total.with_label_values(&["v1"]).inc();
    counts.get.with_label_values(&["v1"]).inc();
    let (namespace, name) = (&request.pod_namespace, &request.pod_name);
    let mut pods = shared.pods.list().into_iter();
    let found = pods.find(|pod| namespace_of(pod) == namespace && name_of(pod) == name);
    let Some(pod) = found else {
        counts.get_errors.with_label_values(&["v1"]).inc();
        let text = format!("pod {name} in namespace {namespace} not found");
        return Err(Status::new(Code::Unknown, text));
    };
    Ok(GetResponse { pod_resources: Some(of_pod(shared, &pod).await) })
}

async fn answer_allocatable(shared: &Shared) -> Allocatable {
    let counts = &shared.pod_resources;
    counts.total.with_label_values(&["v1"]).inc();
    counts.allocatable.with_label_values(&["v1"]).inc();
    let (cpus, blocks) = shared.places.allocatable().await;
    let healthy = shared.places.devices.table().allocatable();
    let mut devices = Vec::new();
    for (resource, all) in healthy {
        for (id, device) in all {
            let nodes = if device.nodes.is_empty() { vec![NO_NODE] } else { device.nodes };
            devices.extend(nodes.into_iter().map(|node| container_device(&resource, &id, node)));
        }
    }
    Allocatable { devices, cpu_ids: ids(&cpus), memory: blocks.iter().map(memory).collect() }
}

/// The first version: containers' devices, of all pods.
fn answer_alpha(shared: &Shared) -> ListResponse {
    shared.pod_resources.total.with_label_values(&["v1alpha1"]).inc();
    shared.places.retain_devices(&shared.pods);
    let container = |pod: &core::Pod, container: &core::Container| {
        let mut devices = devices(shared, uid_of(pod), &container.name);
        devices.iter_mut().for_each(|device| device.topology = None);
        Container { name: container.name.clone(), devices, ..Container::default() }
    };
    let pod = |pod: &core::Pod| Pod {
        name: name_of(pod).to_owned(),
        namespace: namespace_of(pod).to_owned(),
        containers: spec_of(pod).containers.iter().map(|c| container(pod, c)).collect(),
    };
    let pods = shared.pods.list();
    ListResponse { pod_resources: pods.iter().map(|p| pod(p)).collect() }
}

/// Containers that stay: sidecars and regular ones.
async fn of_pod(shared: &Shared, pod: &core::Pod) -> Pod {
    let spec = spec_of(pod);
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let mut containers = Vec::new();
    for container in sidecars.chain(&spec.containers) {
        let uid = uid_of(pod);
        let (cpus, blocks) = shared.places.of(uid, &container.name).await;
        let claims = shared.dra.of_container(pod, container);
        containers.push(Container {
            name: container.name.clone(),
            devices: devices(shared, uid, &container.name),
            cpu_ids: ids(&cpus),
            memory: blocks.iter().map(memory).collect(),
            dynamic_resources: claims.iter().map(dynamic).collect(),
        });
    }
    Pod { name: name_of(pod).to_owned(), namespace: namespace_of(pod).to_owned(), containers }
}

fn ids(cpus: &CpuSet) -> Vec<i64> {
    cpus.iter().filter_map(|id| i64::try_from(id).ok()).collect()
}

fn topology(nodes: impl IntoIterator<Item = i64>) -> Option<Topology> {
    Some(Topology { nodes: nodes.into_iter().map(|id| NumaNode { id }).collect() })
}

fn memory(block: &Block) -> ContainerMemory {
    let nodes = block.numa_affinity.iter().filter_map(|id| i64::try_from(*id).ok());
    ContainerMemory { memory_type: block.kind.clone(), size: block.size, topology: topology(nodes) }
}

fn container_device(resource: &str, id: &str, node: i64) -> ContainerDevices {
    ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: vec![id.to_owned()],
        topology: if node == NO_NODE { None } else { topology([node]) },
    }
}

/// One entry for each device on each of its NUMA nodes.
fn devices(shared: &Shared, uid: &str, container: &str) -> Vec<ContainerDevices> {
    let table = shared.places.devices.table();
    let mut all = Vec::new();
    for (resource, allocation) in table.of(uid, container).into_iter().flatten() {
        for (node, ids) in &allocation.devices {
            all.extend(ids.iter().map(|id| container_device(resource, id, *node)));
        }
    }
    all
}

fn dynamic(claim: &ClaimInfo) -> DynamicResource {
    let resources = claim.devices().map(|(driver, device)| ClaimResource {
        cdi_devices: device.cdi().iter().map(|name| CdiDevice { name: name.clone() }).collect(),
        driver_name: driver.clone(),
        pool_name: device.pool_name.clone(),
        device_name: device.device_name.clone(),
        share_id: device.share_id.clone(),
    });
    DynamicResource {
        claim_name: claim.claim_name.clone(),
        claim_namespace: claim.namespace.clone(),
        claim_resources: resources.collect(),
    }
}
