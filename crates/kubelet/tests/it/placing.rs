//! CPUs and memory of their own: on a machine of four CPUs on two NUMA nodes that exists only as files, and
//! on the one that the tests run on.

use std::path::Path;
use std::time::Duration;

use kubelet::KubeletConfig;
use placement::PolicyName;
use serde_json::{Value, json};

use crate::lifecycle::{Node, POD, one};
use crate::real;

const KEPT: u64 = 100 << 20;

fn file(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// CPUs 0 and 1 on the first node, 2 and 3 on the second; with `smt` each two are one core.
pub(crate) fn machine(root: &Path, smt: bool) {
    file(root, "devices/system/cpu/online", "0-3\n");
    for cpu in 0..4 {
        let siblings = match smt {
            true => format!("{}-{}", cpu / 2 * 2, cpu / 2 * 2 + 1),
            false => cpu.to_string(),
        };
        let dir = format!("devices/system/cpu/cpu{cpu}/topology");
        file(root, &format!("{dir}/core_cpus_list"), &siblings);
        file(root, &format!("{dir}/physical_package_id"), "0\n");
    }
    for (node, cpus) in [(0, "0-1"), (1, "2-3")] {
        let dir = format!("devices/system/node/node{node}");
        file(root, &format!("{dir}/cpulist"), cpus);
        file(root, &format!("{dir}/distance"), "10 20");
        file(root, &format!("{dir}/meminfo"), &format!("Node {node} MemTotal: 4194304 kB\n"));
    }
}

fn allocatable(node: &Node) -> Option<Value> {
    let found = node.api.get("/api/v1/nodes/n1")?;
    Some(found["status"].clone()).filter(|s| s["allocatable"]["hugepages-2Mi"].is_string())
}

#[tokio::test]
async fn huge_pages_are_the_nodes_and_are_given_once() {
    let sys = tempfile::tempdir().unwrap();
    for (pages, count) in [("hugepages-2048kB", "4"), ("hugepages-1048576kB", "0")] {
        file(sys.path(), &format!("kernel/mm/hugepages/{pages}/nr_hugepages"), count);
    }
    let node = Node::with(|config| config.placement.sys = sys.path().to_owned());
    let status = node.api.until(|_| allocatable(&node)).await;
    for list in ["capacity", "allocatable"] {
        assert_eq!(
            (&status[list]["hugepages-2Mi"], &status[list]["hugepages-1Gi"]),
            (&json!("8Mi"), &json!("0"))
        );
    }
    let bytes = |list: &str| -> u64 {
        let text = status[list]["memory"].as_str().unwrap();
        text.trim_end_matches("Ki").parse::<u64>().unwrap() << 10
    };
    assert_eq!(bytes("capacity") - bytes("allocatable"), KEPT + (8 << 20));
    let asking = |pages: &str| {
        let list = json!({"cpu": "100m", "memory": "16Mi", "hugepages-2Mi": pages});
        json!({"resources": {"requests": list, "limits": list}})
    };
    node.create(one(asking("6Mi")));
    node.status(|s| s["phase"] == "Running").await;
    {
        let table = node.runtime.table.lock().unwrap();
        let (_, config, _) = table.containers.values().next().unwrap();
        let values = config.linux.clone().unwrap().resources.unwrap().hugepage_limits;
        let values: Vec<_> = values.iter().map(|p| (p.page_size.as_str(), p.limit)).collect();
        assert_eq!(values, [("2MB", 6 << 20), ("1GB", 0)]);
    }
    node.put("more", one(asking("4Mi")));
    let path = "/api/v1/namespaces/default/pods/more";
    let failed =
        node.api.until(|api| api.get(path).filter(|p| p["status"]["phase"] == "Failed")).await;
    assert_eq!(failed["status"]["reason"], "OutOfhugepages-2Mi");
    assert_eq!(
        failed["status"]["message"],
        "Pod was rejected: Node didn't have enough resource: hugepages-2Mi, requested: 4194304, used: 6291456, capacity: 8388608"
    );
    node.tasks.shutdown().await;
}

pub(crate) fn settings(config: &mut KubeletConfig, sys: &Path) {
    config.placement.sys = sys.to_owned();
    config.placement.settings.cpu_policy = "static".into();
    config.placement.reconcile = Duration::from_millis(10);
    config.reserved_cpu_millis = 100;
}

fn guaranteed(cpu: &str, memory: &str) -> Value {
    let list = json!({"cpu": cpu, "memory": memory});
    json!({"resources": {"requests": list, "limits": list}})
}

fn named(name: &str, container: Value) -> Value {
    let mut spec = one(container);
    spec["containers"][0]["name"] = json!(name);
    spec
}

/// CPUs, memory nodes and quota of the newest container of this name.
fn bound(node: &Node, name: &str) -> Option<(String, String, i64)> {
    let table = node.runtime.table.lock().unwrap();
    let is = |c: &runtime::cri::ContainerConfig| c.metadata.as_ref().unwrap().name == name;
    let mut all = table.containers.values().filter(|(_, config, _)| is(config));
    let values = all.next_back()?.1.linux.clone()?.resources?;
    Some((values.cpuset_cpus, values.cpuset_mems, values.cpu_quota))
}

async fn told(node: &Node, update: &str) {
    let found = async {
        while !node.runtime.updates.lock().unwrap().iter().any(|u| u == update) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found).await.unwrap();
}

async fn running(node: &Node, name: &str) {
    let path = format!("/api/v1/namespaces/default/pods/{name}");
    node.api.until(|api| api.get(&path).filter(|p| p["status"]["phase"] == "Running")).await;
}

#[tokio::test]
async fn a_guaranteed_container_has_cpus_of_its_own_and_others_share_the_rest() {
    let sys = tempfile::tempdir().unwrap();
    machine(sys.path(), false);
    let node = Node::with(|config| settings(config, sys.path()));
    node.put("other", named("shared", json!({})));
    running(&node, "other").await;
    assert_eq!(bound(&node, "shared").unwrap(), ("0-3".into(), String::new(), 0));
    node.create(one(guaranteed("1", "64Mi")));
    node.status(|s| s["phase"] == "Running").await;
    assert_eq!(bound(&node, "c").unwrap(), ("1".into(), String::new(), -1));
    let quota = |uid: &str| {
        let table = node.runtime.table.lock().unwrap();
        let of = |c: &runtime::cri::PodSandboxConfig| c.metadata.as_ref().unwrap().uid == uid;
        let (config, _) = table.sandboxes.values().find(|(c, _)| of(c)).unwrap();
        config.linux.clone().unwrap().resources.unwrap().cpu_quota
    };
    assert_eq!((quota("u1"), quota("other")), (-1, 0));
    told(&node, "shared cpus=0,2-3").await;
    // Another agent finds what the first one gave away.
    node.tasks.shutdown().await;
    let again = client::Tasks::new();
    let mut config = node.config();
    settings(&mut config, sys.path());
    node.run(&again, config);
    node.runtime.exit("c", 1);
    node.status(|s| s["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(bound(&node, "c").unwrap().0, "1");
    node.runtime.updates.lock().unwrap().clear();
    node.delete(0);
    node.api.until(|api| api.get(POD).is_none().then_some(())).await;
    told(&node, "shared cpus=0-3").await;
    again.shutdown().await;
    // It is the state of another policy then.
    let mut config = node.config();
    config.placement.sys = sys.path().to_owned();
    let refused = node.agent(&client::Tasks::new(), config).unwrap_err();
    assert!(
        refused
            .contains("configured policy \"none\" differs from state checkpoint policy \"static\""),
        "{refused}"
    );
    assert!(refused.contains("please drain this node and delete the CPU manager checkpoint file"));
}

async fn refused(
    spec: Value,
    smt: bool,
    change: fn(&mut KubeletConfig),
    reason: &str,
    message: &str,
) {
    let sys = tempfile::tempdir().unwrap();
    machine(sys.path(), smt);
    let node = Node::with(|config| {
        settings(config, sys.path());
        change(config);
    });
    node.create(spec);
    let status = node.status(|s| s["phase"] == "Failed").await;
    let said = format!("Pod was rejected: {message}");
    assert_eq!((&status["reason"], &status["message"]), (&json!(reason), &json!(said)));
    assert!(node.runtime.table.lock().unwrap().sandboxes.is_empty(), "it never starts");
    // Nothing of what it was given on the way is lost.
    node.put("other", named("fits", guaranteed("1", "64Mi")));
    match smt {
        true => {}
        false => {
            running(&node, "other").await;
            assert_eq!(bound(&node, "fits").unwrap().0, "1");
        }
    }
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn cpus_that_are_not_on_one_node_are_refused() {
    let message = "Resources cannot be allocated with Topology locality";
    let change = |config: &mut KubeletConfig| {
        config.placement.settings.topology_policy = PolicyName::SingleNumaNode;
    };
    let spec = one(guaranteed("3", "64Mi"));
    refused(spec, false, change, "TopologyAffinityError", message).await;
}

#[tokio::test]
async fn half_a_core_is_refused_where_cores_are_whole() {
    let message = "SMT Alignment Error: requested 1 cpus not multiple cpus per core = 2";
    let change = |config: &mut KubeletConfig| {
        let options = &mut config.placement.settings.cpu_options;
        options.insert("full-pcpus-only".into(), "true".into());
    };
    refused(one(guaranteed("1", "64Mi")), true, change, "SMTAlignmentError", message).await;
}

#[tokio::test]
async fn more_cpus_than_there_are_is_refused_and_the_first_containers_go_back() {
    let mut spec = one(guaranteed("1", "64Mi"));
    let mut more = spec["containers"][0].clone();
    more["name"] = json!("d");
    more["resources"] = guaranteed("9", "64Mi")["resources"].clone();
    spec["containers"].as_array_mut().unwrap().push(more);
    let message = "Allocate failed due to not enough cpus available to satisfy request: requested=9, available=2, which is unexpected";
    refused(spec, false, |_| {}, "UnexpectedAdmissionError", message).await;
}

#[tokio::test]
async fn memory_of_one_node_is_the_containers() {
    let sys = tempfile::tempdir().unwrap();
    machine(sys.path(), false);
    let with = |config: &mut KubeletConfig, bytes| {
        settings(config, sys.path());
        config.placement.settings.memory_policy = "Static".into();
        let limits = [("memory".to_owned(), bytes)].into();
        config.placement.settings.reserved_memory =
            vec![placement::Reservation { numa_node: 1, limits }];
    };
    let node = Node::with(|config| with(config, KEPT));
    node.create(one(guaranteed("1", "64Mi")));
    node.status(|s| s["phase"] == "Running").await;
    assert_eq!(bound(&node, "c").unwrap(), ("1".into(), "0".into(), -1));
    // Its CPUs and memory cannot change while it runs.
    for (generation, to, manager) in [
        (2, guaranteed("1", "32Mi"), "Memory Manager policy \"Static\""),
        (3, guaranteed("500m", "64Mi"), "CPU Manager policy \"static\""),
    ] {
        node.change(|pod| {
            pod["spec"]["containers"][0]["resources"] = to["resources"].clone();
            pod["metadata"]["generation"] = json!(generation);
        });
        let pending = |s: &Value| {
            let all = s["conditions"].as_array()?;
            let found = |c: &&Value| {
                c["type"] == "PodResizePending" && c["observedGeneration"] == generation
            };
            all.iter().find(found).cloned()
        };
        let status = node.status(|s| pending(s).is_some()).await;
        let condition = pending(&status).unwrap();
        let said = format!("Resize is infeasible for Guaranteed Pods alongside {manager}");
        assert_eq!(
            (&condition["reason"], &condition["message"]),
            (&json!("Infeasible"), &json!(said))
        );
    }
    assert_eq!(node.event("ResizeInfeasible").await["type"], "Warning");
    node.tasks.shutdown().await;
    let mut config = node.config();
    with(&mut config, 1 << 20);
    let refused = node.agent(&client::Tasks::new(), config).unwrap_err();
    assert!(
        refused.contains(
            "is not equal to the value \"104857600\" determined by Node Allocatable feature"
        ),
        "{refused}"
    );
}

#[tokio::test]
async fn the_static_policy_wants_cpus_for_the_node_itself() {
    let sys = tempfile::tempdir().unwrap();
    machine(sys.path(), false);
    let node = Node::start();
    node.tasks.shutdown().await;
    let refused = |change: fn(&mut KubeletConfig)| {
        let mut config = node.config();
        config.root_dir = node.dir.path().join("fresh");
        settings(&mut config, sys.path());
        change(&mut config);
        node.agent(&client::Tasks::new(), config).unwrap_err()
    };
    let said = refused(|config| config.reserved_cpu_millis = 0);
    assert_eq!(
        said,
        "[cpumanager] the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero"
    );
    let said = refused(|config| config.placement.settings.cpu_policy = "other".into());
    assert_eq!(said, "unknown policy: \"other\"");
}

fn allowed(status: &str) -> Option<&str> {
    status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).map(str::trim)
}

fn quota(group: &Path) -> String {
    let group = group.strip_prefix("/").unwrap();
    let root = Path::new("/sys/fs/cgroup");
    let v1 = std::fs::read_to_string(root.join("cpu").join(group).join("cpu.cfs_quota_us"));
    v1.or_else(|_| std::fs::read_to_string(root.join(group).join("cpu.max"))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_container_has_a_cpu_of_its_own() {
    let cpus = std::thread::available_parallelism().unwrap().get();
    assert!(cpus >= 2, "the node keeps one CPU and gives one away");
    let node = real::Node::with(|config| settings(config, Path::new("/sys"))).await;
    let sleeps = json!(["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]);
    let is = |name: &'static str, want: &'static str| {
        let node = &node;
        async move {
            loop {
                let said = node.exec(name, &["cat", "/proc/1/status"], b"").await;
                let text: Vec<u8> =
                    said.iter().filter(|m| m.0 == 1).flat_map(|m| m.1.clone()).collect();
                let text = String::from_utf8_lossy(&text).into_owned();
                let found = placement::CpuSet::parse(allowed(&text).unwrap_or("")).unwrap();
                let has_own = found.contains(1);
                match want {
                    "own" if found == placement::CpuSet::from([1]) => return,
                    "all" if found.len() == cpus => return,
                    "rest" if !has_own && found.len() == cpus - 1 => return,
                    _ => {}
                }
            }
        }
    };
    let soon = |what| tokio::time::timeout(Duration::from_secs(20), what);
    node.pod("shared", json!({"command": sleeps}));
    node.status("shared", |s| s["phase"] == "Running").await;
    soon(is("shared", "all")).await.unwrap();
    let mut own = guaranteed("1", "64Mi");
    own["command"] = sleeps.clone();
    node.pod("own", own);
    node.status("own", |s| s["phase"] == "Running").await;
    soon(is("own", "own")).await.unwrap();
    soon(is("shared", "rest")).await.unwrap();
    let unlimited = quota(&node.cgroup("own"));
    assert!(unlimited.starts_with("-1") || unlimited.starts_with("max"), "{unlimited}");
    let metrics = node.pki.get(node.address, "/metrics", true).await;
    assert!(
        metrics.contains("kubelet_cpu_manager_exclusive_cpu_allocation_count 1\n"),
        "{metrics}"
    );
    node.delete("own").await;
    soon(is("shared", "all")).await.unwrap();
    node.delete("shared").await;
    node.tasks.shutdown().await;
}
