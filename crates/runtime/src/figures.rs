//! What pods and containers have used, in more detail than the CRI tells: for dashboards.

use std::collections::BTreeMap;

/// A cgroup's counters and limits; bytes and nanoseconds. What the kernel does not count is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub cpu_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    /// Periods with a quota, those in which it was used up, and the time waited then.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
    pub memory: u64,
    pub working_set: u64,
    pub rss: u64,
    pub cache: u64,
    pub mapped: u64,
    pub swap: u64,
    pub peak: u64,
    /// Times that the limit was hit.
    pub failures: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub pids: u64,
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub cpu_shares: u64,
    /// 0: no quota.
    pub cpu_quota: u64,
    pub cpu_period: u64,
    /// 0: no limit.
    pub memory_limit: u64,
}

/// Counters of a network interface, as the pod sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// A running container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerFigures {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    /// As the pod's spec names it.
    pub image: String,
    pub cgroup: String,
    /// Nanoseconds since 1970.
    pub started_at: i64,
    pub used: Figures,
}

/// A ready sandbox with its running containers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFigures {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    pub cgroup: String,
    pub created_at: i64,
    /// The pod's own group.
    pub used: Figures,
    /// Empty when the pod is on the node's network.
    pub network: Vec<Interface>,
    pub containers: Vec<ContainerFigures>,
}

/// Reads `/proc/net/dev`; the loopback is nobody's traffic.
pub(crate) fn interfaces(text: &str) -> Vec<Interface> {
    let one = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let n: Vec<u64> = rest.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = *n.as_slice()
        else {
            return None;
        };
        let name = name.trim().to_owned();
        (name != "lo").then_some(Interface {
            name,
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        })
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_without_the_loopback() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0:1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n";
        let all = interfaces(text);
        assert_eq!(all.len(), 1);
        let Interface { name, rx_bytes, rx_dropped, tx_bytes, tx_dropped, .. } = &all[0];
        assert_eq!((&**name, *rx_bytes, *rx_dropped, *tx_bytes, *tx_dropped), ("eth0", 1, 4, 5, 8));
    }
}
