//! A rule's expressions: small steps that load registers, compare them and act.
//!
//! Registers are named by number as the kernel does: 8 to 23 are the sixteen 32-bit ones; a key of
//! several fields lies in consecutive registers, each field padded to four bytes.

use super::AnonymousSet;
use crate::netlink::msg::Writer;

/// First of the sixteen 32-bit registers.
pub const R0: u32 = 8;

pub(crate) const DROP: u32 = 0;
pub(crate) const ACCEPT: u32 = 1;

/// What happens to the packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// The expressions of one rule, in order.
#[derive(Debug, Default)]
pub struct Exprs {
    writer: Writer,
}

/// What `meta` can load.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum Meta {
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    Family = 15,
    Protocol = 16,
}

/// Length of an interface name in a register.
const NAME_BYTES: usize = 16;

impl Exprs {
    pub fn new() -> Self {
        Exprs::default()
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Only packets of IPv4, or only of IPv6.
    pub fn family(self, v6: bool) -> Self {
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        self.meta(Meta::Family, R0).equals(R0, &[u8::try_from(family).unwrap_or(0)])
    }

    pub fn meta(self, key: Meta, register: u32) -> Self {
        self.push("meta", |w| {
            w.attr_u32(2, key as u32);
            w.attr_u32(1, register);
        })
    }

    /// Only packets that came in by (or, negated, not by) the link `name`.
    pub fn input_link(self, name: &str, is: bool) -> Self {
        self.meta(Meta::InputName, R0).compare(R0, is, &padded_name(name))
    }

    pub fn output_link(self, name: &str, is: bool) -> Self {
        self.meta(Meta::OutputName, R0).compare(R0, is, &padded_name(name))
    }

    /// Loads the source address.
    pub fn source(self, v6: bool, register: u32) -> Self {
        if v6 {
            self.payload(NETWORK, 8, 16, register)
        } else {
            self.payload(NETWORK, 12, 4, register)
        }
    }

    /// Loads the destination address.
    pub fn destination(self, v6: bool, register: u32) -> Self {
        if v6 {
            self.payload(NETWORK, 24, 16, register)
        } else {
            self.payload(NETWORK, 16, 4, register)
        }
    }

    /// Loads the destination port of TCP, UDP or SCTP.
    pub fn destination_port(self, register: u32) -> Self {
        self.payload(TRANSPORT, 2, 2, register)
    }

    fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        self.push("payload", |w| {
            w.attr_u32(1, register);
            w.attr_u32(2, base);
            w.attr_u32(3, offset);
            w.attr_u32(4, length);
        })
    }

    pub fn equals(self, register: u32, value: &[u8]) -> Self {
        self.compare(register, true, value)
    }

    pub fn differs(self, register: u32, value: &[u8]) -> Self {
        self.compare(register, false, value)
    }

    fn compare(self, register: u32, is: bool, value: &[u8]) -> Self {
        self.push("cmp", |w| {
            w.attr_u32(1, register);
            w.attr_u32(2, u32::from(!is));
            let data = w.nest(3);
            w.attr(1, value);
            w.end_nest(data);
        })
    }

