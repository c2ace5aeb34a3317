//! Specs to CRI, feature by feature.

use k8s_openapi::api::core::v1::Pod;
use runtime::cri::DNSConfig;
use serde_json::{Value, json};

use super::resources::{self, NodeResources};
use super::{dns, downward, expand, hosts, security};

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
    assert_eq!(expand::expand("$(A) $$(A) $(B) $A $", known), "1 $(A) $(B) $A $");
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
