//! Host names to addresses.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::timed_out;

/// Longest that a name may take to resolve.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The addresses of a host, which may be an address already. `/etc/hosts` and `/etc/resolv.conf` are
/// read at each call, so that changes count.
pub async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let bare = host.trim_matches(['[', ']']);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(vec![ip]);
    }
    let failed = |why: String| io::Error::other(format!("lookup {bare}: {why}"));
    let resolver = hickory_resolver::TokioResolver::builder_tokio();
    let resolver = resolver.and_then(|builder| builder.build());
    let resolver = resolver.map_err(|e| failed(e.to_string()))?;
    let found = tokio::time::timeout(TIMEOUT, resolver.lookup_ip(bare)).await;
    let found = found.map_err(|_| timed_out(&format!("lookup {bare}: i/o timeout")))?;
    let found: Vec<IpAddr> = found.map_err(|e| failed(e.to_string()))?.iter().collect();
    match found.is_empty() {
        true => Err(failed("no such host".into())),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_need_no_name_server() {
        let one = |ip: &str| vec![ip.parse::<IpAddr>().expect("an address")];
        assert_eq!(resolve("192.0.2.1").await.expect("an address"), one("192.0.2.1"));
        assert_eq!(resolve("[::1]").await.expect("an address"), one("::1"));
        assert!(resolve("localhost").await.expect("known").iter().all(IpAddr::is_loopback));
    }
}
