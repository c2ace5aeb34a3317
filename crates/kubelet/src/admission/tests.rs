//! Each rule refuses, by its reason and its words; and what fits is taken.

use serde_json::{Value, json};

use super::*;

fn pod(uid: &str, spec: Value) -> Pod {
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    let pod = json!({"metadata": {"name": uid, "namespace": "ns", "uid": uid}, "spec": spec});
    serde_json::from_value(pod).unwrap()
}

fn asking(uid: &str, requests: Value) -> Pod {
    pod(uid, json!({"containers": [{"name": "c", "resources": {"requests": requests}}]}))
}

fn node() -> Node {
    let allocatable = json!({"cpu": "2", "memory": "1Gi", "pods": "3", "example.com/gpu": "1", "ephemeral-storage": "10Gi"});
    let node = json!({
        "metadata": {"name": "n1", "labels": {"disk": "ssd", "cores": "4"}},
        "spec": {},
        "status": {"allocatable": allocatable},
    });
    serde_json::from_value(node).unwrap()
}

struct Case {
    node: Node,
    others: Vec<Arc<Pod>>,
    pressure: Vec<Pressure>,
    sysctls: Sysctls,
    apparmor: bool,
    statics: BTreeSet<String>,
}

fn case() -> Case {
    Case {
        node: node(),
        others: Vec::new(),
        pressure: Vec::new(),
        sysctls: Sysctls::safe(),
        apparmor: false,
        statics: BTreeSet::new(),
    }
}

impl Case {
    fn check(&self, pod: &Pod) -> Result<Vec<String>, Refusal> {
        let inputs = Inputs {
            pod,
            node: &self.node,
            others: &self.others,
            pressure: &self.pressure,
            sysctls: &self.sysctls,
            apparmor: self.apparmor,
            strict_groups: false,
            statics: &self.statics,
        };
        check_before(&inputs)?;
        check_after(&inputs)
    }

    #[track_caller]
    fn refused(&self, spec: Value, reason: &str, message: &str) {
        let refusal = self.check(&pod("new", spec)).unwrap_err();
        assert_eq!((refusal.reason.as_str(), refusal.message.as_str()), (reason, message));
    }

    #[track_caller]
    fn taken(&self, spec: Value) {
        assert_eq!(self.check(&pod("new", spec)), Ok(vec![]));
    }
}

#[test]
fn want_of_resources() {
    let mut case = case();
    case.others = vec![Arc::new(asking("old", json!({"cpu": "1500m", "example.com/gpu": "1"})))];
    let spec =
        |requests| json!({"containers": [{"name": "c", "resources": {"requests": requests}}]});
    case.refused(
        spec(json!({"cpu": "501m"})),
        "OutOfcpu",
        "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000",
    );
    case.taken(spec(json!({"cpu": "500m"})));
    case.refused(
        spec(json!({"memory": "2Gi", "ephemeral-storage": "11Gi"})),
        "OutOfmemory",
        "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824",
    );
    case.refused(
        spec(json!({"ephemeral-storage": "11Gi"})),
        "OutOfephemeral-storage",
        "Node didn't have enough resource: ephemeral-storage, requested: 11811160064, used: 0, capacity: 10737418240",
    );
    case.refused(
        spec(json!({"example.com/gpu": "1"})),
        "OutOfexample.com/gpu",
        "Node didn't have enough resource: example.com/gpu, requested: 1, used: 1, capacity: 1",
    );
    case.taken(spec(json!({"example.com/other": "7"})));
    case.others = (0..3).map(|i| Arc::new(pod(&i.to_string(), json!({})))).collect();
    case.refused(
        json!({}),
        "OutOfpods",
        "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3",
    );
}

#[test]
fn a_pod_counts_at_its_fullest() {
    let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
    let full = pod(
        "p",
        json!({
            "initContainers": [
                {"name": "a", "resources": cpu("1")},
                {"name": "side", "restartPolicy": "Always", "resources": cpu("300m")},
                {"name": "b", "resources": cpu("900m")},
            ],
            "containers": [{"name": "c", "resources": cpu("200m")}],
            "overhead": {"cpu": "50m"},
        }),
    );
    assert_eq!(requests(&full)["cpu"], 1250);
    let whole = pod(
        "p",
        json!({"resources": cpu("3"), "containers": [{"name": "c", "resources": cpu("1")}]}),
    );
    assert_eq!(requests(&whole)["cpu"], 3000);
}

