//! The way out, tested inside an outer namespace that plays the host; nothing touches the real one.

use network::egress::{masquerade_pods, stop_masquerading_pods};
use network::ipnet::IpNet;
use network::netlink::route::{NextHop, Route, VethPair};
use network::{EgressConfig, EgressError, EgressNat, Fabric, NetNs, sysctl};

use crate::world::{World, pings, pod_cidrs};

/// A "host" with one link to an "internet" that knows no way back to anything but that link.
fn outside(world: &World) -> (NetNs, NetNs) {
    let [host, internet] = ["host", "internet"].map(|name| world.pins.create(name).unwrap());
    let mut route = Route::open(Some(&host)).unwrap();
    let pair = VethPair { name: "wan", peer: "wan", peer_ns: Some(&internet), mtu: None };
    route.add_veth(&pair).unwrap();
    for (ns, address) in [(&host, "192.0.2.1/24"), (&internet, "192.0.2.2/24")] {
        let mut route = Route::open(Some(ns)).unwrap();
        let link = route.link("wan").unwrap().unwrap();
        route.add_address(link.index, address.parse().unwrap()).unwrap();
        route.set_up(link.index).unwrap();
    }
    (host, internet)
}

fn default_route(ns: &NetNs) {
    let hop = NextHop { gateway: Some("192.0.2.2".parse().unwrap()), ..NextHop::default() };
    let everything: IpNet = "0.0.0.0/0".parse().unwrap();
    Route::open(Some(ns)).unwrap().set_route(everything, hop).unwrap();
}

fn enable(fabric: &Fabric, host: &NetNs) -> Result<EgressNat, EgressError> {
    EgressNat::enable(fabric, Some(host), &EgressConfig::new("test", 7))
}

#[test]
fn each_missing_requirement_is_named_and_nothing_is_added() {
    let world = World::new();
    let mut fabric = world.fabric();
    fabric.add_node(0).unwrap();
    let (host, _internet) = outside(&world);
    let links = || Route::open(Some(&host)).unwrap().links().unwrap().len();
    let before = links();
    assert!(matches!(enable(&fabric, &host), Err(EgressError::NoDefaultRoute)));
    default_route(&host);
    sysctl::set(Some(&host), &[("ipv4/ip_forward".into(), "0")]).unwrap();
    assert!(matches!(enable(&fabric, &host), Err(EgressError::ForwardingOff)));
    sysctl::set(Some(&host), &[("ipv4/ip_forward".into(), "1")]).unwrap();
    let rules = "add table ip filter\nadd chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    let status = host
        .run(|| std::process::Command::new("nft").arg(rules).status().unwrap().success())
        .unwrap();
    assert!(status);
    let error = enable(&fabric, &host).unwrap_err();
    assert!(error.to_string().contains("policy drop in filter FORWARD"), "{error}");
    assert_eq!(links(), before);
    fabric.remove().unwrap();
}

#[test]
fn pods_reach_the_outside_while_it_is_on() {
    let world = World::new();
    let mut fabric = world.fabric();
    let node = fabric.add_node(0).unwrap();
    let pods = world.pods(&node);
    let pod = world.pins.create("a").unwrap();
    pods.attach("a", pod.path()).unwrap();
    let (host, _internet) = outside(&world);
    default_route(&host);
    sysctl::set(Some(&host), &[("ipv4/ip_forward".into(), "1")]).unwrap();
    assert!(!pings(&pod, "192.0.2.2"));

    let egress = enable(&fabric, &host).unwrap();
    fabric.set_default_route(0).unwrap();
    let cluster: Vec<IpNet> = ["10.42.0.0/16", "10.43.0.0/16", "10.89.0.0/24"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    masquerade_pods(Some(&node.ns), &pod_cidrs(0), &cluster).unwrap();
    assert!(pings(&node.ns, "192.0.2.2"), "the node");
    assert!(pings(&pod, "192.0.2.2"), "the pod");
    stop_masquerading_pods(Some(&node.ns)).unwrap();
    egress.remove().unwrap();
    assert!(!pings(&pod, "192.0.2.2"));
    let left = Route::open(Some(&host)).unwrap().links().unwrap();
    assert_eq!(left.iter().filter(|link| link.name.starts_with("tr")).count(), 0);
    fabric.remove().unwrap();
}
