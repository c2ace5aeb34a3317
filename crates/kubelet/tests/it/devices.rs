//! Device plugins: they register, list devices, are asked for them, go and come back; pods get devices or are
//! refused.

use client::Tasks;
use serde_json::{Value, json};

use crate::device_plugin::*;
use crate::lifecycle::{Node, POD, one};
use crate::placing;
use crate::real;

const GPU: &str = "example.com/gpu";
const NODE: &str = "/api/v1/nodes/n1";

fn root(node: &Node) -> std::path::PathBuf {
    node.dir.path().join("kubelet")
}

fn two() -> Vec<Device> {
    vec![device("g0", true, None), device("g1", true, None)]
}

/// A plugin of two devices, registered and seen in the node's status.
async fn with_two(node: &Node, ways: Ways) -> Plugin {
    let plugin = Plugin::serve(&root(node), "gpu.sock", two(), ways).await;
    plugin.register("v1beta1", GPU).await.unwrap();
    amounts(node, "2", "2").await;
    plugin
}

/// Waits for capacity and allocatable.
async fn amounts(node: &Node, capacity: &str, allocatable: &str) {
    let is = |s: &Value| {
        s["status"]["capacity"][GPU] == capacity && s["status"]["allocatable"][GPU] == allocatable
    };
    node.api.until(|api| api.get(NODE).filter(is)).await;
}

fn asks(count: &str) -> Value {
    one(json!({"resources": {"limits": {GPU: count}, "requests": {GPU: count}}}))
}

async fn failed(node: &Node, name: &str) -> (Value, Value) {
    let path = format!("/api/v1/namespaces/default/pods/{name}");
    let is = |p: &Value| p["status"]["phase"] == "Failed";
    let pod = node.api.until(|api| api.get(&path).filter(is)).await;
    (pod["status"]["reason"].clone(), pod["status"]["message"].clone())
}

/// The newest container's configuration.
fn config(node: &Node) -> runtime::cri::ContainerConfig {
    let table = node.runtime.table.lock().unwrap();
    table.containers.values().next_back().unwrap().1.clone()
}

fn running(status: &Value) -> bool {
    status["phase"] == "Running"
}

