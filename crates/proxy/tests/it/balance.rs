//! Cluster addresses: spreading, affinity, refusal, hairpins, UDP repair, healing.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use network::netns::udp_bind;
use serde_json::json;

use crate::objects::{service, slice};
use crate::world::{World, ask, at, say, who};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_address_spreads_over_its_endpoints_and_refuses_without() {
    let mut world = World::new(2);
    let [a, b, c] = [world.server(0, "a"), world.server(0, "b"), world.server(1, "c")];
    let client = world.pod(0, "client");
    let mut proxy = world.proxy(0);
    proxy.apply(service("web", "10.43.0.80", "TCP", json!({}), json!({})));
    let all = [(a.ip, "node0"), (b.ip, "node0"), (c.ip, "node1")];
    proxy.apply(slice("web", "TCP", &all));
    assert!(proxy.sync().unwrap().rebuilt);

    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..300 {
        *counts.entry(who(&client.ns, at("10.43.0.80:80")).await.unwrap()).or_default() += 1;
    }
    // 300 draws of three: 100 each, standard deviation 8; 50 is six of them away.
    assert!(counts.len() == 3 && counts.values().all(|n| (50..=150).contains(n)), "{counts:?}");
    // The client's address passes, from the node itself too, and a pod reaches itself.
    let seen = say(&client.ns, at("10.43.0.80:80")).await.unwrap();
    assert!(seen.ends_with(&client.ip.to_string()), "{seen}");
    who(world.ns(0), at("10.43.0.80:80")).await.unwrap();
    proxy.apply(slice("web", "TCP", &all[..1]));
    assert!(!proxy.sync().unwrap().rebuilt);
    assert_eq!(who(&a.ns, at("10.43.0.80:80")).await.unwrap(), "a", "hairpin");

    proxy.apply(slice("web", "TCP", &[]));
    proxy.sync().unwrap();
    for wrong in ["10.43.0.80:80", "10.43.0.80:81", "10.43.9.9:80"] {
        let refused = who(&client.ns, at(wrong)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{wrong}");
        let refused = who(world.ns(0), at(wrong)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{wrong} from the node");
    }
    proxy.remove().unwrap();
    assert_eq!(world.run(0, "nft", &["list", "tables"]), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn affinity_keeps_a_client_at_its_endpoint_until_that_goes() {
    let mut world = World::new(1);
    let servers = [world.server(0, "a"), world.server(0, "b"), world.server(0, "c")];
    let client = world.pod(0, "client");
    let mut proxy = world.proxy(0);
    let sticky = json!({"sessionAffinity": "ClientIP",
                        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}});
    proxy.apply(service("web", "10.43.0.80", "TCP", sticky, json!({})));
    let mut all: Vec<_> = servers.iter().map(|pod| (pod.ip, "node0")).collect();
    proxy.apply(slice("web", "TCP", &all));
    proxy.sync().unwrap();
    let first = who(&client.ns, at("10.43.0.80:80")).await.unwrap();
    for _ in 0..20 {
        assert_eq!(who(&client.ns, at("10.43.0.80:80")).await.unwrap(), first);
    }
    // Another endpoint goes: the client stays. Its own goes: it moves, and stays there.
    let own = ["a", "b", "c"].iter().position(|name| *name == first).unwrap();
    all.remove((own + 1) % 3);
    proxy.apply(slice("web", "TCP", &all));
    proxy.sync().unwrap();
    assert_eq!(who(&client.ns, at("10.43.0.80:80")).await.unwrap(), first);
    all.retain(|(ip, _)| *ip != servers[own].ip);
    proxy.apply(slice("web", "TCP", &all));
    proxy.sync().unwrap();
    let second = who(&client.ns, at("10.43.0.80:80")).await.unwrap();
    assert_ne!(second, first);
    let listing = world.run(0, "nft", &["list", "sets", "inet"]);
    assert!(listing.contains(&format!("{} expires ", client.ip)), "{listing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_udp_client_is_led_away_from_a_gone_endpoint_and_others_stay() {
    let mut world = World::new(1);
    let [a, b] = [world.udp_server(0, "a"), world.udp_server(0, "b")];
    let client = world.pod(0, "client");
    let mut proxy = world.proxy(0);
    for (name, ip, to) in [("one", "10.43.0.81", a.ip), ("two", "10.43.0.82", b.ip)] {
        proxy.apply(service(name, ip, "UDP", json!({}), json!({})));
        proxy.apply(slice(name, "UDP", &[(to, "node0")]));
    }
    proxy.sync().unwrap();
    let any = at("0.0.0.0:0");
    let [one, two] = [0, 1].map(|_| udp_bind(Some(&client.ns), any).unwrap());
    assert_eq!(ask(&one, at("10.43.0.81:80")).await.unwrap(), "a");
    assert_eq!(ask(&two, at("10.43.0.82:80")).await.unwrap(), "b");
    assert_eq!(world.run(0, "conntrack", &["-L", "-p", "udp"]).lines().count(), 2);
    proxy.apply(slice("one", "UDP", &[(b.ip, "node0")]));
    assert_eq!(proxy.sync().unwrap().flows_removed, 1);
    assert_eq!(ask(&one, at("10.43.0.81:80")).await.unwrap(), "b", "same socket, new endpoint");
    let flows = world.run(0, "conntrack", &["-L", "-p", "udp"]);
    assert!(flows.contains("dst=10.43.0.82"), "{flows}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_flushed_by_another_program_is_noticed_and_healed() {
    let mut world = World::new(1);
    let a = world.server(0, "a");
    let client = world.pod(0, "client");
    let mut proxy = world.proxy(0);
    let mut watch = proxy.watch().unwrap();
    proxy.apply(service("web", "10.43.0.80", "TCP", json!({}), json!({})));
    proxy.apply(slice("web", "TCP", &[(a.ip, "node0")]));
    proxy.sync().unwrap();
    world.run(0, "nft", &["flush", "ruleset"]);
    // The first sign must be the flush: our own changes are no sign.
    let seen = watch.next().await.unwrap();
    assert!(proxy.healed_by_sync(seen).unwrap());
    assert!(proxy.sync().unwrap().rebuilt);
    assert_eq!(who(&client.ns, at("10.43.0.80:80")).await.unwrap(), "a");
}