#[test]
fn labels_names_ports_and_taints() {
    let mut case = case();
    let affinity =
        "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    case.refused(json!({"nodeSelector": {"disk": "hdd"}}), "NodeAffinity", affinity);
    case.taken(json!({"nodeSelector": {"disk": "ssd"}}));
    let term = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    let expression = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    for (key, operator, values, fits) in [
        ("disk", "In", json!(["ssd", "x"]), true),
        ("disk", "NotIn", json!(["ssd"]), false),
        ("disk", "Exists", json!([]), true),
        ("other", "Exists", json!([]), false),
        ("other", "DoesNotExist", json!([]), true),
        ("cores", "Gt", json!(["3"]), true),
        ("cores", "Lt", json!(["3"]), false),
        ("other", "NotIn", json!(["x"]), true),
    ] {
        let spec = term(json!([expression(key, operator, values)]));
        assert_eq!(case.check(&pod("p", spec)).is_ok(), fits, "{key} {operator}");
    }
    case.refused(term(json!([{}])), "NodeAffinity", affinity);
    case.taken(term(
        json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]),
    ));
    case.refused(
        json!({"nodeName": "n2"}),
        "NodeName",
        "Predicate NodeName failed: node(s) didn't match the requested node name",
    );
    let port = |ip: &str, protocol: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip, "protocol": protocol}]}]});
    case.others = vec![Arc::new(pod("old", port("10.0.0.1", "TCP")))];
    let ports =
        "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    case.refused(port("", "TCP"), "NodePorts", ports);
    case.refused(port("10.0.0.1", "TCP"), "NodePorts", ports);
    case.taken(port("10.0.0.2", "TCP"));
    case.taken(port("", "UDP"));
    case.node.spec = serde_json::from_value(json!({"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}, {"key": "l", "effect": "NoSchedule"}]})).unwrap();
    case.others.clear();
    case.refused(
        json!({}),
        "TaintToleration",
        "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
    );
    case.taken(json!({"tolerations": [{"key": "k", "value": "v"}]}));
    case.taken(json!({"tolerations": [{"operator": "Exists"}]}));
    assert!(case.check(&pod("p", json!({"tolerations": [{"key": "k", "value": "w"}]}))).is_err());
}

#[test]
fn systems_and_features() {
    let case = case();
    case.refused(
        json!({"os": {"name": "windows"}}),
        "PodOSNotSupported",
        "Failed to admit pod as the OS field doesn't match node OS",
    );
    let mut labelled = pod("p", json!({}));
    labelled.metadata.labels = Some([("kubernetes.io/os".into(), "windows".into())].into());
    let reason = case.check(&labelled).unwrap_err().reason;
    assert_eq!(reason, "PodOSSelectorNodeLabelDoesNotMatch");
    case.refused(
        json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}}),
        "SupplementalGroupsPolicyNotSupported",
        "SupplementalGroupsPolicy=Strict is not supported in this node",
    );
    let missing = |name: &str| format!("Pod requires node features that are not available: {name}");
    let spec = json!({"hostNetwork": true, "hostUsers": false});
    case.refused(spec, "PodFeatureUnsupported", &missing("UserNamespacesHostNetworkSupport"));
}

#[test]
fn apparmor_is_enforced_or_refused() {
    let mut case = case();
    let with = |profile: Value| json!({"containers": [{"name": "c", "securityContext": {"appArmorProfile": profile}}]});
    let off = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
    let local = json!({"type": "Localhost", "localhostProfile": "x"});
    case.refused(with(local.clone()), "AppArmor", off);
    case.refused(with(json!({"type": "RuntimeDefault"})), "AppArmor", off);
    case.refused(json!({"securityContext": {"appArmorProfile": local}}), "AppArmor", off);
    case.taken(with(json!({"type": "Unconfined"})));
    let mut noted = pod("p", json!({}));
    let key = "container.apparmor.security.beta.kubernetes.io/c".to_owned();
    noted.metadata.annotations = Some([(key, "localhost/x".into())].into());
    assert_eq!(case.check(&noted).unwrap_err().message, off);
    case.apparmor = true;
    case.taken(with(local));
    assert!(
        case.check(&pod("p", with(json!({"type": "Localhost", "localhostProfile": " "})))).is_err()
    );
}

