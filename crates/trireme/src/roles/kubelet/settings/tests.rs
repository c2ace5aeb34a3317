//! What files say.

use ::kubelet::{Amount, Signal};

use super::*;

fn settings(yaml: &str) -> Result<Settings> {
    let head = format!("kind: {KIND}\napiVersion: {VERSION}\n");
    Settings::of(&parse(&format!("{head}{yaml}"))?)
}

fn refused(yaml: &str) -> String {
    format!("{:#}", settings(yaml).unwrap_err())
}

#[test]
fn a_file_says_what_flags_say_and_flags_win() {
    let yaml = "maxPods: 7\nclusterDNS: [10.0.0.10, 10.0.0.11]\nauthentication: {x509: {clientCAFile: /ca}}\n\
                evictionHard: {memory.available: 5%}\nregisterWithTaints: [{key: a, value: b, effect: NoSchedule}]";
    let found = settings(yaml).unwrap();
    let given = ["--max-pods=9".to_owned(), "--cluster-dns".to_owned(), "1.1.1.1".to_owned()];
    let mut words = found.arguments(&given);
    words.sort();
    let expected = [
        "--client-ca-file=/ca",
        "--cluster-dns",
        "--eviction-hard=memory.available<5%",
        "--max-pods=9",
        "--register-with-taints=a=b:NoSchedule",
        "1.1.1.1",
    ];
    assert_eq!(words, expected);
}

#[test]
fn managers_of_cpus_and_memory_have_flags() {
    let yaml = "cpuManagerPolicy: static\ncpuManagerPolicyOptions: {full-pcpus-only: \"true\"}\nreservedSystemCPUs: 0-1\n\
                reservedMemory: [{numaNode: 1, limits: {memory: 1Gi, hugepages-2Mi: 4Mi}}]\nmemoryManagerPolicy: Static\n\
                topologyManagerPolicyOptions: {prefer-closest-numa-nodes: \"true\"}";
    let mut words = settings(yaml).unwrap().arguments(&[]);
    words.sort();
    let expected = [
        "--cpu-manager-policy-options=full-pcpus-only=true",
        "--cpu-manager-policy=static",
        "--memory-manager-policy=Static",
        "--reserved-cpus=0-1",
        "--reserved-memory=1:hugepages-2Mi=4Mi,memory=1Gi",
        "--topology-manager-policy-options=prefer-closest-numa-nodes=true",
    ];
    assert_eq!(words.len(), expected.len());
    assert!(expected.iter().all(|word| words.contains(&(*word).to_owned())), "{words:?}");
    assert!(refused("cpuManagerPolicyOptions: {a: 1}").contains("a: expected text"));
    assert!(refused("reservedMemory: [{numaNode: 0}]").contains("limits: expected resources"));
}

#[test]
fn what_the_node_keeps_has_flags() {
    let yaml = "kubeReserved: {cpu: 250m, pid: 5}\nsystemReserved: {cpu: \"0.5\"}\nsystemReservedCgroup: /s\n\
                enforceNodeAllocatable: [pods, system-reserved]";
    let words = settings(yaml).unwrap().arguments(&[]);
    let expected = [
        "--kube-reserved=cpu=250m,pid=5",
        "--system-reserved=cpu=0.5",
        "--system-reserved-cgroup=/s",
        "--enforce-node-allocatable=pods,system-reserved",
    ];
    assert!(expected.iter().all(|word| words.contains(&(*word).to_owned())), "{words:?}");
}

#[test]
fn what_no_flag_says_is_set() {
    let yaml = "nodeStatusReportFrequency: 1m30s\nnodeLeaseDurationSeconds: 20\nproviderID: x\nregisterNode: false";
    let mut config = KubeletConfig::new("n");
    settings(yaml).unwrap().apply(&mut config);
    assert_eq!(config.status_report_interval, Duration::from_secs(90));
    assert_eq!(config.lease_duration, Duration::from_secs(20));
    assert!(!config.register_node && config.provider_id.as_deref() == Some("x"));
}

