//! Upstream name servers from a text like resolv.conf.

use std::net::{IpAddr, SocketAddr};

/// Name servers use port 53.
const PORT: u16 = 53;

/// More than the C library's three serve nobody: each costs a time-out when all are down.
const MAX_UPSTREAMS: usize = 3;

/// The `nameserver` lines, without the addresses in `own` (asking ourselves would never end).
pub fn upstreams(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())??;
        // A link-local address may carry its link ("fe80::1%eth0"), which a SocketAddr cannot here.
        address.parse::<IpAddr>().ok()
    });
    let foreign = servers.filter(|ip| !own.contains(ip));
    foreign.take(MAX_UPSTREAMS).map(|ip| SocketAddr::new(ip, PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_and_other_lines_are_left_out() {
        let text = "# c\nnameserver 10.43.0.10\nsearch a b\n nameserver 192.0.2.1 \nnameserver x\n\
                    nameserver fe80::1%eth0\nnameserver 2001:db8::1\n";
        let own = ["10.43.0.10".parse().unwrap()];
        let found: Vec<_> = upstreams(text, &own).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53"]);
    }
}
