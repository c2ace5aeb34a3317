//! IP addresses. Zones and IPv4 inside IPv6 are refused, as in upstream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Answer, Function, cidr, either};
use crate::error::Error;
use crate::value::Value;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "ip" => |args| either(&[parsed, cidr::ip], args),
        "isIP" => |args| {
            let [Value::String(text)] = args else { return None };
            Some(Ok(Value::Bool(parse(text).is_ok())))
        },
        "ip.isCanonical" => |args| {
            let [Value::String(text)] = args else { return None };
            Some(parse(text).map(|ip| Value::Bool(ip.to_string() == **text)))
        },
        "family" => |args| {
            let [Value::Ip(ip)] = args else { return None };
            Some(Ok(Value::Int(if ip.is_ipv4() { 4 } else { 6 })))
        },
        "isUnspecified" => |args| is(args, IpAddr::is_unspecified),
        "isLoopback" => |args| is(args, IpAddr::is_loopback),
        "isLinkLocalMulticast" => |args| is(args, is_link_local_multicast),
        "isLinkLocalUnicast" => |args| is(args, is_link_local_unicast),
        "isGlobalUnicast" => |args| is(args, is_global_unicast),
        _ => return None,
    })
}

fn is<'v>(args: &[Value<'v>], f: fn(&IpAddr) -> bool) -> Answer<'v> {
    match args {
        [Value::Ip(ip)] => Some(Ok(Value::Bool(f(ip)))),
        _ => None,
    }
}

fn parsed<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let [Value::String(text)] = args else { return None };
    Some(parse(text).map(Value::Ip))
}

pub(super) fn parse(text: &str) -> Result<IpAddr, Error> {
    if let Some((address, zone)) = text.split_once('%')
        && address.parse::<Ipv6Addr>().is_ok()
        && !zone.is_empty()
    {
        return Err(Error::new(format!("IP address {text:?} with zone value is not allowed")));
    }
    let ip: IpAddr = text.parse().map_err(|_| {
        let why = why_not(text);
        Error::new(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): {why}"
        ))
    })?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(Error::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        ip => Ok(ip),
    }
}

fn why_not(text: &str) -> &'static str {
    let fields: Vec<&str> = text.split('.').collect();
    let numeric = |field: &&str| !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
    if text.contains(':') || !fields.iter().all(numeric) || fields.len() < 2 {
        return "unable to parse IP";
    }
    if fields.iter().any(|field| field.len() > 1 && field.starts_with('0')) {
        return "IPv4 field has octet with leading zero";
    }
    if fields.iter().any(|field| field.parse::<u8>().is_err()) {
        return "IPv4 field has value >255";
    }
    if fields.len() > 4 { "IPv4 address too long" } else { "IPv4 address too short" }
}

fn is_link_local_multicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_link_local_unicast(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// Everything else than special single addresses and link-local ones.
fn is_global_unicast(ip: &IpAddr) -> bool {
    *ip != IpAddr::V4(Ipv4Addr::BROADCAST)
        && !ip.is_unspecified()
        && !ip.is_loopback()
        && !ip.is_multicast()
        && !is_link_local_unicast(ip)
}
