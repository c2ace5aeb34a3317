//! Specs to CRI, feature by feature.

use k8s_openapi::api::core::v1::Pod;
use runtime::cri::{DNSConfig, ProfileType};
use serde_json::{Value, json};

use super::resources::{self, NodeResources};
use super::{dns, downward, env, expand, hosts, sandbox, security};

fn pod(spec: Value) -> Pod {
    let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"b": "2", "a": "1"}}, "spec": spec});
    serde_json::from_value(pod).unwrap()
}

fn container(resources: Value) -> Value {
    json!({"containers": [{"name": "c", "resources": resources}]})
}

#[test]
fn references_expand_once() {
    let known = |name: &str| (name == "A").then(|| "1".to_owned());
    assert_eq!(expand::expand("$(A) $$(A) $(B) $A $", known).unwrap(), "1 $(A) $(B) $A $");
}

#[test]
fn qos_and_cgroup_values() {
    let node = NodeResources { memory_bytes: 8 << 30, ..NodeResources::default() };
    let check = |spec: Value, class: &str, expected: [i64; 4]| {
        let pod = pod(spec);
        assert_eq!(resources::qos(&pod).as_str(), class);
        let c = &pod.spec.as_ref().unwrap().containers[0];
        let r = resources::container_resources(&pod, c, &node);
        assert_eq!([r.cpu_shares, r.cpu_quota, r.memory_limit_in_bytes, r.oom_score_adj], expected);
    };
    check(container(json!({})), "BestEffort", [2, 0, 0, 1000]);
    check(
        container(json!({"limits": {"cpu": "500m", "memory": "64Mi"}})),
        "Guaranteed",
        [512, 50_000, 64 << 20, -997],
    );
    check(container(json!({"requests": {"memory": "2Gi"}})), "Burstable", [2, 0, 0, 750]);
    let parent = resources::cgroup_parent("/kubepods", &pod(container(json!({}))));
    assert_eq!(parent, "/kubepods/besteffort/podu");
}

#[test]
fn burstable_containers_have_their_part_of_the_swap() {
    let node = NodeResources {
        memory_bytes: 8 << 30,
        swap_bytes: 4 << 30,
        unified: true,
        ..Default::default()
    };
    let swap = |spec: Value, node: &NodeResources| {
        let pod = pod(spec);
        let c = &pod.spec.as_ref().unwrap().containers[0];
        resources::container_resources(&pod, c, node).unified["memory.swap.max"].clone()
    };
    let asks = |memory: &str| container(json!({"requests": {"memory": memory}}));
    assert_eq!(swap(asks("2Gi"), &node), (1i64 << 30).to_string());
    let none = NodeResources { swap_bytes: 0, ..node.clone() };
    assert_eq!(swap(asks("2Gi"), &none), "0", "NoSwap");
    assert_eq!(swap(container(json!({})), &node), "0", "best effort");
    assert_eq!(swap(container(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), &node), "0");
    assert_eq!(swap(container(json!({"requests": {"cpu": "1"}})), &node), "0", "no memory asked");
    let pod = pod(asks("2Gi"));
    let c = &pod.spec.as_ref().unwrap().containers[0];
    let v1 = NodeResources { unified: false, ..node.clone() };
    let none = resources::container_resources(&pod, c, &v1).unified;
    assert!(none.is_empty(), "runc refuses cgroup v2's values on v1: {none:?}");
    assert_eq!(swap(asks("9Gi"), &node), "0", "more than there is");
    let mut critical = asks("2Gi");
    critical["priority"] = json!(2_000_000_000);
    assert_eq!(swap(critical, &node), "0");
}

#[test]
fn fields_of_the_pod() {
    let pod = pod(json!({"containers": [], "nodeName": "n"}));
    let at = downward::Addresses { pod: vec!["1.2.3.4".into()], host: vec![] };
    let field = |path: &str| downward::field(&pod, path, &at).map_err(|e| e.0);
    assert_eq!(field("metadata.labels").unwrap(), "a=\"1\"\nb=\"2\"");
    assert_eq!(field("metadata.labels['b']").unwrap(), "2");
    assert_eq!(field("status.podIP").unwrap(), "1.2.3.4");
    assert!(field("spec.nothing").is_err());
}

