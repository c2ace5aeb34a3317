//! Namespaces of one test, removed when it ends.

use std::path::PathBuf;

use network::ipnet::IpNet;
use network::{Fabric, FabricConfig, NetNs, PinDir, PodNetwork, PodNetworkConfig, Uplink};

pub(crate) struct World {
    pub(crate) pins: PinDir,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pins = PinDir::open(dir.path().join("ns")).unwrap();
        World { pins, dir }
    }

    pub(crate) fn fabric(&self) -> Fabric {
        let mut config = FabricConfig::new("fabric");
        config.cidrs.push("fd00:89::/64".parse().unwrap());
        Fabric::create(self.pins.clone(), config).unwrap()
    }

    pub(crate) fn config(&self, node: &Uplink) -> PodNetworkConfig {
        PodNetworkConfig {
            node_ns: Some(node.ns.clone()),
            pod_cidrs: pod_cidrs(node.index),
            service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
            local_addresses: vec!["10.43.0.10".parse().unwrap()],
            ipam_path: self.ipam(node.index),
            bridge: network::pod::DEFAULT_BRIDGE.into(),
            mtu: None,
        }
    }

    pub(crate) fn ipam(&self, node: u32) -> PathBuf {
        self.dir.path().join(format!("ipam{node}"))
    }

    pub(crate) fn pods(&self, node: &Uplink) -> PodNetwork {
        PodNetwork::new(self.config(node)).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.pins.clone().close().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left = mounts.contains(self.dir.path().to_str().unwrap());
        assert!(!left || std::thread::panicking(), "mounts left behind: {mounts}");
    }
}

pub(crate) fn pod_cidrs(node: u32) -> Vec<IpNet> {
    [format!("10.42.{node}.0/24"), format!("fd00:42:0:{node}::/64")]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect()
}

/// Whether one packet there and back gets through.
pub(crate) fn pings(from: &NetNs, to: &str) -> bool {
    let run = || {
        std::process::Command::new("ping")
            .args(["-c1", "-W2", to])
            .output()
            .unwrap()
            .status
            .success()
    };
    from.run(run).unwrap()
}
