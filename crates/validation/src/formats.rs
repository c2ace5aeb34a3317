//! The syntax of single values that several kinds share: ports, keys, addresses, paths, signers. Each
//! returns its faults in upstream's words (apimachinery `util/validation`), none when valid.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Says `what (e.g. 'a',  or 'b', regex used for validation is 're')`.
fn pattern(what: &str, examples: &[&str], regex: &str) -> String {
    let shown: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    match shown.is_empty() {
        true => format!("{what} (regex used for validation is '{regex}')"),
        false => {
            format!("{what} (e.g. {}regex used for validation is '{regex}')", shown.join(" or "))
        }
    }
}

fn all(text: &str, allowed: fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}

/// A number that may be a port.
pub(crate) fn port_number(port: i64) -> Option<&'static str> {
    (!(1..=65535).contains(&port)).then_some("must be between 1 and 65535, inclusive")
}

/// IANA service name.
pub(crate) fn port_name(text: &str) -> Vec<String> {
    let mut faults: Vec<&str> = Vec::new();
    if text.len() > 15 {
        faults.push("must be no more than 15 characters");
    }
    if !all(text, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-') {
        faults.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !text.bytes().any(|c| c.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)");
    }
    if text.contains("--") {
        faults.push("must not contain consecutive hyphens");
    }
    if text.starts_with('-') || text.ends_with('-') {
        faults.push("must not begin or end with a hyphen");
    }
    faults.into_iter().map(str::to_owned).collect()
}

/// A key of a ConfigMap or Secret.
pub(crate) fn config_key(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push("must be no more than 253 characters".to_owned());
    }
    if !all(text, |c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
        faults.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            &["key.name", "KEY_NAME", "key-name"],
            "[-._a-zA-Z0-9]+",
        ));
    }
    match text {
        "." => faults.push("must not be '.'".into()),
        ".." => faults.push("must not be '..'".into()),
        _ if text.starts_with("..") => faults.push("must not start with '..'".into()),
        _ => {}
    }
    faults
}

/// An environment variable's name, as relaxed by KEP-4369.
pub(crate) fn env_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    if text.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".into()]
}

/// A C identifier.
pub(crate) fn c_identifier(text: &str) -> Vec<String> {
    let starts = text.bytes().next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_');
    if starts && all(text, |c| c.is_ascii_alphanumeric() || c == b'_') {
        return Vec::new();
    }
    vec![pattern(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
        &["my_name", "MY_NAME", "MyName"],
        "[A-Za-z_][A-Za-z0-9_]*",
    )]
}

pub(crate) fn header_name(text: &str) -> Vec<String> {
    if all(text, |c| c.is_ascii_alphanumeric() || c == b'-') {
        return Vec::new();
    }
    vec![pattern(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        &["X-Header-Name"],
        "[-A-Za-z0-9]+",
    )]
}

/// The number before a percent sign.
pub(crate) fn percent_of(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%')?;
    if !all(digits, |c| c.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(i64::MAX))
}

pub(crate) fn percent(text: &str) -> Vec<String> {
    if percent_of(text).is_some() {
        return Vec::new();
    }
    vec![pattern(
        "a valid percent string must be a numeric string followed by an ending '%'",
        &["1%", "93%"],
        "[0-9]+%",
    )]
}

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";

/// `*.` and a DNS subdomain.
pub(crate) fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push("must be no more than 253 characters".to_owned());
    }
    let rest = text.strip_prefix("*.");
    let shaped = rest.is_some_and(|rest| rest.split('.').all(is_lower_label));
    if !shaped {
        faults.push(pattern(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &["*.example.com"],
            &format!("\\*\\.{LABEL}(\\.{LABEL})*"),
        ));
    }
    faults
}

fn is_lower_label(part: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(part.bytes().next())
        && edge(part.bytes().last())
        && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

/// A DNS search path: subdomains whose labels may hold underscores.
pub(crate) fn search_domain(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 253 {
        faults.push("must be no more than 253 characters".to_owned());
    }
    let lower = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        part.bytes().next().is_some_and(lower)
            && part.bytes().last().is_some_and(lower)
            && part.bytes().all(|c| lower(c) || matches!(c, b'-' | b'_'))
    };
    if !text.split('.').all(label) {
        let one = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
        faults.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            &["example.com"],
            &format!("{one}(\\.{one})*"),
        ));
    }
    faults
}

