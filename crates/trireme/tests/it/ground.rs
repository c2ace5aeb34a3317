//! What a cluster stands on: the host's own network (`server`), and the way out (`--egress nat`).
//! "The host" is always a namespace of the test.

use crate::busybox;
use crate::harness::Cluster;
use crate::netns::Netns;

/// What is in a host's network: addresses, routes and rules, in a form that can be compared.
fn network_of(host: &Netns) -> Vec<String> {
    let shown = |args: &[&str]| host.ip(args);
    let rules = host.run("nft", &["list", "ruleset"]);
    // IPv6 addresses settle by themselves.
    vec![shown(&["-o", "link"]), shown(&["-4", "-o", "address"]), shown(&["route"]), rules]
}

/// A machine that runs tests may well have a nearly full disk.
const FLAGS: [&str; 3] = ["--node-name", "box", "--eviction-hard=nodefs.available<1Gi"];

#[test]
fn a_server_uses_the_hosts_own_network_and_leaves_it_as_it_was() {
    let (host, internet) = Netns::host_and_internet();
    let before = network_of(&host);
    let cluster = Cluster::server("srv", host, &FLAGS);
    assert!(cluster.kubectl(&["get", "node", "box", "-o", "wide"]).contains("192.0.2.1"));
    cluster.import_busybox();

    cluster.kubectl(&["create", "deployment", "web", "--image=trireme.local/demo:v1"]);
    cluster.kubectl(&["run", "bb", "--image", busybox::NAME, "--restart=Never"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/bb", "--timeout=30s"]);
    let expose = ["expose", "deployment/web", "--port=8000", "--target-port=8080"];
    cluster.kubectl(&[&expose[..], &["--type=LoadBalancer"]].concat());

    let by_name = cluster.kubectl_until(&["exec", "bb", "--", "wget", "-qO-", "http://web:8000/"]);
    assert!(by_name.contains("version: v1"), "{by_name}");
    let port =
        cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    let told = ["get", "service", "web", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"];
    cluster.eventually(&told, |ip| ip == "192.0.2.1");
    // A machine outside reaches the node port and the load balancer; pods reach that machine.
    for port in [port.as_str(), "8000"] {
        let url = format!("http://192.0.2.1:{port}/");
        let answer = internet.run("busybox", &["wget", "-qO-", &url]);
        assert!(answer.contains("version: v1"), "{answer}");
    }
    assert!(
        cluster
            .kubectl(&["exec", "bb", "--", "ping", "-c1", "192.0.2.2"])
            .contains("1 packets received")
    );

    cluster.kill();
    cluster.start(&FLAGS);
    let restarts =
        ["get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}"];
    assert_eq!(cluster.kubectl(&restarts), "0 0", "containers must not be touched");
    assert!(!cluster.log().contains("will try again"), "{}", cluster.log());
    cluster.trireme(&["down", "--name", cluster.name()]);
    assert_eq!(network_of(cluster.host()), before);
}

#[test]
fn pods_reach_the_outside_by_nat_when_the_host_lets_them() {
    let (host, _internet) = Netns::host_and_internet();
    host.run("sysctl", &["-qw", "net.ipv4.ip_forward=0"]);
    let before = network_of(&host);
    let cluster =
        Cluster::inside("nat", host, &["--egress", "nat", "--nodes", "2", "--host-routes=none"]);
    let said = cluster.said();
    assert!(
        said.contains("pods will not reach the outside: the outer network does not forward"),
        "{said}"
    );
    assert_eq!(network_of(cluster.host()), before, "nothing is added when it cannot be had");
    cluster.trireme(&["down", "--name", cluster.name()]);

    cluster.host().run("sysctl", &["-qw", "net.ipv4.ip_forward=1"]);
    cluster.start(&["--egress", "nat", "--nodes", "2", "--host-routes=none"]);
    cluster.import_busybox();
    cluster.kubectl(&["create", "deployment", "bb", "--image", busybox::NAME, "--replicas=2"]);
    cluster.kubectl(&["rollout", "status", "deployment/bb", "--timeout=60s"]);
    let names = cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]);
    for pod in names.split(' ') {
        let answer = cluster.kubectl(&["exec", pod, "--", "ping", "-c1", "-W5", "192.0.2.2"]);
        assert!(answer.contains("1 packets received"), "{answer}");
    }
    // A killed cluster leaves its link; `down` takes it away.
    cluster.kill();
    assert_ne!(network_of(cluster.host()), before);
    cluster.trireme(&["down", "--name", cluster.name()]);
    assert_eq!(network_of(cluster.host()), before);
}
