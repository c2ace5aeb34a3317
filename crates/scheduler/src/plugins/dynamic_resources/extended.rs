//! Extended resources that device classes back: what a node has no device plugin for, it may have devices
//! for. The pod gets one claim for all of them, which the scheduler makes when the pod is bound
//! (`extendeddynamicresources.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerExtendedResourceRequest, Pod};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClaim, DeviceRequest, ExactDeviceRequest, ResourceClaim,
    ResourceClaimSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::resources::is_extended;
use crate::store::Listers;

/// Marks the claim for extended resources.
const ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";

/// The extended resources of a pod, some of which a device class backs.
#[derive(Debug, Clone)]
pub(super) struct Extended {
    /// Stands for the claim until it is made.
    pub(super) uid: String,
    /// A claim of an earlier attempt: it has to go first.
    pub(super) stale: Option<Arc<ResourceClaim>>,
    /// What the pod asks for.
    resources: Vec<(String, i64)>,
}

/// What a pod gets on a node for its extended resources.
#[derive(Debug, Clone)]
pub(super) struct NodeClaim {
    /// Without a name, and without devices.
    pub(super) claim: Arc<ResourceClaim>,
    pub(super) mappings: Vec<ContainerExtendedResourceRequest>,
}

/// The node's claim with its devices.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    pub(super) node_claim: NodeClaim,
    pub(super) allocation: Arc<AllocationResult>,
}

/// The extended resources of the pod; none if no class backs one of them.
pub(super) fn of(pod: &PodInfo, listers: &Listers) -> Option<Extended> {
    let asked =
        pod.requests.scalar.iter().filter(|(name, amount)| **amount > 0 && is_extended(name));
    let resources: Vec<(String, i64)> = asked.map(|(name, n)| (name.clone(), *n)).collect();
    if !resources.iter().any(|(name, _)| listers.class_of_resource(name).is_some()) {
        return None;
    }
    let is_for_pod = |claim: &Arc<ResourceClaim>| {
        let annotations = claim.metadata.annotations.as_ref();
        let marked = annotations.and_then(|all| all.get(ANNOTATION)).is_some_and(|v| v == "true");
        marked && devices::is_for_pod(&pod.pod, claim).is_ok()
    };
    let stale = listers.resource_claims.list().into_iter().find(is_for_pod);
    Some(Extended { uid: uuid::Uuid::new_v4().to_string(), stale, resources })
}

impl Extended {
    /// The claim that the pod needs on the node; none if device plugins have all it asks for there.
    pub(super) fn on_node(
        &self,
        pod: &Pod,
        node: &NodeInfo,
        listers: &Listers,
    ) -> Result<Option<NodeClaim>, &'static str> {
        if self.stale.is_some() {
            return Err("cannot schedule extended resource claim");
        }
        let mut backed: BTreeMap<&str, String> = BTreeMap::new();
        for (name, _) in &self.resources {
            let class = listers.class_of_resource(name);
            match class.filter(|_| node.allocatable.get(name) == 0) {
                Some(class) => {
                    backed.insert(name, class.metadata.name.clone().unwrap_or_default());
                }
                None if !node.allocatable.scalar.contains_key(name) => {
                    return Err("cannot fit resource");
                }
                None => {}
            }
        }
        if backed.is_empty() {
            return Ok(None);
        }
        let (requests, mappings) = requests(pod, &backed);
        Ok(Some(NodeClaim { claim: Arc::new(claim(pod, requests)), mappings }))
    }
}

