//! Cuts the cluster's pod networks into one network a node.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Networks in use, and where to look for the next free one.
#[derive(Debug)]
pub(crate) struct Pool {
    cluster: IpNet,
    node_prefix: u8,
    used: HashSet<u64>,
    next: u64,
}

impl Pool {
    /// `None` when a node's network would not fit into the cluster's.
    pub(crate) fn new(cluster: IpNet, node_prefix: u8) -> Option<Pool> {
        let fits = node_prefix >= cluster.prefix_len() && node_prefix <= cluster.max_prefix_len();
        let cluster = cluster.trunc();
        fits.then(|| Pool { cluster, node_prefix, used: HashSet::new(), next: 0 })
    }

    fn size(&self) -> u64 {
        // 2^32 networks are more than there are nodes; the shift stays in range.
        1 << (self.node_prefix - self.cluster.prefix_len()).min(32)
    }

    fn nth(&self, n: u64) -> IpNet {
        let shift = u32::from(self.cluster.max_prefix_len() - self.node_prefix);
        let offset = u128::from(n).checked_shl(shift).unwrap_or(0);
        let address = match self.cluster.network() {
            IpAddr::V4(base) => {
                let offset = u32::try_from(offset).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(base) | offset))
            }
            IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base) | offset)),
        };
        IpNet::new(address, self.node_prefix).expect("the prefix was checked in `new`")
    }

    /// The place of a network in this pool, if it is one of it.
    fn place(&self, network: &IpNet) -> Option<u64> {
        if network.prefix_len() != self.node_prefix || !self.cluster.contains(network) {
            return None;
        }
        let shift = u32::from(self.cluster.max_prefix_len() - self.node_prefix);
        let offset = match (network.network(), self.cluster.network()) {
            (IpAddr::V4(a), IpAddr::V4(base)) => u128::from(u32::from(a) - u32::from(base)),
            (IpAddr::V6(a), IpAddr::V6(base)) => u128::from(a) - u128::from(base),
            _ => return None,
        };
        u64::try_from(offset.checked_shr(shift).unwrap_or(0)).ok()
    }

    /// Notes a network that a node has.
    pub(crate) fn occupy(&mut self, network: &IpNet) {
        self.used.extend(self.place(network));
    }

    pub(crate) fn release(&mut self, network: &IpNet) {
        if let Some(place) = self.place(network) {
            self.used.remove(&place);
        }
    }

    /// A free network, now used; the longest unused first, so that addresses rest.
    pub(crate) fn take(&mut self) -> Option<IpNet> {
        let size = self.size();
        if self.used.len() as u64 >= size {
            return None;
        }
        let free = (0..size).map(|i| (self.next + i) % size).find(|n| !self.used.contains(n))?;
        self.used.insert(free);
        self.next = (free + 1) % size;
        Some(self.nth(free))
    }
}
