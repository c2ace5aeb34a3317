//! Claims of pods through a real kubelet and a driver double: registered, attached, staged, published, grown,
//! and taken down again, also by an agent that was started anew.

use std::sync::Arc;

use client::Tasks;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::csi_driver::{Driver, NAME};
use crate::lifecycle::{Node, POD, one};

const UNIQUE: &str = "kubernetes.io/csi/it.example.com^h1";
const NODE: &str = "/api/v1/nodes/n1";
const CSI_NODE: &str = "/apis/storage.k8s.io/v1/csinodes/n1";
const CLAIM: &str = "/api/v1/namespaces/default/persistentvolumeclaims/data";
const VOLUME: &str = "/api/v1/persistentvolumes/pv1";

fn attachment() -> String {
    let hash = digest(&SHA256, format!("h1{NAME}n1").as_bytes());
    let hex: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("csi-{hex}")
}

fn start() -> (Node, Arc<Driver>) {
    let node = Node::start();
    let driver = Driver::start(node.dir.path(), &node.dir.path().join("kubelet"));
    (node, driver)
}

fn csi_driver(node: &Node, mut spec: Value) {
    // The API's default.
    if spec["volumeLifecycleModes"].is_null() {
        spec["volumeLifecycleModes"] = json!(["Persistent"]);
    }
    let path = format!("/apis/storage.k8s.io/v1/csidrivers/{NAME}");
    let object = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": NAME}, "spec": spec});
    node.api.put(&path, object);
}

fn claim(node: &Node, phase: &str, source: Value) {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "claimRef": {"namespace": "default", "name": "data", "uid": "c1"}});
    for (k, v) in source.as_object().unwrap() {
        spec[k] = v.clone();
    }
    node.api.put(VOLUME, json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv1"}, "spec": spec}));
    node.api.put(
        CLAIM,
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "default", "uid": "c1"},
        "spec": {"volumeName": "pv1"},
        "status": {"phase": phase, "capacity": {"storage": "1Gi"}}}),
    );
}

fn of_driver() -> Value {
    json!({"csi": {"driver": NAME, "volumeHandle": "h1", "fsType": "ext4", "volumeAttributes": {"a": "b"},
        "nodeStageSecretRef": {"namespace": "default", "name": "key"}}})
}

fn secret(node: &Node) {
    node.api.put(
        "/api/v1/namespaces/default/secrets/key",
        json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "key", "namespace": "default"}, "data": {"k": "djE="}}),
    );
}

fn pod() -> Value {
    let mut spec = one(json!({"volumeMounts": [{"name": "v", "mountPath": "/data"}]}));
    spec["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    spec
}

async fn driver_is_known(node: &Node) {
    node.api
        .until(|api| api.get(CSI_NODE).filter(|n| n["spec"]["drivers"][0]["name"] == NAME))
        .await;
}

/// The part of the attach-detach controller and of the external attacher.
async fn attach(node: &Node) {
    let in_use = |n: &Value| n["status"]["volumesInUse"] == json!([UNIQUE]);
    let mut own = node.api.until(|api| api.get(NODE).filter(in_use)).await;
    let path = format!("/apis/storage.k8s.io/v1/volumeattachments/{}", attachment());
    node.api.put(&path, json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": attachment()}, "spec": {"attacher": NAME, "nodeName": "n1", "source": {"persistentVolumeName": "pv1"}},
        "status": {"attached": true, "attachmentMetadata": {"dev": "/dev/x"}}}));
    own["status"]["volumesAttached"] = json!([{"name": UNIQUE, "devicePath": ""}]);
    node.api.put(NODE, own);
}

fn running(status: &Value) -> bool {
    status["containerStatuses"][0]["state"]["running"].is_object()
}