fn claim(pod: &Pod, requests: Vec<DeviceRequest>) -> ResourceClaim {
    let name = pod.metadata.name.clone().unwrap_or_default();
    ResourceClaim {
        metadata: ObjectMeta {
            namespace: pod.metadata.namespace.clone(),
            generate_name: Some(format!("{name}-extended-resources-")),
            annotations: Some([(ANNOTATION.to_owned(), "true".to_owned())].into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Pod".into(),
                name,
                uid: pod.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: ResourceClaimSpec {
            devices: Some(DeviceClaim { requests: Some(requests), ..DeviceClaim::default() }),
        },
        status: None,
    }
}

type Mappings = Vec<ContainerExtendedResourceRequest>;

/// The requests of all containers, and which container uses which; `backed` says the class of a resource.
/// A container that starts before others and ends first may use what they will use.
pub(super) fn requests(
    pod: &Pod,
    backed: &BTreeMap<&str, String>,
) -> (Vec<DeviceRequest>, Mappings) {
    let spec = pod.spec.as_ref();
    let inits = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let mains = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    let all: Vec<&Container> = inits.iter().chain(mains).collect();
    let is_short =
        |at: usize| at < inits.len() && all[at].restart_policy.as_deref() != Some("Always");
    let (mut requests, mut mappings) = (Vec::new(), Vec::new());
    for (resource, class) in backed {
        let of = |at: usize, reusable: &[Option<DeviceRequest>]| {
            request(at, all[at], resource, class, reusable)
        };
        let mut long: Vec<Option<DeviceRequest>> = vec![None; all.len()];
        for at in (0..all.len()).filter(|at| !is_short(*at)) {
            let (request, uses) = of(at, &[]);
            long[at] = request;
            mappings.extend(uses);
        }
        let (mut largest, mut short): (Option<DeviceRequest>, Vec<DeviceRequest>) =
            (None, Vec::new());
        let mut short_mappings: Mappings = Vec::new();
        for at in (0..all.len()).filter(|at| is_short(*at)) {
            let (request, uses) = of(at, &long[at..]);
            short_mappings.extend(uses);
            let Some(request) = request else { continue };
            if largest.as_ref().is_none_or(|largest| count(largest) < count(&request)) {
                largest = Some(request.clone());
            }
            short.push(request);
        }
        // Containers that run one after the other share the largest of their requests.
        for mapping in &mut short_mappings {
            if let Some(largest) = &largest
                && short.iter().any(|request| request.name == mapping.request_name)
            {
                mapping.request_name.clone_from(&largest.name);
            }
        }
        requests.extend(largest);
        requests.extend(long.into_iter().flatten());
        mappings.extend(short_mappings);
    }
    requests.sort_by(|a, b| a.name.cmp(&b.name));
    (requests, mappings)
}

fn count(request: &DeviceRequest) -> i64 {
    request.exactly.as_ref().and_then(|exactly| exactly.count).unwrap_or(0)
}

/// What a container asks for beyond the reusable requests, and the requests that it uses.
fn request(
    at: usize,
    container: &Container,
    resource: &str,
    class: &str,
    reusable: &[Option<DeviceRequest>],
) -> (Option<DeviceRequest>, Mappings) {
    let asked = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let amount = asked.and_then(|asked| asked.get(resource));
    let amount = amount.and_then(|text| api::quantity::Quantity::parse(&text.0).ok());
    let Some(amount) = amount.map(|amount| amount.value()).filter(|amount| *amount > 0) else {
        return (None, Vec::new());
    };
    let uses = |request: &str| ContainerExtendedResourceRequest {
        container_name: container.name.clone(),
        resource_name: resource.to_owned(),
        request_name: request.to_owned(),
    };
    let (mut sum, mut mappings) = (0, Vec::new());
    for known in reusable.iter().flatten() {
        sum += count(known);
        mappings.push(uses(&known.name));
        if sum >= amount {
            return (None, mappings);
        }
    }
    // Names are made of places, since resources' names are none.
    let place = asked.into_iter().flat_map(|asked| asked.keys()).position(|name| name == resource);
    let name = format!("container-{at}-request-{}", place.unwrap_or(0));
    mappings.push(uses(&name));
    let exactly = ExactDeviceRequest {
        device_class_name: class.to_owned(),
        allocation_mode: Some("ExactCount".into()),
        count: Some(amount - sum),
        ..ExactDeviceRequest::default()
    };
    (Some(DeviceRequest { name, exactly: Some(exactly), first_available: None }), mappings)
}