    /// register = register & mask ^ xor
    pub fn bitwise(self, register: u32, mask: &[u8], xor: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).unwrap_or(0);
        self.push("bitwise", |w| {
            w.attr_u32(1, register);
            w.attr_u32(2, register);
            w.attr_u32(3, length);
            let data = w.nest(4);
            w.attr(1, mask);
            w.end_nest(data);
            let data = w.nest(5);
            w.attr(1, xor);
            w.end_nest(data);
        })
    }

    /// Compares the address in `register` with a range of addresses.
    pub fn in_range(self, register: u32, range: &ipnet::IpNet, is: bool) -> Self {
        let (mask, net) = match range {
            ipnet::IpNet::V4(n) => (n.netmask().octets().to_vec(), n.network().octets().to_vec()),
            ipnet::IpNet::V6(n) => (n.netmask().octets().to_vec(), n.network().octets().to_vec()),
        };
        let zero = vec![0; mask.len()];
        self.bitwise(register, &mask, &zero).compare(register, is, &net)
    }

    /// Sets the bits `bits` of the packet's mark.
    pub fn set_mark_bits(self, bits: u32) -> Self {
        let mask = (!bits).to_ne_bytes();
        self.meta(Meta::Mark, R0).bitwise(R0, &mask, &bits.to_ne_bytes()).push("meta", |w| {
            w.attr_u32(2, Meta::Mark as u32);
            w.attr_u32(3, R0);
        })
    }

    /// Clears the bits `bits` of the packet's mark.
    pub fn clear_mark_bits(self, bits: u32) -> Self {
        let mask = (!bits).to_ne_bytes();
        self.meta(Meta::Mark, R0).bitwise(R0, &mask, &[0; 4]).push("meta", |w| {
            w.attr_u32(2, Meta::Mark as u32);
            w.attr_u32(3, R0);
        })
    }

    /// Only packets with (without) one of the bits `bits` in their mark.
    pub fn mark_has(self, bits: u32, is: bool) -> Self {
        self.meta(Meta::Mark, R0)
            .bitwise(R0, &bits.to_ne_bytes(), &[0; 4])
            .compare(R0, !is, &[0; 4])
    }

    /// Only packets whose connection was translated to another destination.
    pub fn was_redirected(self) -> Self {
        self.connection(CT_STATUS)
            .bitwise(R0, &IPS_DST_NAT.to_ne_bytes(), &[0; 4])
            .differs(R0, &[0; 4])
    }

    /// Only packets of connections in one of the states `states` (bits of `ct state`).
    pub fn state_in(self, states: u32) -> Self {
        self.connection(CT_STATE).bitwise(R0, &states.to_ne_bytes(), &[0; 4]).differs(R0, &[0; 4])
    }

    fn connection(self, key: u32) -> Self {
        self.push("ct", |w| {
            w.attr_u32(2, key);
            w.attr_u32(1, R0);
        })
    }

    /// Only packets whose source (destination) is one of this machine's own addresses.
    pub fn is_local(self, source: bool) -> Self {
        self.push("fib", |w| {
            w.attr_u32(1, R0);
            w.attr_u32(2, FIB_ADDRESS_TYPE);
            w.attr_u32(3, if source { 1 } else { 2 });
        })
        .equals(R0, &RTN_LOCAL.to_ne_bytes())
    }

    /// Only packets whose key in `register` is in the named set.
    pub fn in_set(self, set: &str, register: u32) -> Self {
        self.lookup(set, 0, register, None)
    }

    /// Looks the key in `register` up in the named map, into `into` (0: obey the verdict found).
    pub fn lookup_map(self, map: &str, register: u32, into: u32) -> Self {
        self.lookup(map, 0, register, Some(into))
    }

    /// The same in a set or map of this rule alone.
    pub fn lookup_in(self, set: &AnonymousSet, register: u32, into: Option<u32>) -> Self {
        self.lookup(set.name, set.id, register, into)
    }

    fn lookup(self, set: &str, id: u32, register: u32, into: Option<u32>) -> Self {
        self.push("lookup", |w| {
            w.attr_str(1, set);
            w.attr_u32(2, register);
            if let Some(into) = into {
                w.attr_u32(3, into);
            }
            if id != 0 {
                w.attr_u32(4, id);
            }
        })
    }

    /// Loads a random number below `modulus`.
    pub fn random(self, modulus: u32, register: u32) -> Self {
        self.push("numgen", |w| {
            w.attr_u32(1, register);
            w.attr_u32(2, modulus);
            w.attr_u32(3, 1);
            w.attr_u32(4, 0);
        })
    }

    /// Loads a constant.
    pub fn load(self, register: u32, value: &[u8]) -> Self {
        self.push("immediate", |w| {
            w.attr_u32(1, register);
            let data = w.nest(2);
            w.attr(1, value);
            w.end_nest(data);
        })
    }

    /// Puts the key in `register` into a set, or renews its life there.
    pub fn update_set(self, set: &str, register: u32, timeout_ms: u64) -> Self {
        self.push("dynset", |w| {
            w.attr_str(1, set);
            w.attr_u32(3, 1);
            w.attr_u32(4, register);
            w.attr_u64(6, timeout_ms);
        })
    }

    /// Sends the connection to the address and port in these registers.
    pub fn redirect(self, v6: bool, address: u32, port: u32) -> Self {
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        self.push("nat", |w| {
            w.attr_u32(1, 1);
            w.attr_u32(2, u32::try_from(family).unwrap_or(0));
            w.attr_u32(3, address);
            w.attr_u32(5, port);
            w.attr_u32(7, NAT_RANGE_ADDRESS_AND_PORT);
        })
    }

    /// Gives the connection this machine's address as its source, with a random port.
    pub fn masquerade(self) -> Self {
        self.push("masq", |w| w.attr_u32(1, NAT_RANDOM_FULLY))
    }

    /// Refuses the packet with "port unreachable".
    pub fn reject(self) -> Self {
        self.push("reject", |w| {
            w.attr_u32(1, 2);
            w.attr_u8(2, 1);
        })
    }

    pub fn verdict(self, verdict: &Verdict) -> Self {
        self.push("immediate", |w| {
            w.attr_u32(1, 0);
            let data = w.nest(2);
            write_verdict(w, verdict);
            w.end_nest(data);
        })
    }

    fn push(mut self, name: &str, body: impl FnOnce(&mut Writer)) -> Self {
        let element = self.writer.nest(1);
        self.writer.attr_str(1, name);
        let data = self.writer.nest(2);
        body(&mut self.writer);
        self.writer.end_nest(data);
        self.writer.end_nest(element);
        self
    }
}

pub(crate) fn write_verdict(writer: &mut Writer, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (ACCEPT, None),
        Verdict::Drop => (DROP, None),
        Verdict::Return => ((-5i32).cast_unsigned(), None),
        Verdict::Jump(chain) => ((-3i32).cast_unsigned(), Some(chain)),
        Verdict::Goto(chain) => ((-4i32).cast_unsigned(), Some(chain)),
    };
    let nest = writer.nest(2);
    writer.attr_u32(1, code);
    if let Some(chain) = chain {
        writer.attr_str(2, chain);
    }
    writer.end_nest(nest);
}

fn padded_name(name: &str) -> [u8; NAME_BYTES] {
    let mut padded = [0; NAME_BYTES];
    for (to, from) in padded.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    padded
}

/// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// `NFT_CT_STATE`, `NFT_CT_STATUS`, and the status bit of a translated destination.
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const IPS_DST_NAT: u32 = 1 << 5;
/// Bits of `ct state`.
pub const STATE_ESTABLISHED: u32 = 1 << 1;
pub const STATE_RELATED: u32 = 1 << 2;
pub const STATE_NEW: u32 = 1 << 3;
/// `NFT_FIB_RESULT_ADDRTYPE`, and the type of the machine's own addresses.
const FIB_ADDRESS_TYPE: u32 = 3;
const RTN_LOCAL: u32 = 2;
/// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`.
const NAT_RANGE_ADDRESS_AND_PORT: u32 = 0b11;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`: parallel connections must not pick the same port.
const NAT_RANDOM_FULLY: u32 = 1 << 4;