#[test]
fn sysctls_are_safe_or_allowed() {
    let mut case = case();
    let set = |name: &str, rest: Value| {
        let mut spec = json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        spec
    };
    let none = json!({});
    for name in [
        "net.core.somaxconn",
        "kernel.msgmax",
        "kernel.pid_max",
        "net/core/somaxconn",
        "vm.swappiness",
    ] {
        let said = format!("forbidden sysctl: {:?} not allowlisted", sysctl_name(name));
        case.refused(set(name, none.clone()), "SysctlForbidden", &said);
    }
    for name in ["kernel.shm_rmid_forced", "net.ipv4.tcp_syncookies", "net/ipv4/tcp_rmem"] {
        case.taken(set(name, none.clone()));
    }
    case.refused(
        set("net.ipv4.tcp_syncookies", json!({"hostNetwork": true})),
        "SysctlForbidden",
        "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled",
    );
    case.refused(
        set("kernel.shm_rmid_forced", json!({"hostIPC": true})),
        "SysctlForbidden",
        "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host IPC enabled",
    );
    case.sysctls.allow(&["net.core.*".into(), "kernel.msgmax".into()]).unwrap();
    case.taken(set("net.core.somaxconn", none.clone()));
    case.taken(set("kernel.msgmax", none.clone()));
    case.refused(
        set("net.core.somaxconn", json!({"hostNetwork": true})),
        "SysctlForbidden",
        "forbidden sysctl: \"net.core.somaxconn\" not allowed with host Net enabled",
    );
    for bad in ["kernel.pid_max", "*", "vm.*", "net.*x", "NET.X", ""] {
        assert!(case.sysctls.allow(&[bad.into()]).is_err(), "{bad}");
    }
}

#[test]
fn a_node_under_pressure_takes_only_what_does_not_add_to_it() {
    let mut case = case();
    case.pressure = vec![Pressure::Memory];
    let burstable =
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1m"}}}]});
    case.refused(json!({}), "Evicted", "The node had condition: [MemoryPressure]. ");
    case.taken(burstable.clone());
    case.taken(json!({"tolerations": [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]}));
    case.taken(json!({"priority": SYSTEM_CRITICAL_PRIORITY}));
    case.pressure = vec![Pressure::Memory, Pressure::Disk];
    case.refused(burstable, "Evicted", "The node had condition: [MemoryPressure DiskPressure]. ");
}

#[test]
fn a_critical_pod_gets_room_from_as_few_as_possible() {
    let mut case = case();
    let old = |uid: &str, cpu: &str, limits: bool| {
        let mut resources = json!({"requests": {"cpu": cpu, "memory": "1Mi"}});
        if limits {
            resources["limits"] = resources["requests"].clone();
        }
        Arc::new(pod(uid, json!({"containers": [{"name": "c", "resources": resources}]})))
    };
    case.node.status =
        serde_json::from_value(json!({"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10"}}))
            .unwrap();
    case.others =
        vec![old("small", "200m", false), old("fit", "700m", false), old("big", "1", true)];
    let critical = |cpu: &str| {
        pod(
            "new",
            json!({"priority": SYSTEM_CRITICAL_PRIORITY, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}),
        )
    };
    assert_eq!(case.check(&critical("700m")).unwrap(), ["fit"]);
    assert_eq!(case.check(&critical("1900m")).unwrap(), ["fit", "small", "big"]);
    let refusal = case.check(&critical("3")).unwrap_err();
    assert_eq!(refusal.reason, "UnexpectedAdmissionError");
    let said = "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 1000), ]";
    assert_eq!(refusal.message, said);
    let mut elsewhere = critical("700m");
    elsewhere.spec.as_mut().unwrap().node_selector = Some([("a".into(), "b".into())].into());
    assert_eq!(case.check(&elsewhere).unwrap_err().reason, "NodeAffinity");
}