#[test]
fn what_this_node_does_not_do_is_refused_by_name() {
    let said =
        "KubeletConfiguration: cgroupDriver: systemd is not supported by this node, only cgroupfs";
    assert_eq!(refused("cgroupDriver: systemd"), said);
    assert_eq!(
        refused("staticPodURLHeader: {A: b}"),
        "staticPodURLHeader: {\"A\":\"b\"}: A: expected a list"
    );
    let said = "KubeletConfiguration: authentication.anonymous.enabled: true is not supported by this node, only false";
    assert_eq!(refused("authentication: {anonymous: {enabled: true}}"), said);
    assert_eq!(refused("maxPod: 7"), "KubeletConfiguration has no field maxPod");
    assert!(
        refused("featureGates: {DynamicResourceAllocation: false}")
            .contains("DynamicResourceAllocation")
    );
    assert!(refused("featureGates: {EnvFiles: false}").contains("EnvFiles"));
    assert!(refused("kubeReserved: all").contains("kubeReserved: \"all\": expected resources"));
    assert!(parse("kind: Other").is_err());
}

#[test]
fn what_kubeadm_writes_and_nobody_has_set_is_taken() {
    let yaml = "cgroupDriver: cgroupfs\nsyncFrequency: 0s\nlogging: {flushFrequency: 0, verbosity: 0}\nmemorySwap: {}\n\
                shutdownGracePeriod: 0s\nstaticPodPath: /none\ncrashLoopBackOff: {}\nauthorization: {mode: Webhook, webhook: {cacheAuthorizedTTL: 0s}}\n\
                featureGates: {EnvFiles: true, DynamicResourceAllocation: true, WatchList: false}";
    assert!(settings(yaml).is_ok());
}

#[test]
fn static_pods_are_found_where_the_file_says() {
    let yaml = "staticPodPath: /etc/kubernetes/manifests\nstaticPodURL: https://x/pods\n\
                staticPodURLHeader: {A: [b, c]}\nfileCheckFrequency: 5s\nhttpCheckFrequency: 0s";
    let mut words = settings(yaml).unwrap().arguments(&[]);
    words.sort();
    let expected = [
        "--file-check-frequency=5s",
        "--manifest-url-header=A:b",
        "--manifest-url-header=A:c",
        "--manifest-url=https://x/pods",
        "--pod-manifest-path=/etc/kubernetes/manifests",
    ];
    assert_eq!(words, expected);
}

#[test]
fn eviction_is_what_the_file_says() {
    let yaml = "evictionHard: {memory.available: 5%}\nevictionSoft: {memory.available: 10%}\n\
                evictionSoftGracePeriod: {memory.available: 90s}\nevictionMinimumReclaim: {memory.available: 100Mi}\n\
                evictionMaxPodGracePeriod: 60\nmergeDefaultEvictionSettings: true";
    let found = settings(yaml).unwrap();
    let mut words = found.arguments(&[]);
    words.sort();
    let expected = [
        "--eviction-hard=memory.available<5%",
        "--eviction-max-pod-grace-period=60",
        "--eviction-minimum-reclaim=memory.available=100Mi",
        "--eviction-soft-grace-period=memory.available=90s",
        "--eviction-soft=memory.available<10%",
    ];
    assert_eq!(words, expected);
    let mut config = KubeletConfig::new("n");
    config.eviction.hard = "memory.available<5%".parse().unwrap();
    found.apply(&mut config);
    let hard = |signal| config.eviction.hard.get(signal);
    assert_eq!(hard(Signal::Memory), Some(Amount::Percent(5.0)));
    assert_eq!(hard(Signal::NodefsAvailable), Some(Amount::Percent(10.0)), "the default");
}