#[tokio::test]
async fn a_claim_is_attached_staged_published_and_taken_down() {
    let (node, driver) = start();
    driver_is_known(&node).await;
    let own = node.api.get(CSI_NODE).unwrap();
    assert_eq!(
        own["spec"]["drivers"][0],
        json!({"name": NAME, "nodeID": "node-of-it",
        "topologyKeys": ["topology.it/node"], "allocatable": {"count": 7}})
    );
    let labelled = node.api.get(NODE).unwrap();
    assert_eq!(labelled["metadata"]["labels"]["topology.it/node"], "n1");
    assert_eq!(
        labelled["metadata"]["annotations"]["csi.volume.kubernetes.io/nodeid"],
        "{\"it.example.com\":\"node-of-it\"}"
    );
    csi_driver(
        &node,
        json!({"attachRequired": true, "podInfoOnMount": true, "fsGroupPolicy": "None"}),
    );
    secret(&node);
    claim(&node, "Bound", of_driver());
    node.create(pod());
    attach(&node).await;
    node.status(running).await;
    let (stage, publish) = {
        let asked = driver.asked.lock().unwrap();
        assert_eq!(asked.calls, ["stage h1", "publish h1"]);
        (asked.stage.clone().unwrap(), asked.publish.clone().unwrap())
    };
    assert_eq!(stage.publish_context["dev"], "/dev/x");
    assert_eq!((stage.secrets[0].key.as_str(), stage.secrets[0].value.as_str()), ("k", "v1"));
    assert_eq!(publish.staging_target_path, stage.staging_target_path);
    assert_eq!(publish.volume_context["csi.storage.k8s.io/pod.name"], "web");
    assert_eq!(publish.volume_context["a"], "b");
    let target = node.dir.path().join("kubelet/pods/u1/volumes/kubernetes.io~csi/pv1/mount");
    assert_eq!(publish.target_path, target.to_string_lossy());
    {
        let table = node.runtime.table.lock().unwrap();
        let (_, config, _) = table.containers.values().next().unwrap();
        let mount = config.mounts.iter().find(|m| m.container_path == "/data").unwrap();
        assert_eq!(mount.host_path, target.to_string_lossy());
    }
    node.delete(0);
    driver.until("unstage h1", 1).await;
    assert_eq!(driver.asked.lock().unwrap().calls[2..], ["unpublish h1", "unstage h1"]);
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
    node.api.until(|api| api.get(NODE).filter(|n| n["status"]["volumesInUse"] == json!([]))).await;
    assert!(!std::path::Path::new(&stage.staging_target_path).parent().unwrap().exists());
}

#[tokio::test]
async fn an_agent_that_starts_anew_takes_down_what_it_finds() {
    let (node, driver) = start();
    csi_driver(&node, json!({"attachRequired": false, "fsGroupPolicy": "None"}));
    secret(&node);
    claim(&node, "Bound", of_driver());
    driver_is_known(&node).await;
    node.create(pod());
    node.status(running).await;
    node.tasks.cancel();
    node.api.remove(POD);
    let again = Tasks::new();
    node.run(&again, node.config());
    driver.until("unpublish h1", 1).await;
    driver.until("unstage h1", 1).await;
    again.cancel();
}

#[tokio::test]
async fn a_volume_that_has_grown_is_resized_and_its_claim_told() {
    let (node, driver) = start();
    csi_driver(&node, json!({"attachRequired": false, "fsGroupPolicy": "None"}));
    secret(&node);
    let mut source = of_driver();
    source["capacity"] = json!({"storage": "2Gi"});
    claim(&node, "Bound", source);
    driver_is_known(&node).await;
    node.create(pod());
    driver.until("expand h1 2147483648", 1).await;
    let grown = |c: &Value| c["status"]["capacity"]["storage"] == "2Gi";
    node.api.until(|api| api.get(CLAIM).filter(grown)).await;
    let event = node.event("FileSystemResizeSuccessful").await;
    assert_eq!(event["message"], "MountVolume.NodeExpandVolume succeeded for volume \"pv1\" n1");
}

