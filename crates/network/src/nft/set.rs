//! Sets and maps: their types as `nft list` understands them, and their elements.

use super::expr::{Verdict, write_verdict};
use crate::netlink::msg::Writer;

/// The type of one field of a key or value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DataType {
    Integer = 4,
    Ipv4 = 7,
    Ipv6 = 8,
    Protocol = 12,
    Port = 13,
}

/// What a set's elements are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetKind {
    Set,
    /// Keys lead to verdicts.
    Verdicts,
    /// Keys lead to values of these fields.
    Values(Vec<DataType>),
}

/// A set's declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSpec {
    pub key: Vec<DataType>,
    pub kind: SetKind,
    /// Entries are made by packets and die when not renewed for so long.
    pub timeout_ms: Option<u64>,
    anonymous: bool,
}

/// An element: its key and what it leads to.
#[derive(Debug)]
pub enum Element<'e> {
    Key(&'e [u8]),
    Verdict(&'e [u8], &'e Verdict),
    Value(&'e [u8], &'e [u8]),
}

const ANONYMOUS: u32 = 0x1;
const CONSTANT: u32 = 0x2;
const MAP: u32 = 0x8;
const TIMEOUT: u32 = 0x10;
const EVALUATED: u32 = 0x20;
/// `NFT_DATA_VERDICT`.
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// Bits per field in the type of a key of several fields.
const TYPE_BITS: u32 = 6;
/// Entries a map filled by packets may hold: a bound on what strangers can make us remember.
const MAX_DYNAMIC_ELEMENTS: u32 = 65_536;
/// Note for `nft list`: the key is a number in the machine's own byte order.
const HOST_ORDER_KEY: [u8; 6] = [0, 4, 1, 0, 0, 0];

impl SetSpec {
    pub fn set(key: &[DataType]) -> Self {
        SetSpec { key: key.to_vec(), kind: SetKind::Set, timeout_ms: None, anonymous: false }
    }

    pub fn verdicts(key: &[DataType]) -> Self {
        SetSpec { kind: SetKind::Verdicts, ..SetSpec::set(key) }
    }

    pub fn map(key: &[DataType], value: &[DataType]) -> Self {
        SetSpec { kind: SetKind::Values(value.to_vec()), ..SetSpec::set(key) }
    }

    pub fn with_timeout(self, timeout_ms: u64) -> Self {
        SetSpec { timeout_ms: Some(timeout_ms), ..self }
    }

    pub(crate) fn anonymous(self) -> Self {
        SetSpec { anonymous: true, ..self }
    }

    pub(crate) fn is_map(&self) -> bool {
        self.kind != SetKind::Set
    }

    fn flags(&self) -> u32 {
        let mut flags = 0;
        if self.anonymous {
            flags |= ANONYMOUS | CONSTANT;
        }
        if self.is_map() {
            flags |= MAP;
        }
        if self.timeout_ms.is_some() {
            flags |= TIMEOUT | EVALUATED;
        }
        flags
    }
}

impl DataType {
    fn bytes(self) -> u32 {
        match self {
            DataType::Integer | DataType::Ipv4 => 4,
            DataType::Ipv6 => 16,
            DataType::Protocol => 1,
            DataType::Port => 2,
        }
    }
}

pub(crate) fn write(writer: &mut Writer, name: &str, id: u32, spec: &SetSpec) {
    writer.attr_str(2, name);
    writer.attr_u32(3, spec.flags());
    writer.attr_u32(4, type_of(&spec.key));
    writer.attr_u32(5, length_of(&spec.key));
    match &spec.kind {
        SetKind::Set => {}
        SetKind::Verdicts => {
            writer.attr_u32(6, VERDICT_TYPE);
            writer.attr_u32(7, 0);
        }
        SetKind::Values(fields) => {
            writer.attr_u32(6, type_of(fields));
            writer.attr_u32(7, length_of(fields));
        }
    }
    // The kernel wants every set of a batch to have a number, named ones too.
    writer.attr_u32(10, id);
    if let Some(timeout) = spec.timeout_ms {
        writer.attr_u64(11, timeout);
        let desc = writer.nest(9);
        writer.attr_u32(1, MAX_DYNAMIC_ELEMENTS);
        writer.end_nest(desc);
    }
    if spec.key == [DataType::Integer] {
        writer.attr(13, &HOST_ORDER_KEY);
    }
}

pub(crate) fn write_element(writer: &mut Writer, element: &Element<'_>) {
    let nest = writer.nest(1);
    let key = match element {
        Element::Key(key) | Element::Verdict(key, _) | Element::Value(key, _) => key,
    };
    let data = writer.nest(1);
    writer.attr(1, key);
    writer.end_nest(data);
    match element {
        Element::Key(_) => {}
        Element::Verdict(_, verdict) => {
            let data = writer.nest(2);
            write_verdict(writer, verdict);
            writer.end_nest(data);
        }
        Element::Value(_, value) => {
            let data = writer.nest(2);
            writer.attr(1, value);
            writer.end_nest(data);
        }
    }
    writer.end_nest(nest);
}

fn type_of(fields: &[DataType]) -> u32 {
    fields.iter().fold(0, |sum, field| sum << TYPE_BITS | *field as u32)
}

/// Bytes of a key: with several fields each is padded to a register's four bytes.
fn length_of(fields: &[DataType]) -> u32 {
    match fields {
        [one] => one.bytes(),
        many => many.iter().map(|field| field.bytes().next_multiple_of(4)).sum(),
    }
}