#[test]
fn a_shutdown_has_its_periods() {
    let of = |yaml: &str| {
        let mut config = KubeletConfig::new("n");
        settings(yaml).map(|found| found.apply(&mut config)).map(|()| config.shutdown)
    };
    let two = "shutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 10s";
    let found: Vec<i64> = of(two).unwrap().iter().map(|p| p.seconds).collect();
    assert_eq!(found, [20, 10]);
    let list = "shutdownGracePeriodByPodPriority: [{priority: 7, shutdownGracePeriodSeconds: 5}]";
    assert_eq!(of(list).unwrap(), [ShutdownPeriod { priority: 7, seconds: 5 }]);
    for bad in [
        "shutdownGracePeriodCriticalPods: 10s",
        "shutdownGracePeriod: 5s\nshutdownGracePeriodCriticalPods: 10s",
        "shutdownGracePeriod: 500ms",
        "shutdownGracePeriodByPodPriority: [{priority: x}]",
        &format!("shutdownGracePeriod: 5s\n{list}"),
    ] {
        assert!(of(bad).is_err(), "{bad}");
    }
}

#[test]
fn numbers_have_their_bounds() {
    let mut config = KubeletConfig::new("n");
    let yaml = "nodeStatusMaxImages: -1\nimageMaximumGCAge: 24h\ncrashLoopBackOff: {maxContainerRestartPeriod: 30s}\npodsPerCore: 0";
    settings(yaml).unwrap().apply(&mut config);
    assert_eq!((config.status_images, config.max_pods), (None, 110));
    assert_eq!(config.image_max_age, Some(Duration::from_secs(86400)));
    assert_eq!(config.restart_max, Duration::from_secs(30));
    assert_eq!((pods(110, 0), pods(1, 1000), pods(110, 1) < 111), (110, 1, true));
    for bad in [
        "nodeStatusMaxImages: -2",
        "podsPerCore: -1",
        "memorySwap: {swapBehavior: UnlimitedSwap}",
        "crashLoopBackOff: {maxContainerRestartPeriod: 301s}",
        "imageMinimumGCAge: x",
    ] {
        assert!(settings(bad).is_err(), "{bad}");
    }
}

/// `docs/kubelet-configuration.md` has a row for each field, in the order of [`FIELDS`].
#[test]
fn the_documents_say_what_becomes_of_each_field() {
    let page = include_str!("../../../../../../docs/kubelet-configuration.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let said = |rule: &fields::Rule| match rule {
        Direct => "obeyed".to_owned(),
        Pace => "taken, without effect".to_owned(),
        Flag(flag) | List(flag) => format!("obeyed, as `--{flag}`"),
        Only([]) => "refused".to_owned(),
        Only(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("only {}", values.join(" or "))
        }
    };
    let wanted: Vec<String> =
        FIELDS.iter().map(|(field, rule)| format!("| `{field}` | {} |", said(rule))).collect();
    assert_eq!(rows, wanted);
}

#[test]
fn drop_in_files_are_joined_in_the_order_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, rest: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("kind: {KIND}\napiVersion: {VERSION}\n{rest}")).unwrap();
        path
    };
    let base = file("base.yaml", "maxPods: 1\nkubeReserved: {cpu: 1m, memory: 1Ki}");
    file("20.conf", "maxPods: 3\nkubeReserved: {cpu: 2m}");
    file("10.conf", "maxPods: 2\nport: 11");
    file("30.other", "maxPods: 4");
    let found = read(Some(&base), Some(dir.path())).unwrap();
    let mut words = found.arguments(&[]);
    words.sort();
    assert_eq!(words, ["--kube-reserved=cpu=2m,memory=1Ki", "--max-pods=3", "--port=11"]);
    assert!(read(Some(&dir.path().join("none")), None).is_err());
}

#[test]
fn durations_are_gos() {
    assert_eq!(duration("1h30m5s"), Some(Duration::from_secs(5405)));
    assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
    for bad in ["", "5", "s", "5x", "-5s"] {
        assert_eq!(duration(bad), None, "{bad}");
    }
}
