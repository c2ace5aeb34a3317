//! Golden plans: one service each, printed rules.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::fragment::Fragment;

fn config() -> PlanConfig {
    PlanConfig {
        node_name: "here".into(),
        zone: "z1".into(),
        pod_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
        local_addresses: vec!["10.43.0.10".parse().unwrap()],
    }
}

/// The plan of a service `d/web` with one port `p`, 80; `spec` overrides, endpoints as in the API.
fn plan(spec: Value, status: Value, endpoints: Value) -> Fragment {
    let mut object = json!({
        "metadata": {"namespace": "d", "name": "web"},
        "spec": {"clusterIP": "10.43.0.80", "clusterIPs": ["10.43.0.80"],
                 "ports": [{"name": "p", "port": 80, "protocol": "TCP"}]},
        "status": status,
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    let service = Service::from_api(&serde_json::from_value(object).unwrap()).unwrap();
    let slice = json!({
        "metadata": {"namespace": "d", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "p", "port": 8080, "protocol": "TCP"}],
    });
    let slice = Slice::from_api(&serde_json::from_value(slice).unwrap()).unwrap();
    plan_service(&config(), &ServiceKey::new("d", "web"), &service, &[&slice])
}

fn ready(ip: &str, node: &str) -> Value {
    json!({"addresses": [ip], "nodeName": node, "conditions": {"ready": true}})
}

fn terminating(ip: &str, node: &str) -> Value {
    let conditions = json!({"ready": false, "serving": true, "terminating": true});
    json!({"addresses": [ip], "nodeName": node, "conditions": conditions})
}

fn check(fragment: &Fragment, expected: Expect) {
    expected.assert_eq(&fragment.to_string());
}

#[test]
fn cluster_address() {
    let endpoints = json!([ready("10.42.0.2", "here"), ready("10.42.1.2", "there")]);
    check(
        &plan(json!({}), json!({}), endpoints),
        expect![[r#"
        chain svc4/d/web/tcp/p
          balance 10.42.0.2:8080 10.42.1.2:8080
        address 10.43.0.80 tcp 80 -> svc4/d/web/tcp/p
        hairpin 10.42.0.2
    "#]],
    );
}

#[test]
fn no_endpoints_are_refused_and_terminating_ones_are_the_last_resort() {
    check(
        &plan(json!({}), json!({}), json!([])),
        expect![[r#"
        address 10.43.0.80 tcp 80 -> reject
    "#]],
    );
    let unready = json!([{"addresses": ["10.42.0.3"], "conditions": {"ready": false}}]);
    check(
        &plan(json!({}), json!({}), unready),
        expect![[r#"
        address 10.43.0.80 tcp 80 -> reject
    "#]],
    );
    check(
        &plan(json!({}), json!({}), json!([terminating("10.42.0.4", "here")])),
        expect![[r#"
        chain svc4/d/web/tcp/p
          balance 10.42.0.4:8080
        address 10.43.0.80 tcp 80 -> svc4/d/web/tcp/p
        hairpin 10.42.0.4
    "#]],
    );
    let both = json!([terminating("10.42.0.4", "here"), ready("10.42.0.5", "there")]);
    check(
        &plan(json!({}), json!({}), both),
        expect![[r#"
        chain svc4/d/web/tcp/p
          balance 10.42.0.5:8080
        address 10.43.0.80 tcp 80 -> svc4/d/web/tcp/p
    "#]],
    );
}

#[test]
fn internal_policy_local() {
    let spec = || json!({"internalTrafficPolicy": "Local"});
    let endpoints = json!([ready("10.42.0.2", "here"), ready("10.42.1.2", "there")]);
    check(
        &plan(spec(), json!({}), endpoints),
        expect![[r#"
        chain loc4/d/web/tcp/p
          balance 10.42.0.2:8080
        address 10.43.0.80 tcp 80 -> loc4/d/web/tcp/p
        hairpin 10.42.0.2
    "#]],
    );
    check(
        &plan(spec(), json!({}), json!([ready("10.42.1.2", "there")])),
        expect![[r#"
        address 10.43.0.80 tcp 80 -> drop
    "#]],
    );
}

#[test]
fn node_port_and_load_balancer_with_affinity_and_source_ranges() {
    let spec = json!({
        "type": "LoadBalancer", "externalIPs": ["192.0.2.7"], "sessionAffinity": "ClientIP",
        "loadBalancerSourceRanges": ["198.51.100.0/24"],
        "ports": [{"name": "p", "port": 80, "protocol": "TCP", "nodePort": 30080}],
    });
    let status = json!({"loadBalancer": {"ingress": [
        {"ip": "203.0.113.9", "ipMode": "VIP"}, {"ip": "203.0.113.10", "ipMode": "Proxy"}]}});
    check(
        &plan(spec, status, json!([ready("10.42.1.2", "there")])),
        expect![[r#"
            chain ep4/d/web/tcp/p/10.42.1.2_8080
              remember in clients-10800-4/d/web/tcp/p/10.42.1.2_8080
              balance 10.42.1.2:8080
            chain ext4/d/web/tcp/p
              masquerade
              goto svc4/d/web/tcp/p
            chain fw4/d/web/tcp/p
              from 198.51.100.0/24 goto ext4/d/web/tcp/p
              drop
            chain svc4/d/web/tcp/p
              from @clients-10800-4/d/web/tcp/p/10.42.1.2_8080 goto ep4/d/web/tcp/p/10.42.1.2_8080
              spread ep4/d/web/tcp/p/10.42.1.2_8080
            affinity clients-10800-4/d/web/tcp/p/10.42.1.2_8080 10800s
            address 10.43.0.80 tcp 80 -> svc4/d/web/tcp/p
            address 192.0.2.7 tcp 80 -> ext4/d/web/tcp/p
            address 203.0.113.9 tcp 80 -> fw4/d/web/tcp/p
            node port v4 tcp 30080 -> ext4/d/web/tcp/p
        "#]],
    );
}

#[test]
fn external_policy_local() {
    let spec = || {
        json!({"type": "NodePort", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
               "ports": [{"name": "p", "port": 80, "protocol": "TCP", "nodePort": 30080}]})
    };
    let both = json!([ready("10.42.0.2", "here"), ready("10.42.1.2", "there")]);
    check(
        &plan(spec(), json!({}), both),
        expect![[r#"
        chain ext4/d/web/tcp/p
          from 10.42.0.0/16 goto svc4/d/web/tcp/p
          from self masquerade
          from self goto svc4/d/web/tcp/p
          goto loc4/d/web/tcp/p
        chain loc4/d/web/tcp/p
          balance 10.42.0.2:8080
        chain svc4/d/web/tcp/p
          balance 10.42.0.2:8080 10.42.1.2:8080
        address 10.43.0.80 tcp 80 -> svc4/d/web/tcp/p
        node port v4 tcp 30080 -> ext4/d/web/tcp/p
        hairpin 10.42.0.2
        health port 32000 local 1
    "#]],
    );
    check(
        &plan(spec(), json!({}), json!([ready("10.42.1.2", "there")])),
        expect![[r#"
        chain ext4/d/web/tcp/p
          from 10.42.0.0/16 goto svc4/d/web/tcp/p
          from self masquerade
          from self goto svc4/d/web/tcp/p
          drop
        chain svc4/d/web/tcp/p
          balance 10.42.1.2:8080
        address 10.43.0.80 tcp 80 -> svc4/d/web/tcp/p
        node port v4 tcp 30080 -> ext4/d/web/tcp/p
        health port 32000 local 0
    "#]],
    );
}

#[test]
fn topology_hints_count_only_when_all_endpoints_have_them() {
    let hinted = |ip: &str, zone: &str| {
        json!({"addresses": [ip], "conditions": {"ready": true}, "nodeName": "there",
               "hints": {"forZones": [{"name": zone}]}})
    };
    let all = json!([hinted("10.42.1.2", "z1"), hinted("10.42.2.2", "z2")]);
    check(
        &plan(json!({}), json!({}), all),
        expect![[r#"
        chain svc4/d/web/tcp/p
          balance 10.42.1.2:8080
        address 10.43.0.80 tcp 80 -> svc4/d/web/tcp/p
    "#]],
    );
    let some = json!([hinted("10.42.1.2", "z1"), ready("10.42.2.2", "there")]);
    check(
        &plan(json!({}), json!({}), some),
        expect![[r#"
        chain svc4/d/web/tcp/p
          balance 10.42.1.2:8080 10.42.2.2:8080
        address 10.43.0.80 tcp 80 -> svc4/d/web/tcp/p
    "#]],
    );
}

#[test]
fn addresses_the_node_answers_itself_are_left_alone() {
    let spec = json!({"clusterIP": "10.43.0.10", "clusterIPs": ["10.43.0.10"]});
    let fragment = plan(spec, json!({}), json!([ready("10.42.1.2", "there")]));
    assert!(fragment.entries.is_empty(), "{fragment}");
}

#[test]
fn dual_stack_has_a_chain_per_family() {
    let spec = json!({"clusterIPs": ["10.43.0.80", "fd00:43::80"]});
    check(
        &plan(spec, json!({}), json!([ready("10.42.1.2", "there")])),
        expect![[r#"
        chain svc4/d/web/tcp/p
          balance 10.42.1.2:8080
        address 10.43.0.80 tcp 80 -> svc4/d/web/tcp/p
        address fd00:43::80 tcp 80 -> reject
    "#]],
    );
}

#[test]
fn names_are_unique_and_short_enough_for_the_kernel() {
    let long = "x".repeat(63);
    let one = name("svc", false, &[&long, &long, "tcp", "a-port-name"]);
    let two = name("svc", false, &[&long, &long, "tcp", "b-port-name"]);
    assert!(one.len() <= MAX_NAME_BYTES && one != two);
}
