//! Addresses that may be dialled for somebody: whoever writes a node, a pod or endpoints must not
//! reach with them what is on the server's own machine or link.
//!
//! Rule: `net.IP.IsGlobalUnicast`, which upstream asks of proxied nodes and pods. Asked here of
//! the very addresses that are dialled, after names were resolved.

use std::net::{IpAddr, SocketAddr};

use api::Status;

const NOT_ALLOWED: &str = "address not allowed";

/// Neither loopback, link-local, multicast, broadcast nor unspecified. An IPv4 address written as an
/// IPv6 one is the same address.
pub(crate) fn is_proxyable(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast())
        }
        IpAddr::V6(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_multicast())
        }
    }
}

/// An address that was looked at; nothing else is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reachable(SocketAddr);

impl Reachable {
    pub(crate) fn of(ip: IpAddr, port: u16) -> Result<Reachable, Status> {
        match is_proxyable(ip) {
            true => Ok(Reachable(SocketAddr::new(ip, port))),
            false => Err(Status::bad_request(NOT_ALLOWED)),
        }
    }

    pub(crate) fn address(self) -> SocketAddr {
        self.0
    }
}

/// The address of a host that is given by address or by name: all that a name stands for must be
/// allowed.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Reachable, Status> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Reachable::of(ip, port);
    }
    let found = outgoing::resolve(host).await;
    let found = found.map_err(|e| Status::bad_request(e.to_string()))?;
    let all: Result<Vec<Reachable>, Status> =
        found.into_iter().map(|ip| Reachable::of(ip, port)).collect();
    all?.first().copied().ok_or_else(|| Status::bad_request("no addresses for hostname"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unicast_beyond_the_link_is_reached() {
        for refused in [
            "127.0.0.1",
            "127.255.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
        ] {
            let ip = refused.parse().expect("an address");
            assert!(!is_proxyable(ip), "{refused}");
            let told = Reachable::of(ip, 80).expect_err("refused");
            assert_eq!((told.code, told.message.as_str()), (400, "address not allowed"));
        }
        for allowed in ["10.0.0.1", "192.0.2.1", "8.8.8.8", "fd00::1", "2001:db8::1"] {
            assert!(is_proxyable(allowed.parse().expect("an address")), "{allowed}");
        }
    }

    #[tokio::test]
    async fn a_name_is_what_it_resolves_to() {
        let told = resolve("localhost", 80).await.expect_err("loopback");
        assert_eq!((told.code, told.message.as_str()), (400, "address not allowed"));
    }
}
