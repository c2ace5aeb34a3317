//! nf_tables by netlink: an encoder for atomic batches, and a watch for foreign changes.
//!
//! Why so: no program is run, and a batch is one send, applied wholly or not at all. [`expr`] writes
//! a rule's expressions, [`Batch`] collects the changes of one table, [`Nft::commit`] sends them,
//! [`watch`] tells when somebody else has changed the table. What a rule set means is the caller's.

pub mod expr;
pub mod set;
pub mod watch;

use std::io;

use crate::netlink::msg::{Writer, attribute, be_u32, be_u64, text};
use crate::netlink::{NetlinkError, Socket};
use crate::netns::NetNs;

pub use expr::{Exprs, Verdict};
pub use set::{DataType, SetKind, SetSpec};

/// Address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    Inet = 1,
    Ipv4 = 2,
    Ipv6 = 10,
}

/// Where a base chain sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A base chain: its type (`nat` or `filter`), hook and priority.
#[derive(Debug, Clone, Copy)]
pub struct BaseChain {
    pub kind: &'static str,
    pub hook: Hook,
    pub priority: i32,
}

#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("change the firewall table {table}: {operation} refused: {source}")]
    Refused { table: String, operation: String, source: io::Error },
    #[error("the kernel did not answer the change of the firewall table {0}")]
    NoAnswer(String),
}

/// A netfilter socket of one namespace.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
    send_buffer: usize,
}

/// Changes of one table, in the order they are made; the kernel applies all or none.
#[derive(Debug)]
pub struct Batch {
    family: Family,
    table: String,
    writer: Writer,
    /// What each message does, for errors; the place in the list is its number in the batch.
    operations: Vec<(&'static str, String)>,
    last_at: usize,
    anonymous_sets: u32,
}

/// A set that lives in one rule; see [`Batch::anonymous`].
#[derive(Debug, Clone)]
pub struct AnonymousSet {
    pub(crate) name: &'static str,
    pub(crate) id: u32,
}

/// A table as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableState {
    pub handle: u64,
    /// Chains and sets in it.
    pub uses: u32,
}

pub(crate) const SUBSYSTEM: u16 = 10;
pub(crate) const GET_TABLE: u16 = 1;
const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DEL_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DEL_RULE: u16 = 8;
pub(crate) const NEW_SET: u16 = 9;
const DEL_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DEL_ELEMENT: u16 = 14;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// Bytes of elements per message: the list is one attribute, whose length has 16 bits.
const MAX_ELEMENT_BYTES: usize = 48 * 1024;

/// Bytes a socket may send at once without asking: half the usual `wmem_default`.
const DEFAULT_SEND_BYTES: usize = 100 * 1024;

impl Nft {
    pub fn open(ns: Option<&NetNs>) -> Result<Self, NftError> {
        let socket = Socket::open(libc::NETLINK_NETFILTER, ns)?;
        Ok(Nft { socket, send_buffer: DEFAULT_SEND_BYTES })
    }

    /// Where this socket's changes come from, as [`watch`] sees it.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Applies the batch wholly, or not at all.
    pub fn commit(&mut self, mut batch: Batch) -> Result<(), NftError> {
        if batch.is_empty() {
            return Ok(());
        }
        let last = u32::try_from(batch.operations.len()).unwrap_or(u32::MAX);
        batch.writer.add_flags(batch.last_at, ACK);
        let end = batch.writer.netfilter(BATCH_END, REQUEST, last + 1, 0, SUBSYSTEM);
        batch.writer.end(end);
        self.reserve(batch.writer.len())?;
        self.socket.send(batch.writer.bytes())?;
        let (mut answered, mut refused) = (false, None);
        // The kernel has worked the batch off inside `send`: every answer is here already.
        while self.socket.receive(|message| match message.error_code() {
            Some(0) => answered |= message.sequence == last,
            Some(code) if refused.is_none() => refused = Some((message.sequence, code)),
            _ => {}
        })? {}
        match refused {
            Some((sequence, code)) => Err(batch.refusal(sequence, code)),
            None if answered => Ok(()),
            None => Err(NftError::NoAnswer(batch.table)),
        }
    }