#[tokio::test]
async fn a_pod_waits_for_its_claim_to_be_bound() {
    let node = Node::start();
    claim(&node, "Pending", json!({"hostPath": {"path": "/tmp"}}));
    node.create(pod());
    let event = node.event("FailedMount").await;
    assert_eq!(
        event["message"],
        "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: error processing PVC default/data: PVC is not bound"
    );
    claim(&node, "Bound", json!({"hostPath": {"path": "/tmp"}}));
    node.status(running).await;
}

#[tokio::test]
async fn what_cannot_be_mounted_says_why() {
    let cases = [
        (
            json!({"iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t"}}),
            "MountVolume.SetUp failed for volume \"pv1\" : volumes of the kind iscsi are not mounted by this node; the CSI driver that replaces it: iscsi.csi.k8s.io",
        ),
        (
            json!({"local": {"path": "/nowhere"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}]}}}),
            "MountVolume.NodeAffinity check failed for volume \"pv1\" : no matching NodeSelectorTerms",
        ),
        (
            json!({"hostPath": {"path": "/tmp"}, "mountOptions": ["ro"]}),
            "MountVolume.MountOptionSupport check failed for volume \"pv1\" : mount options are not supported for this volume type",
        ),
        (
            of_driver(),
            "MountVolume.MountDevice failed for volume \"pv1\" : kubernetes.io/csi: attacher.MountDevice failed to create newCsiDriverClient: driver name it.example.com not found in the list of registered CSI drivers",
        ),
    ];
    for (source, said) in cases {
        let node = Node::start();
        claim(&node, "Bound", source);
        node.create(pod());
        assert_eq!(node.event("FailedMount").await["message"], said);
    }
}

#[tokio::test]
async fn an_ephemeral_volume_needs_a_driver_that_allows_it() {
    let (node, driver) = start();
    driver_is_known(&node).await;
    let mut spec = pod();
    spec["volumes"] = json!([{"name": "v", "csi": {"driver": NAME}}]);
    node.create(spec);
    assert_eq!(
        node.event("FailedMount").await["message"],
        "MountVolume.SetUp failed for volume \"v\" : kubernetes.io/csi: mounter.SetupAt failed to check volume lifecycle mode: volume mode \"Ephemeral\" not supported by driver it.example.com (no CSIDriver object)"
    );
    csi_driver(
        &node,
        json!({"fsGroupPolicy": "File", "volumeLifecycleModes": ["Ephemeral"],
        "tokenRequests": [{"audience": "aud"}], "podInfoOnMount": true}),
    );
    node.status(running).await;
    let publish = driver.asked.lock().unwrap().publish.clone().unwrap();
    assert!(publish.volume_id.starts_with("csi-") && publish.staging_target_path.is_empty());
    assert_eq!(publish.volume_context["csi.storage.k8s.io/ephemeral"], "true");
    let tokens: Value =
        serde_json::from_str(&publish.volume_context["csi.storage.k8s.io/serviceAccount.tokens"])
            .unwrap();
    assert_eq!(tokens["aud"]["token"], "secret-token");
    node.delete(0);
    driver.until("unpublish csi-", 1).await;
}

#[tokio::test]
async fn a_refused_publish_leaves_nothing_and_is_tried_again() {
    let (node, driver) = start();
    csi_driver(&node, json!({"attachRequired": false, "fsGroupPolicy": "None"}));
    secret(&node);
    claim(&node, "Bound", of_driver());
    driver_is_known(&node).await;
    let refused = grpc::server::Status::new(grpc::Code::Internal, "no such disk");
    driver.asked.lock().unwrap().refuse = Some(refused);
    node.create(pod());
    assert_eq!(
        node.event("FailedMount").await["message"],
        "MountVolume.SetUp failed for volume \"pv1\" : rpc error: code = Internal desc = no such disk"
    );
    node.status(running).await;
    assert_eq!(driver.asked.lock().unwrap().calls, ["stage h1", "publish h1"], "staged once");
}