#[tokio::test]
async fn registrations_that_do_not_fit_are_refused() {
    let node = Node::start();
    let plugin = Plugin::serve(&root(&node), "gpu.sock", two(), Ways::default()).await;
    let say =
        async |version, resource| plugin.register(version, resource).await.unwrap_err().to_string();
    assert_eq!(
        say("v1alpha1", GPU).await,
        r#"requested API version "v1alpha1" is not supported by kubelet. Supported version is ["v1beta1"]"#
    );
    for name in ["gpu", "kubernetes.io/gpu", "requests.example.com/gpu", "example.com/a b"] {
        let said = say("v1beta1", name).await;
        assert_eq!(said, format!("the ResourceName {name:?} is invalid"));
    }
    let nobody = Plugin::serve(&root(&node), "none.sock", two(), Ways::default()).await;
    std::fs::remove_file(root(&node).join("device-plugins/none.sock")).unwrap();
    let said = nobody.register("v1beta1", GPU).await.unwrap_err().to_string();
    assert!(said.starts_with("failed to dial device plugin: "), "{said}");
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_container_gets_what_the_plugin_answers() {
    let node = Node::start();
    let text = |t: &str| t.to_owned();
    let answer = Answer {
        mounts: vec![Mount { container: text("/lib/gpu"), host: text("/opt"), read_only: true }],
        devices: vec![Spec {
            container: text("/dev/gpu"),
            host: text("/dev/null"),
            permissions: text("rw"),
        }],
        annotations: [(text("gpu"), text("yes"))].into(),
        cdi: vec![Name { name: text("example.com/gpu=g1") }],
        ..Answer::default()
    };
    let ways = Ways { prefers: Some(vec![text("g1")]), pre_start: true, answer, refuses: false };
    let plugin = with_two(&node, ways).await;
    node.create(asks("1"));
    let status = node.status(running).await;
    assert_eq!(plugin.calls(), ["preferred g0 g1", "allocate g1", "start g1"]);
    let config = config(&node);
    assert!(config.envs.iter().any(|e| e.key == "DEVICES" && e.value == b"g1"), "{config:?}");
    let mount = &config.mounts[0];
    assert_eq!(
        (&*mount.container_path, &*mount.host_path, mount.readonly),
        ("/lib/gpu", "/opt", true)
    );
    assert_eq!(config.devices[0].container_path, "/dev/gpu");
    assert_eq!(config.annotations["gpu"], "yes");
    assert_eq!(config.cdi_devices[0].name, "example.com/gpu=g1");
    let health = json!([{"name": GPU, "resources": [{"resourceID": "g1", "health": "Healthy"}]}]);
    assert_eq!(status["containerStatuses"][0]["allocatedResourcesStatus"], health);
    // Its health is followed, and the node's count of devices.
    plugin.list(vec![device("g0", true, None), device("g1", false, None)]);
    amounts(&node, "2", "1").await;
    node.status(|s| {
        s["containerStatuses"][0]["allocatedResourcesStatus"][0]["resources"][0]["health"]
            == "Unhealthy"
    })
    .await;
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn pods_without_devices_for_them_are_refused() {
    let node = Node::start();
    let plugin = with_two(&node, Ways::default()).await;
    node.create(asks("2"));
    node.status(running).await;
    node.put("more", asks("1"));
    let text =
        "requested number of devices unavailable for example.com/gpu. Requested: 1, Available: 0";
    let said = |why: &str| {
        let message =
            format!("Pod was rejected: Allocate failed due to {why}, which is unexpected");
        (json!("UnexpectedAdmissionError"), json!(message))
    };
    assert_eq!(failed(&node, "more").await, said(text));
    // The devices of a pod that has ended are free.
    node.delete(0);
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
    node.put("again", asks("2"));
    let path = "/api/v1/namespaces/default/pods/again";
    node.api.until(|api| api.get(path).filter(|p| running(&p["status"]))).await;
    plugin.stop().await;
    amounts(&node, "2", "0").await;
    node.put("late", asks("1"));
    let text = "no healthy devices present; cannot allocate unhealthy devices example.com/gpu";
    assert_eq!(failed(&node, "late").await, said(text));
    let refuses = Ways { refuses: true, ..Ways::default() };
    let other = Plugin::serve(&root(&node), "other.sock", two(), refuses).await;
    other.register("v1beta1", "example.com/other").await.unwrap();
    let is = |n: &Value| n["status"]["allocatable"]["example.com/other"] == "2";
    node.api.until(|api| api.get(NODE).filter(is)).await;
    let asked = json!({"example.com/other": "1"});
    node.put("refused", one(json!({"resources": {"limits": asked, "requests": asked}})));
    let text = "rpc error: code = Internal desc = no power";
    assert_eq!(failed(&node, "refused").await, said(text));
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn pods_keep_their_devices_over_a_restart_and_plugins_register_anew() {
    let node = Node::start();
    let mut plugin = with_two(&node, Ways::default()).await;
    let mut spec = asks("1");
    spec["restartPolicy"] = json!("Always");
    node.create(spec);
    node.status(running).await;
    let given = plugin.calls();
    node.tasks.shutdown().await;

    let tasks = Tasks::new();
    node.run(&tasks, node.config());
    amounts(&node, "0", "0").await;
    // The agent takes the plugin's socket away: it must come by itself.
    let gone = async {
        while root(&node).join("device-plugins/gpu.sock").exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.unwrap();
    node.runtime.exit("c", 1);
    node.status(|s| s["containerStatuses"][0]["restartCount"] == 1 && running(s)).await;
    let has = config(&node);
    assert!(has.envs.iter().any(|e| e.key == "DEVICES"), "{has:?}");
    assert_eq!(plugin.calls(), given, "nothing was allocated again");
    plugin.stop().await;
    plugin = with_two(&node, Ways::default()).await;
    node.put("more", asks("2"));
    let said = failed(&node, "more").await.1;
    assert!(said.as_str().unwrap().contains("Requested: 2, Available: 1"), "{said}");
    plugin.stop().await;
    tasks.shutdown().await;
}

#[tokio::test]
async fn devices_and_cpus_come_from_one_numa_node() {
    let sys = tempfile::tempdir().unwrap();
    placing::machine(sys.path(), false);
    let node = Node::with(|config| {
        placing::settings(config, sys.path());
        config.placement.settings.topology_policy = ::placement::PolicyName::SingleNumaNode;
    });
    let all =
        vec![device("a", true, Some(1)), device("b", true, Some(0)), device("c", true, Some(1))];
    let plugin = Plugin::serve(&root(&node), "gpu.sock", all, Ways::default()).await;
    plugin.register("v1beta1", GPU).await.unwrap();
    amounts(&node, "3", "3").await;
    let asks = |count: &str| {
        let list = json!({"cpu": "1", "memory": "16Mi", GPU: count});
        one(json!({"resources": {"requests": list, "limits": list}}))
    };
    node.create(asks("2"));
    node.status(running).await;
    assert_eq!(plugin.calls(), ["allocate a c"]);
    let cpus = config(&node).linux.unwrap().resources.unwrap().cpuset_cpus;
    assert!(["2", "3"].contains(&cpus.as_str()), "{cpus} is not on node 1");
    node.put("far", asks("2"));
    let text = "Pod was rejected: Resources cannot be allocated with Topology locality";
    assert_eq!(failed(&node, "far").await, (json!("TopologyAffinityError"), json!(text)));
    node.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_container_sees_its_device() {
    let node = real::Node::start().await;
    let root = node.dir.path().join("kubelet");
    let host = node.dir.path().join("driver");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("version"), "42").unwrap();
    let text = |t: &str| t.to_owned();
    let answer = Answer {
        mounts: vec![Mount {
            container: text("/opt/driver"),
            host: host.to_string_lossy().into_owned(),
            read_only: true,
        }],
        devices: vec![Spec {
            container: text("/dev/xpu0"),
            host: text("/dev/zero"),
            permissions: text("rw"),
        }],
        ..Answer::default()
    };
    let plugin = Plugin::serve(&root, "xpu.sock", two(), Ways { answer, ..Ways::default() }).await;
    plugin.register("v1beta1", GPU).await.unwrap();
    let is = |n: &Value| n["status"]["allocatable"][GPU] == "2";
    node.api.until(|api| api.get(NODE).filter(is)).await;
    let script = "echo $DEVICES; cat /opt/driver/version; echo; ls -l /dev/xpu0; rm /opt/driver/version || echo kept; cat /dev/xpu0 | true; echo read $?; while true; do sleep 1000; done";
    let limits = json!({GPU: "1"});
    node.pod("web", json!({"command": ["sh", "-c", script], "resources": {"limits": limits, "requests": limits}}));
    node.status("web", |s| s["phase"] == "Running").await;
    let seen = async {
        loop {
            let log = node.log("web", "c");
            if log.contains("read") {
                return log;
            }
            tokio::task::yield_now().await;
        }
    };
    let log = tokio::time::timeout(std::time::Duration::from_secs(20), seen).await.unwrap();
    for part in ["stdout F g0", "stdout F 42", "1,   5", "stdout F kept", "stdout F read 0"] {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
    node.delete("web").await;
    node.tasks.shutdown().await;
}
