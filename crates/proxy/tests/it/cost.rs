//! The cost of an update among thousands of services in netlink messages. Times, beside Debian's `nft` doing
//! the same work, are printed and not judged: machines are busy.

use std::time::{Duration, Instant};

use network::NetNs;
use serde_json::json;

use crate::objects::{service, slice};
use crate::world::World;

const SERVICES: u32 = 5_000;
/// Netlink messages that a new service may take.
const MESSAGES_EACH: usize = 5;

fn ip(base: u32, number: u32) -> std::net::IpAddr {
    std::net::Ipv4Addr::from(base + number).into()
}

fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

fn nft(ns: &NetNs, args: &[&str]) -> String {
    let output = ns.run(|| std::process::Command::new("nft").args(args).output().unwrap()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_update_among_five_thousand_services_costs_what_it_changes() {
    let world = World::new(1);
    let mut proxy = world.proxy(0);
    let (services, pods) = (0x0a2b_0100, 0x0a2a_0000);
    for number in 0..SERVICES {
        let name = format!("s{number}");
        let address = ip(services, number).to_string();
        proxy.apply(service(&name, &address, "TCP", json!({}), json!({})));
        let two = [(ip(pods, 2 * number), "node0"), (ip(pods, 2 * number + 1), "node1")];
        proxy.apply(slice(&name, "TCP", &two));
    }
    let (full, report) = time(|| proxy.sync().unwrap());
    let mut one: Vec<Duration> = (0..50)
        .map(|round| {
            let name = format!("s{}", round * 97);
            proxy.apply(slice(&name, "TCP", &[(ip(pods, 60_000 + round), "node1")]));
            let (took, report) = time(|| proxy.sync().unwrap());
            assert!(!report.rebuilt && report.messages < 10, "{report:?}");
            took
        })
        .collect();
    one.sort_unstable();

    // The yardstick: the very same rules, listed and loaded by nft; and one element by nft.
    let ns = world.ns(0);
    let rules = nft(ns, &["list", "table", "inet", "trireme"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("delete table inet trireme\n{rules}")).unwrap();
    let path = file.path().to_str().unwrap();
    let (yardstick, _) = time(|| nft(ns, &["-f", path]));
    assert_eq!(nft(ns, &["list", "table", "inet", "trireme"]), rules, "nft reads what we wrote");
    let element = "add element inet trireme addresses4 { 192.0.2.1 . tcp . 1 : drop }";
    let (nft_one, _) = time(|| nft(ns, &[element]));
    println!(
        "{SERVICES} services: all {full:?} ({} messages), nft -f {yardstick:?}; one service median {:?} \
         slowest {:?}, one element by nft {nft_one:?}",
        report.messages, one[25], one[49]
    );
    assert!(report.messages < MESSAGES_EACH * SERVICES as usize, "all of them: {report:?}");
}