#[test]
fn resolvers_by_policy() {
    let servers = ["10.96.0.10".parse().unwrap()];
    let cluster = dns::Cluster { servers: &servers, domain: "cluster.local" };
    let host = || dns::parse("nameserver 1.1.1.1\nsearch corp.example.\noptions ndots:1\n");
    let own = dns::pod_dns(&pod(json!({"containers": []})), &cluster, host());
    assert_eq!(own.servers, ["10.96.0.10"]);
    assert_eq!(
        own.searches,
        ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]
    );
    assert_eq!(own.options, ["ndots:5"]);
    let none = pod(
        json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "2"}]}}),
    );
    let expected = DNSConfig {
        servers: vec!["9.9.9.9".into()],
        searches: vec![],
        options: vec!["ndots:2".into()],
    };
    assert_eq!(dns::pod_dns(&none, &cluster, host()), expected);
    let hosted = pod(json!({"containers": [], "hostNetwork": true}));
    assert_eq!(dns::pod_dns(&hosted, &cluster, host()), host());
}

#[test]
fn the_hosts_file() {
    let pod = pod(
        json!({"containers": [], "subdomain": "sub", "hostAliases": [{"ip": "1.1.1.1", "hostnames": ["x", "y"]}]}),
    );
    let text = hosts::managed(&pod, &["10.0.0.5".into()], "cluster.local");
    assert!(text.ends_with("fe00::2\tip6-allrouters\n10.0.0.5\tp.sub.ns.svc.cluster.local\tp\n\n# Entries added by HostAliases.\n1.1.1.1\tx\ty\n"), "{text}");
}

#[test]
fn root_is_refused_when_it_must_be() {
    let pod =
        pod(json!({"containers": [{"name": "c"}], "securityContext": {"runAsNonRoot": true}}));
    let c = &pod.spec.as_ref().unwrap().containers[0];
    let user = security::ImageUser { uid: Some(0), name: String::new() };
    let refused = security::security_context(&pod, c, &user, None, Default::default()).unwrap_err();
    assert_eq!(
        refused.0,
        "container has runAsNonRoot and image will run as root (pod: \"p_ns(u)\", container: c)"
    );
}

#[test]
fn containers_run_as_the_pods_user_the_images_or_root() {
    let by = |sc: Value, user: security::ImageUser| {
        let pod = pod(json!({"containers": [{"name": "c", "securityContext": sc}]}));
        let c = &pod.spec.as_ref().unwrap().containers[0];
        let made = security::security_context(&pod, c, &user, None, Default::default()).unwrap();
        (made.run_as_user.map(|u| u.value), made.run_as_username)
    };
    let named = || security::ImageUser { uid: None, name: "web".into() };
    assert_eq!(by(json!({"runAsUser": 7}), named()), (Some(7), String::new()));
    assert_eq!(by(json!({}), named()), (None, "web".into()));
    // Runtimes refuse a group without a user.
    let root = by(json!({"runAsGroup": 7}), security::ImageUser::default());
    assert_eq!(root, (Some(0), String::new()));
}

#[test]
fn variables_that_double_are_refused_while_they_grow() {
    let mut list = vec![json!({"name": "V0", "value": "x".repeat(100)})];
    for i in 1..40 {
        let value = format!("$(V{0})$(V{0})", i - 1);
        list.push(json!({"name": format!("V{i}"), "value": value}));
    }
    let pod = pod(json!({"containers": [{"name": "c", "env": list}]}));
    let inputs = env::Inputs {
        pod: &pod,
        container: &pod.spec.as_ref().unwrap().containers[0],
        services: &[],
        references: &env::References::default(),
        addresses: &downward::Addresses::default(),
        node: &NodeResources::default(),
    };
    let refused = env::environment(&inputs).unwrap_err();
    assert_eq!(refused.0, "environment variable V11 is longer than 131072 bytes");
}

#[test]
fn isolation_that_cannot_be_given_is_refused() {
    let refused = |context: Value, host_users: Value| {
        let pod = pod(
            json!({"hostUsers": host_users, "containers": [{"name": "c", "securityContext": context}]}),
        );
        let c = &pod.spec.as_ref().unwrap().containers[0];
        let user = security::ImageUser::default();
        let made = security::security_context(&pod, c, &user, None, Default::default());
        made.err().map(|e| e.0)
    };
    let none = json!(null);
    assert_eq!(
        refused(json!({"runAsNonRoot": true}), none.clone()).unwrap(),
        "container has runAsNonRoot and image will run as root (pod: \"p_ns(u)\", container: c)"
    );
    assert_eq!(
        refused(json!({"seccompProfile": {"type": "Localhost"}}), none.clone()).unwrap(),
        "localhostProfile must be set if seccompProfile type is Localhost."
    );
    assert!(refused(json!({"seccompProfile": {"type": "Other"}}), none.clone()).is_some());
    assert!(refused(json!({"procMount": "Unmasked"}), none.clone()).is_some());
    assert!(refused(json!({"procMount": "Unmasked"}), json!(false)).is_none());
    assert!(refused(json!({"runAsNonRoot": true, "runAsUser": 5}), none).is_none());
}