    /// What the kernel says of a table; nothing when there is none.
    pub fn table(&mut self, family: Family, name: &str) -> Result<Option<TableState>, NftError> {
        let mut writer = Writer::default();
        let sequence = self.socket.next_sequence();
        let kind = SUBSYSTEM << 8 | GET_TABLE;
        let open = writer.netfilter(kind, REQUEST | ACK, sequence, family as u8, 0);
        writer.attr_str(1, name);
        writer.end(open);
        let mut state = None;
        let what = || format!("look up the firewall table {name}");
        let answer = self.socket.exchange(writer.bytes(), sequence, &what, |message| {
            let body = message.payload.get(GENERIC_HEADER_BYTES..).unwrap_or_default();
            state = Some(TableState {
                uses: attribute(body, 3).and_then(be_u32).unwrap_or_default(),
                handle: attribute(body, 4).and_then(be_u64).unwrap_or_default(),
            });
        });
        match answer {
            Err(e) if e.errno() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e.into()),
            Ok(()) => Ok(state),
        }
    }

    /// Base chains that drop forwarded packets unless a rule says otherwise, as "table chain".
    pub fn dropping_forward_chains(&mut self) -> Result<Vec<String>, NftError> {
        let mut writer = Writer::default();
        let sequence = self.socket.next_sequence();
        let open = writer.netfilter(SUBSYSTEM << 8 | GET_CHAIN, REQUEST | DUMP, sequence, 0, 0);
        writer.end(open);
        let mut found = Vec::new();
        let what = || "list firewall chains".to_owned();
        self.socket.exchange(writer.bytes(), sequence, &what, |message| {
            let body = message.payload.get(GENERIC_HEADER_BYTES..).unwrap_or_default();
            let hook = attribute(body, 4).and_then(|hook| attribute(hook, 1)).and_then(be_u32);
            let policy = attribute(body, 5).and_then(be_u32);
            if hook == Some(Hook::Forward as u32) && policy == Some(expr::DROP) {
                let name = |kind| attribute(body, kind).map(text).unwrap_or_default();
                found.push(format!("{} {}", name(1), name(3)));
            }
        })?;
        Ok(found)
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), NftError> {
        if bytes > self.send_buffer {
            // The kernel counts its own bookkeeping too; twice the length has been enough for nft.
            self.socket.grow_send_buffer(bytes * 2)?;
            self.send_buffer = bytes;
        }
        Ok(())
    }
}

/// Bytes of `nfgenmsg`, which every netfilter message starts with.
pub(crate) const GENERIC_HEADER_BYTES: usize = 4;

impl Batch {
    pub fn new(family: Family, table: impl Into<String>) -> Self {
        let mut writer = Writer::default();
        let open = writer.netfilter(BATCH_BEGIN, REQUEST, 0, 0, SUBSYSTEM);
        writer.end(open);
        Batch {
            family,
            table: table.into(),
            writer,
            operations: Vec::new(),
            last_at: 0,
            anonymous_sets: 0,
        }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    pub fn add_table(&mut self) {
        self.message(NEW_TABLE, CREATE, "add table", "", |_| {});
    }

    /// Deletes the table with everything in it; it must exist, so add it first.
    pub fn delete_table(&mut self) {
        self.message(DEL_TABLE, 0, "delete table", "", |_| {});
    }

    pub fn add_base_chain(&mut self, name: &str, base: BaseChain) {
        self.message(NEW_CHAIN, CREATE, "add base chain", name, |writer| {
            writer.attr_str(3, name);
            let hook = writer.nest(4);
            writer.attr_u32(1, base.hook as u32);
            writer.attr(2, &base.priority.to_be_bytes());
            writer.end_nest(hook);
            writer.attr_u32(5, expr::ACCEPT);
            writer.attr_str(7, base.kind);
        });
    }

    pub fn add_chain(&mut self, name: &str) {
        self.message(NEW_CHAIN, CREATE, "add chain", name, |writer| writer.attr_str(3, name));
    }

    /// Deletes a chain, which must be without rules and without references.
    pub fn delete_chain(&mut self, name: &str) {
        self.message(DEL_CHAIN, 0, "delete chain", name, |writer| writer.attr_str(3, name));
    }

    /// Deletes every rule of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.message(DEL_RULE, 0, "flush chain", name, |writer| writer.attr_str(2, name));
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, exprs: &Exprs) {
        self.message(NEW_RULE, CREATE | APPEND, "add rule to", chain, |writer| {
            writer.attr_str(2, chain);
            let list = writer.nest(4);
            writer.append(exprs.writer());
            writer.end_nest(list);
        });
    }

