//! Ranges of IP addresses.

use std::fmt;
use std::net::IpAddr;

use super::{Answer, Function, ip};
use crate::error::Error;
use crate::value::Value;

/// An address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub(crate) ip: IpAddr,
    pub(crate) bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "cidr" => |args| {
            let [Value::String(text)] = args else { return None };
            Some(parse(text).map(Value::Cidr))
        },
        "isCIDR" => |args| {
            let [Value::String(text)] = args else { return None };
            Some(Ok(Value::Bool(parse(text).is_ok())))
        },
        "containsIP" => |args| match args {
            [Value::Cidr(cidr), Value::Ip(ip)] => Some(Ok(Value::Bool(cidr.contains(*ip)))),
            [Value::Cidr(cidr), Value::String(text)] => {
                Some(ip::parse(text).map(|ip| Value::Bool(cidr.contains(ip))))
            }
            _ => None,
        },
        "containsCIDR" => |args| match args {
            [Value::Cidr(cidr), Value::Cidr(other)] => Some(Ok(Value::Bool(cidr.covers(other)))),
            [Value::Cidr(cidr), Value::String(text)] => {
                Some(parse(text).map(|other| Value::Bool(cidr.covers(&other))))
            }
            _ => None,
        },
        "prefixLength" => |args| {
            let [Value::Cidr(cidr)] = args else { return None };
            Some(Ok(Value::Int(cidr.bits.into())))
        },
        "masked" => |args| {
            let [Value::Cidr(cidr)] = args else { return None };
            Some(Ok(Value::Cidr(Cidr { ip: masked(cidr.ip, cidr.bits), bits: cidr.bits })))
        },
        _ => return None,
    })
}

pub(super) fn ip<'v>(args: &[Value<'v>]) -> Answer<'v> {
    match args {
        [Value::Cidr(cidr)] => Some(Ok(Value::Ip(cidr.ip))),
        _ => None,
    }
}

impl Cidr {
    fn contains(&self, ip: IpAddr) -> bool {
        self.ip.is_ipv4() == ip.is_ipv4() && masked(self.ip, self.bits) == masked(ip, self.bits)
    }

    fn covers(&self, other: &Cidr) -> bool {
        self.bits <= other.bits && self.contains(other.ip)
    }
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

fn parse(text: &str) -> Result<Cidr, Error> {
    const PLACE: &str = "network address parse error during conversion from string: ";
    let refuse =
        |why: String| Error::new(format!("{PLACE}{PLACE}netip.ParsePrefix({text:?}): {why}"));
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| refuse("no '/'".to_owned()))?;
    if address.contains('%') {
        return Err(refuse("IPv6 zones cannot be present in a prefix".to_owned()));
    }
    let ip: IpAddr = address
        .parse()
        .map_err(|_| refuse(format!("ParseAddr({address:?}): unable to parse IP")))?;
    if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err(Error::new(format!("{PLACE}IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    let plain = bits == "0" || (!bits.starts_with('0') && bits.bytes().all(|b| b.is_ascii_digit()));
    if !plain || bits.is_empty() {
        return Err(refuse(format!("bad bits after slash: {bits:?}")));
    }
    let most = if ip.is_ipv4() { 32 } else { 128 };
    match bits.parse::<u8>() {
        Ok(bits) if bits <= most => Ok(Cidr { ip, bits }),
        _ => Err(refuse("prefix length out of range".to_owned())),
    }
}
