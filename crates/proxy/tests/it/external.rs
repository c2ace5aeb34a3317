//! Connections from outside: node ports, external addresses, traffic policies, host ports, sockets.

use std::io::ErrorKind;

use proxy::{Forwarder, HealthServer, HostPort, Protocol, Proxy, ProxyConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::objects::{service, slice};
use crate::world::{World, at, say, who};

fn node_port(policy: &str) -> serde_json::Value {
    json!({"type": "NodePort", "externalTrafficPolicy": policy, "healthCheckNodePort": 30999,
           "externalIPs": ["192.0.2.7"],
           "ports": [{"name": "p", "port": 80, "protocol": "TCP", "nodePort": 30080}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_ports_lead_anywhere_or_with_policy_local_to_this_node_only() {
    let mut world = World::new(2);
    let remote = world.server(1, "remote");
    let outside = world.fabric.as_ref().unwrap().ns().clone();
    let mut proxy = world.proxy(0);
    proxy.apply(service("web", "10.43.0.80", "TCP", node_port("Cluster"), json!({})));
    proxy.apply(slice("web", "TCP", &[(remote.ip, "node1")]));
    proxy.sync().unwrap();
    // Masqueraded: the server sees the node.
    assert_eq!(say(&outside, at("10.89.0.2:30080")).await.unwrap(), "remote 10.89.0.2");
    assert_eq!(who(world.ns(0), at("10.89.0.2:30080")).await.unwrap(), "remote");
    assert_eq!(who(&world.pod(0, "in").ns, at("192.0.2.7:80")).await.unwrap(), "remote");

    let local = world.server(0, "local");
    proxy.apply(service("web", "10.43.0.80", "TCP", node_port("Local"), json!({})));
    proxy.apply(slice("web", "TCP", &[(remote.ip, "node1"), (local.ip, "node0")]));
    proxy.sync().unwrap();
    for _ in 0..10 {
        // The client keeps its address.
        assert_eq!(say(&outside, at("10.89.0.2:30080")).await.unwrap(), "local 10.89.0.1");
    }
    let mut health = HealthServer::new(Some(world.ns(0).clone()));
    assert!(health.update(&proxy.health_checks()).is_empty());
    let mut stream =
        network::netns::tcp_connect(Some(&outside), at("10.89.0.2:30999")).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200 OK") && text.contains("\"localEndpoints\": 1"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_ports_work_on_every_address_and_on_loopback() {
    let mut world = World::new(1);
    let pod = world.server(0, "pod");
    let outside = world.fabric.as_ref().unwrap().ns().clone();
    let mut proxy = world.proxy(0);
    let target = std::net::SocketAddr::new(pod.ip, 8080);
    let any = HostPort {
        id: "any".into(),
        host_ip: None,
        host_port: 5000,
        protocol: Protocol::Tcp,
        targets: vec![target],
    };
    let loopback = HostPort {
        id: "lo".into(),
        host_ip: Some([127, 0, 0, 1].into()),
        host_port: 5001,
        ..any.clone()
    };
    proxy.hostport_add(any.clone());
    proxy.hostport_add(loopback);
    proxy.sync().unwrap();
    assert_eq!(say(&outside, at("10.89.0.2:5000")).await.unwrap(), "pod 10.89.0.1");
    assert_eq!(who(world.ns(0), at("127.0.0.1:5000")).await.unwrap(), "pod");
    assert_eq!(who(world.ns(0), at("127.0.0.1:5001")).await.unwrap(), "pod");
    assert_eq!(who(&pod.ns, at("10.89.0.2:5000")).await.unwrap(), "pod", "hairpin");
    // Another program's host ports, in a table of its own.
    let table = Some("trireme-beside");
    let config = ProxyConfig { table, netns: Some(world.ns(0).clone()), ..ProxyConfig::default() };
    let mut beside = Proxy::new(config).unwrap();
    let port = HostPort { id: "beside".into(), host_port: 5002, ..any };
    beside.hostport_add(port);
    beside.sync().unwrap();
    for port in [5000, 5002] {
        let heard = say(&outside, at(&format!("10.89.0.2:{port}"))).await.unwrap();
        assert_eq!(heard, "pod 10.89.0.1", "{port}");
    }
    beside.remove().unwrap();
    proxy.hostport_remove("any");
    proxy.sync().unwrap();
    let gone = who(&outside, at("10.89.0.2:5000")).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_offer_a_service_where_no_rule_reaches() {
    let mut world = World::new(1);
    let tcp = world.server(0, "tcp");
    let udp = world.udp_server(0, "udp");
    // "Outside" stands for the host: it has no route to the node at all.
    let outside = world.pod(0, "outside").ns;
    outside.loopback_up().unwrap();
    let mut proxy = world.proxy(0);
    for (name, ip, protocol, to) in
        [("t", "10.43.0.80", "TCP", tcp.ip), ("u", "10.43.0.81", "UDP", udp.ip)]
    {
        proxy.apply(service(name, ip, protocol, json!({}), json!({})));
        proxy.apply(slice(name, protocol, &[(to, "node0")]));
    }
    proxy.sync().unwrap();
    let listener = network::netns::tcp_listen(Some(&outside), at("127.0.0.1:0")).unwrap();
    let inside = Some(world.ns(0).clone());
    let forwarder = Forwarder::tcp(listener, inside.clone(), at("10.43.0.80:80")).unwrap();
    assert_eq!(who(&outside, forwarder.local_addr()).await.unwrap(), "tcp");
    let socket = network::netns::udp_bind(Some(&outside), at("127.0.0.1:0")).unwrap();
    let relay = Forwarder::udp(socket, inside, at("10.43.0.81:80")).unwrap();
    let client = network::netns::udp_bind(Some(&outside), at("127.0.0.1:0")).unwrap();
    assert_eq!(crate::world::ask(&client, relay.local_addr()).await.unwrap(), "udp");
    let was = forwarder.local_addr();
    forwarder.stop().await;
    assert_eq!(who(&outside, was).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// Everything at once, in both families: the kernel takes it, nft reads it back, and it all goes.
#[tokio::test]
async fn every_kind_of_rule_is_taken_by_the_kernel_in_both_families() {
    let world = World::new(1);
    let mut config = world.proxy_config(0);
    config.service_cidrs.push("fd00:43::/112".parse().unwrap());
    config.pod_cidrs.push("fd00:42::/48".parse().unwrap());
    config.node_ips.push("fd00:89::2".parse().unwrap());
    let mut proxy = Proxy::new(config.clone()).unwrap();
    let v6_slice = |node: &str, addresses: &[&str]| {
        let endpoints: Vec<_> = addresses
            .iter()
            .map(|ip| json!({"addresses": [ip], "nodeName": node, "conditions": {"ready": true}}))
            .collect();
        let object = json!({
            "metadata": {"namespace": "d", "name": format!("web-{node}"),
                         "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv6", "endpoints": endpoints,
            "ports": [{"name": "p", "port": 8080, "protocol": "SCTP"}],
        });
        proxy::Change::EndpointSlice(Box::new(serde_json::from_value(object).unwrap()))
    };
    for policy in ["Cluster", "Local"] {
        let spec = json!({
            "type": "LoadBalancer", "clusterIPs": ["10.43.0.80", "fd00:43::80"],
            "externalTrafficPolicy": policy, "sessionAffinity": "ClientIP",
            "externalIPs": ["2001:db8::7"], "loadBalancerSourceRanges": ["2001:db8:1::/48"],
            "ports": [{"name": "p", "port": 80, "protocol": "SCTP", "nodePort": 30080}],
        });
        let status = json!({"loadBalancer": {"ingress": [{"ip": "2001:db8::9"}]}});
        proxy.apply(service("web", "10.43.0.80", "SCTP", spec, status));
        proxy.apply(slice("web", "SCTP", &[([10, 42, 0, 9].into(), "node0")]));
        proxy.apply(v6_slice("node0", &["fd00:42::5", "fd00:42::6"]));
        proxy.apply(v6_slice("node1", &["fd00:42:0:1::5"]));
        proxy.sync().unwrap();
        let rules = world.run(0, "nft", &["list", "table", "inet", "trireme"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("delete table inet trireme\n{rules}")).unwrap();
        world.run(0, "nft", &["-f", file.path().to_str().unwrap()]);
        assert_eq!(world.run(0, "nft", &["list", "table", "inet", "trireme"]), rules);
        // What nft has loaded is not ours any more; another process starts and takes over.
        proxy = Proxy::new(config.clone()).unwrap();
        assert!(proxy.sync().unwrap().rebuilt);
    }
    let empty = world.run(0, "nft", &["list", "table", "inet", "trireme"]);
    assert!(!empty.contains("/web/"), "{empty}");
}
