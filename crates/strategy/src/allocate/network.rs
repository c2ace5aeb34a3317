//! The ranges that Services get their addresses and node ports from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Default `--service-node-port-range`.
pub const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;

/// The addresses Services get.
#[derive(Debug, Clone)]
pub struct ServiceNetwork {
    /// Network address and prefix length; one a family, the first is the default.
    pub ranges: Vec<(IpAddr, u8)>,
    pub node_ports: RangeInclusive<u16>,
}

impl ServiceNetwork {
    /// Parses `--service-cluster-ip-range`: one or two CIDRs, comma-separated.
    pub fn parse(text: &str) -> Result<ServiceNetwork, String> {
        let ranges: Result<Vec<_>, String> = text.split(',').map(parse_cidr).collect();
        Ok(ServiceNetwork { ranges: ranges?, node_ports: NODE_PORTS })
    }

    /// The first address of the first range: the `kubernetes` Service's.
    pub fn api_server_ip(&self) -> IpAddr {
        nth(self.ranges[0].0, 1)
    }

    /// The range of a family, if there is one.
    pub(super) fn range(&self, v6: bool) -> Option<(IpAddr, u8)> {
        self.ranges.iter().copied().find(|(ip, _)| ip.is_ipv6() == v6)
    }
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), String> {
    let invalid = || format!("invalid CIDR address: {text}");
    let (ip, bits) = text.trim().split_once('/').ok_or_else(invalid)?;
    let ip: IpAddr = ip.parse().map_err(|_| invalid())?;
    let bits: u8 = bits.parse().map_err(|_| invalid())?;
    let width = if ip.is_ipv4() { 32 } else { 128 };
    if bits >= width - 1 {
        return Err(format!("{text}: a range for Services needs at least four addresses"));
    }
    Ok((nth_masked(ip, bits), bits))
}

pub(super) fn nth_masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) & (u32::MAX << (32 - bits))).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & (u128::MAX << (128 - bits))).into(),
    }
}

pub(super) fn nth(base: IpAddr, n: u128) -> IpAddr {
    match base {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4).wrapping_add(n as u32)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6).wrapping_add(n)).into(),
    }
}

pub(super) fn contains((base, bits): (IpAddr, u8), ip: IpAddr) -> bool {
    base.is_ipv4() == ip.is_ipv4() && nth_masked(ip, bits) == base
}