    pub fn add_set(&mut self, name: &str, spec: &SetSpec) {
        self.message(NEW_SET, CREATE, "add set", name, |writer| set::write(writer, name, 0, spec));
    }

    pub fn delete_set(&mut self, name: &str) {
        self.message(DEL_SET, 0, "delete set", name, |writer| writer.attr_str(2, name));
    }

    /// Makes a set for the next rule alone, with its elements; use it in [`Exprs::lookup_in`].
    pub fn anonymous<'e>(
        &mut self,
        spec: &SetSpec,
        elements: impl IntoIterator<Item = set::Element<'e>>,
    ) -> AnonymousSet {
        self.anonymous_sets += 1;
        let id = self.anonymous_sets;
        let name = if spec.is_map() { "__map%d" } else { "__set%d" };
        self.message(NEW_SET, CREATE, "add set", name, |writer| {
            set::write(writer, name, id, &spec.clone().anonymous());
        });
        self.elements(NEW_ELEMENT, CREATE, (name, id), elements);
        AnonymousSet { name, id }
    }

    pub fn add_elements<'e>(
        &mut self,
        set: &str,
        elements: impl IntoIterator<Item = set::Element<'e>>,
    ) {
        self.elements(NEW_ELEMENT, CREATE, (set, 0), elements);
    }

    pub fn delete_elements<'e>(
        &mut self,
        set: &str,
        elements: impl IntoIterator<Item = set::Element<'e>>,
    ) {
        self.elements(DEL_ELEMENT, 0, (set, 0), elements);
    }

    fn elements<'e>(
        &mut self,
        kind: u16,
        flags: u16,
        (set, id): (&str, u32),
        elements: impl IntoIterator<Item = set::Element<'e>>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            let what = if kind == NEW_ELEMENT { "add elements to" } else { "delete elements of" };
            self.message(kind, flags, what, set, |writer| {
                writer.attr_str(2, set);
                if id != 0 {
                    writer.attr_u32(4, id);
                }
                let list = writer.nest(3);
                let start = writer.len();
                while writer.len() - start < MAX_ELEMENT_BYTES {
                    let Some(element) = elements.next() else { break };
                    set::write_element(writer, &element);
                }
                writer.end_nest(list);
            });
        }
    }

    /// One message: the table's name comes first in every kind of them.
    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        what: &'static str,
        name: &str,
        body: impl FnOnce(&mut Writer),
    ) {
        self.operations.push((what, name.to_owned()));
        let sequence = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
        self.last_at = self.writer.len();
        let kind = SUBSYSTEM << 8 | kind;
        let open = self.writer.netfilter(kind, REQUEST | flags, sequence, self.family as u8, 0);
        self.writer.attr_str(1, &self.table);
        body(&mut self.writer);
        self.writer.end(open);
    }

    fn refusal(self, sequence: u32, code: i32) -> NftError {
        let at = usize::try_from(sequence).unwrap_or(0);
        let operation = match at.checked_sub(1).and_then(|at| self.operations.get(at)) {
            Some((what, name)) => format!("{what} {name}"),
            None => "the whole change".to_owned(),
        };
        let source = io::Error::from_raw_os_error(code);
        NftError::Refused { table: self.table, operation, source }
    }
}
