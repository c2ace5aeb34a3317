//! The pod resources API: what containers have of CPUs, memory, devices and claims.

use std::time::Duration;

use grpc::{CallError, Channel, Settings};
use serde_json::json;

use crate::device_plugin::{Nothing, Plugin, Ways, device};
use crate::dra;
use crate::dra_driver::{Driver, NAME};
use crate::lifecycle::{Node, one};
use crate::placing;

const GPU: &str = "example.com/gpu";

#[derive(Clone, PartialEq, prost::Message)]
struct Numa {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Topology {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Numa>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Devices {
    #[prost(string, tag = "1")]
    resource: String,
    #[prost(string, repeated, tag = "2")]
    ids: Vec<String>,
    #[prost(message, optional, tag = "3")]
    topology: Option<Topology>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Memory {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(message, optional, tag = "3")]
    topology: Option<Topology>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Cdi {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ClaimResource {
    #[prost(message, repeated, tag = "1")]
    cdi: Vec<Cdi>,
    #[prost(string, tag = "2")]
    driver: String,
    #[prost(string, tag = "3")]
    pool: String,
    #[prost(string, tag = "4")]
    device: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Dynamic {
    #[prost(string, tag = "2")]
    claim: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(message, repeated, tag = "4")]
    resources: Vec<ClaimResource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Container {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    devices: Vec<Devices>,
    #[prost(int64, repeated, tag = "3")]
    cpus: Vec<i64>,
    #[prost(message, repeated, tag = "4")]
    memory: Vec<Memory>,
    #[prost(message, repeated, tag = "5")]
    dynamic: Vec<Dynamic>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pod {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(message, repeated, tag = "3")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct List {
    #[prost(message, repeated, tag = "1")]
    pods: Vec<Pod>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Name {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Found {
    #[prost(message, optional, tag = "1")]
    pod: Option<Pod>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Allocatable {
    #[prost(message, repeated, tag = "1")]
    devices: Vec<Devices>,
    #[prost(int64, repeated, tag = "2")]
    cpus: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    memory: Vec<Memory>,
}

fn channel(node: &Node) -> Channel<csi::Socket> {
    let settings = Settings {
        peer: "the kubelet",
        origin: "http://localhost".into(),
        headers: &[],
        deadline: Duration::from_secs(20),
        message_max: 1 << 20,
        decorate: None,
    };
    Channel::new(csi::Socket(node.dir.path().join("kubelet/pod-resources/kubelet.sock")), settings)
}

#[tokio::test]
async fn monitors_see_what_containers_have() {
    let sys = tempfile::tempdir().unwrap();
    placing::machine(sys.path(), false);
    let node = Node::with(|config| {
        placing::settings(config, sys.path());
        config.placement.settings.topology_policy = ::placement::PolicyName::BestEffort;
    });
    let root = node.dir.path().join("kubelet");
    let all = vec![device("a", true, Some(1)), device("b", true, None), device("c", false, None)];
    let plugin = Plugin::serve(&root, "gpu.sock", all, Ways::default()).await;
    plugin.register("v1beta1", GPU).await.unwrap();
    let ready = |n: &serde_json::Value| n["status"]["allocatable"][GPU] == "2";
    node.api.until(|api| api.get("/api/v1/nodes/n1").filter(ready)).await;
    let driver = Driver::start(&root, "v1");
    dra::claim(&node.api, "c", &["u1"]);
    let list = json!({"cpu": "1", "memory": "16Mi", GPU: "1"});
    let mut spec =
        one(json!({"resources": {"requests": list, "limits": list, "claims": [{"name": "gpu"}]}}));
    spec["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": "c"}]);
    node.create(spec);
    node.status(|s| s["phase"] == "Running").await;

    let api = channel(&node);
    let listed: List = api.call("/v1.PodResourcesLister/List", &Nothing {}).await.unwrap();
    let pod = &listed.pods[0];
    assert_eq!((listed.pods.len(), &*pod.name, &*pod.namespace), (1, "web", "default"));
    let own = &pod.containers[0];
    assert_eq!(own.cpus, [2], "beside its device");
    let near = Some(Topology { nodes: vec![Numa { id: 1 }] });
    let has = |id: &str, topology| Devices { resource: GPU.into(), ids: vec![id.into()], topology };
    assert_eq!(own.devices, [has("a", near.clone())]);
    let claim = &own.dynamic[0];
    assert_eq!((&*claim.claim, &*claim.namespace, claim.resources.len()), ("c", "default", 2));
    let resource = &claim.resources[0];
    assert_eq!((&*resource.driver, &*resource.pool, &*resource.device), (NAME, "p", "d0"));
    assert_eq!(resource.cdi[0].name, format!("{NAME}/gpu=c-0"));

    let name = Name { name: "web".into(), namespace: "default".into() };
    let found: Found = api.call("/v1.PodResourcesLister/Get", &name).await.unwrap();
    assert_eq!(found.pod.as_ref(), Some(pod));
    let nobody = Name { name: "none".into(), ..name };
    let refused = api.call::<_, Found>("/v1.PodResourcesLister/Get", &nobody).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused { code: 2, .. }), "{refused:?}");
    assert_eq!(refused.to_string(), "pod none in namespace default not found");
    let method = "/v1.PodResourcesLister/GetAllocatableResources";
    let allocatable: Allocatable = api.call(method, &Nothing {}).await.unwrap();
    assert_eq!(allocatable.devices, [has("a", near), has("b", None)]);
    assert_eq!(allocatable.cpus, [1, 2, 3], "one is the node's own");
    let method = "/v1alpha1.PodResourcesLister/List";
    let old: List = api.call(method, &Nothing {}).await.unwrap();
    assert_eq!(old.pods[0].containers[0].devices, [has("a", None)]);

    driver.stop().await;
    node.tasks.shutdown().await;
}