#[test]
fn a_pods_processes_have_the_nodes_limit() {
    let pod = pod(container(json!({})));
    let limit = |pids_max| {
        let inputs = sandbox::Inputs {
            pod: &pod,
            attempt: 0,
            dns: Default::default(),
            cluster_domain: "cluster.local",
            log_directory: String::new(),
            cgroup_root: "/kubepods",
            pids_max,
            users: Default::default(),
        };
        let linux = sandbox::config(inputs).unwrap().linux.unwrap();
        linux.resources.unwrap().unified.get("pids.max").cloned()
    };
    assert_eq!((limit(Some(100)).as_deref(), limit(None)), (Some("100"), None));
}

#[test]
fn containers_without_a_seccomp_profile_may_have_the_runtimes() {
    let with = |spec: Value, seccomp_default, seccomp_root: Option<&str>| {
        let pod = pod(spec);
        let inputs = crate::spec::container::Inputs {
            pod: &pod,
            container: &pod.spec.as_ref().unwrap().containers[0],
            attempt: 0,
            image_ref: "i",
            image_user: &security::ImageUser::default(),
            environment: &[],
            mounts: Vec::new(),
            node: &NodeResources::default(),
            target: None,
            users: Default::default(),
            seccomp_default,
            seccomp_root: seccomp_root.map(std::path::Path::new),
        };
        let linux = crate::spec::container::config(inputs).unwrap().linux.unwrap();
        linux.security_context.unwrap().seccomp.unwrap()
    };
    let profile = |spec: Value, seccomp_default| with(spec, seccomp_default, None).profile_type;
    let of = |context: Value| json!({"containers": [{"name": "c", "image": "i", "securityContext": context}]});
    let (default, unconfined) =
        (ProfileType::RuntimeDefault as i32, ProfileType::Unconfined as i32);
    assert_eq!(profile(of(json!({})), true), default);
    assert_eq!(profile(of(json!({})), false), unconfined);
    assert_eq!(profile(of(json!({"seccompProfile": {"type": "Unconfined"}})), true), unconfined);
    assert_eq!(profile(of(json!({"privileged": true})), true), unconfined);
    let own = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}});
    assert_eq!(with(of(own.clone()), true, None).localhost_ref, "a/b.json");
    let root = Some("/var/lib/kubelet/seccomp");
    assert_eq!(with(of(own), true, root).localhost_ref, "/var/lib/kubelet/seccomp/a/b.json");
    assert_eq!(with(of(json!({})), true, root).localhost_ref, "");
}

#[test]
fn huge_pages_are_limited_to_what_is_asked_for() {
    let list = json!({"hugepages-2Mi": "4Mi", "cpu": "1"});
    let asking = json!({"name": "c", "resources": {"requests": list, "limits": list}});
    let pod = pod(
        json!({"containers": [asking, {"name": "d", "resources": {"requests": list}}, {"name": "e"}]}),
    );
    let node = NodeResources { page_sizes: vec![2 << 20, 1 << 30], ..NodeResources::default() };
    let limits = |at: usize| {
        let spec = pod.spec.as_ref().unwrap();
        let values = resources::container_resources(&pod, &spec.containers[at], &node);
        let pages = values.hugepage_limits.into_iter();
        pages.map(|p| (p.page_size, p.limit)).collect::<Vec<_>>()
    };
    assert_eq!(limits(0), [("2MB".into(), 4 << 20), ("1GB".into(), 0)]);
    assert_eq!(limits(2), [("2MB".into(), 0), ("1GB".into(), 0)]);
    let whole = resources::pod_resources(&pod).hugepage_limits;
    assert_eq!((whole.len(), whole[0].page_size.as_str(), whole[0].limit), (1, "2MB", 8 << 20));
}