/// An address as Go's older parser reads it: IPv4 octets may have leading zeros.
pub(crate) fn sloppy_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    sloppy_v4(text).map(IpAddr::V4)
}

fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if !all(part, |c| c.is_ascii_digit()) {
            return None;
        }
        *octet = part
            .trim_start_matches('0')
            .parse::<u8>()
            .or_else(|e| if part.bytes().all(|c| c == b'0') { Ok(0) } else { Err(e) })
            .ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

pub(crate) fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// An address: strictly written (KEP-4858), though perhaps not in canonical form.
pub(crate) fn ip(text: &str) -> Vec<String> {
    let Some(parsed) = sloppy_ip(text) else {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()];
    };
    let mut faults = Vec::new();
    if text.parse::<IpAddr>().is_err() {
        faults.push("must not have leading 0s".into());
    }
    if is_mapped(parsed) {
        faults.push("must not be an IPv4-mapped IPv6 address".into());
    }
    faults
}

/// An address in canonical form.
pub(crate) fn canonical_ip(text: &str) -> Vec<String> {
    let faults = ip(text);
    match text.parse::<IpAddr>() {
        Ok(parsed) if faults.is_empty() && parsed.to_string() != text => {
            vec![format!("must be in canonical form (\"{parsed}\")")]
        }
        _ => faults,
    }
}

/// Network and prefix length as Go's older parser reads them.
pub(crate) fn sloppy_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/')?;
    let ip = sloppy_ip(ip)?;
    if !all(bits, |c| c.is_ascii_digit()) {
        return None;
    }
    let bits: u8 = bits.parse().ok()?;
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

pub(crate) fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from(u32::from(v4) & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from(u128::from(v6) & mask).into()
        }
    }
}

/// Is the address in the network?
pub(crate) fn contains((network, bits): (IpAddr, u8), ip: IpAddr) -> bool {
    network.is_ipv4() == ip.is_ipv4() && masked(ip, bits) == masked(network, bits)
}

/// A network, strictly written.
pub(crate) fn cidr(text: &str) -> Vec<String> {
    let Some((address, bits)) = sloppy_cidr(text) else {
        return vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".into()];
    };
    let (written, length) = text.split_once('/').unwrap_or((text, ""));
    let fault = if written.parse::<IpAddr>().is_err() || (length.starts_with('0') && length != "0")
    {
        "must not have leading 0s in IP or prefix length"
    } else if is_mapped(address) {
        "must not have an IPv4-mapped IPv6 address"
    } else if masked(address, bits) != address {
        "must not have bits set beyond the prefix length"
    } else {
        return Vec::new();
    };
    vec![fault.into()]
}

/// A network in canonical form.
pub(crate) fn canonical_cidr(text: &str) -> Vec<String> {
    let faults = cidr(text);
    match sloppy_cidr(text) {
        Some((ip, bits)) if faults.is_empty() && format!("{ip}/{bits}") != text => {
            vec![format!("must be in canonical form (\"{ip}/{bits}\")")]
        }
        _ => faults,
    }
}

/// A path without `..` steps.
pub(crate) fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|step| step == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_strict_but_known_when_sloppy() {
        assert!(ip("10.0.0.1").is_empty());
        assert_eq!(ip("010.0.0.1"), ["must not have leading 0s"]);
        assert_eq!(ip("::ffff:1.2.3.4"), ["must not be an IPv4-mapped IPv6 address"]);
        assert_eq!(ip("x").len(), 1);
        assert_eq!(canonical_ip("2001:db8:0::1"), ["must be in canonical form (\"2001:db8::1\")"]);
    }

    #[test]
    fn networks_have_no_host_bits() {
        assert!(
            cidr("10.0.0.0/8").is_empty()
                && cidr("::/0").is_empty()
                && cidr("0.0.0.0/0").is_empty()
        );
        assert_eq!(cidr("10.0.0.1/8"), ["must not have bits set beyond the prefix length"]);
        assert_eq!(cidr("10.0.0.0/08"), ["must not have leading 0s in IP or prefix length"]);
        assert_eq!(cidr("10.0.0.0/33").len(), 1);
    }

    #[test]
    fn port_names_tell_every_fault() {
        assert!(port_name("http").is_empty());
        assert_eq!(port_name("-1--").len(), 3);
        assert_eq!(port_name("").len(), 2);
    }
}