#[tokio::test]
async fn a_raw_block_volume_becomes_a_device_of_the_container() {
    let (node, driver) = start();
    csi_driver(&node, json!({"attachRequired": false, "fsGroupPolicy": "None"}));
    secret(&node);
    let mut source = of_driver();
    source["volumeMode"] = json!("Block");
    claim(&node, "Bound", source);
    driver_is_known(&node).await;
    let mut spec = one(json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/xvda"}]}));
    spec["volumes"] = pod()["volumes"].clone();
    node.create(spec);
    node.status(running).await;
    let publish = driver.asked.lock().unwrap().publish.clone().unwrap();
    let devices = node.dir.path().join("kubelet/plugins/kubernetes.io/csi/volumeDevices");
    assert_eq!(publish.target_path, devices.join("publish/pv1/u1").to_string_lossy());
    assert!(matches!(
        publish.volume_capability.unwrap().access_type,
        Some(csi::v1::AccessType::Block(_))
    ));
    {
        let table = node.runtime.table.lock().unwrap();
        let (_, config, _) = table.containers.values().next().unwrap();
        let device = &config.devices[0];
        assert_eq!(
            (device.host_path.as_str(), device.permissions.as_str()),
            (publish.target_path.as_str(), "mrw")
        );
        assert_eq!(device.container_path, "/dev/xvda");
    }
    node.delete(0);
    driver.until("unstage h1", 1).await;
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
    assert!(!devices.join("pv1").exists() && !devices.join("publish/pv1").exists());
}

#[tokio::test]
async fn a_local_volume_keeps_its_data_when_the_pod_ends() {
    use std::os::unix::fs::MetadataExt;
    let node = Node::start();
    let disk = node.dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    std::fs::write(disk.join("data"), "x").unwrap();
    claim(
        &node,
        "Bound",
        json!({"local": {"path": disk}, "nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}}}),
    );
    let mut spec = pod();
    spec["securityContext"] = json!({"fsGroup": 4321});
    node.create(spec);
    node.status(running).await;
    let mounted = node.dir.path().join("kubelet/pods/u1/volumes/kubernetes.io~local-volume/pv1");
    assert_eq!(std::fs::read_to_string(mounted.join("data")).unwrap(), "x");
    assert_eq!(std::fs::metadata(mounted.join("data")).unwrap().gid(), 4321);
    node.delete(0);
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
    assert!(!mounted.exists());
    assert_eq!(std::fs::read_to_string(disk.join("data")).unwrap(), "x");
}

#[tokio::test]
async fn a_pod_that_ends_waits_for_its_driver_to_come_back() {
    let (node, driver) = start();
    csi_driver(&node, json!({"attachRequired": false, "fsGroupPolicy": "None"}));
    secret(&node);
    claim(&node, "Bound", of_driver());
    driver_is_known(&node).await;
    node.create(pod());
    node.status(running).await;
    let root = node.dir.path().join("kubelet");
    driver.stop(&root);
    node.api.until(|api| api.get(CSI_NODE).filter(|n| n["spec"]["drivers"] == json!([]))).await;
    let told =
        |n: &Value| n["metadata"]["annotations"]["csi.volume.kubernetes.io/nodeid"].is_null();
    node.api.until(|api| api.get(NODE).filter(told)).await;
    node.delete(0);
    let ended = |s: &Value| s["containerStatuses"][0]["state"]["terminated"].is_object();
    node.status(ended).await;
    let data = root.join("pods/u1/volumes/kubernetes.io~csi/pv1/vol_data.json");
    assert!(data.exists() && node.api.get(POD).is_some(), "nobody else can unmount it");
    let again = Driver::start(node.dir.path(), &root);
    again.until("unstage h1", 1).await;
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
    assert_eq!(again.asked.lock().unwrap().calls, ["unpublish h1", "unstage h1"]);
}
