//! Tells when somebody else has changed a table: `nft flush ruleset` by an administrator's script
//! must not cut the cluster's services off for long.
//!
//! Our own changes are told apart by the netlink port they came from. When notifications were lost
//! the watcher says so, and the caller compares what the kernel has with what it should have.

use std::os::fd::{AsRawFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{GENERIC_HEADER_BYTES, NftError, SUBSYSTEM};
use crate::netlink::msg::{attribute, text};
use crate::netlink::{NetlinkError, Socket};
use crate::netns::NetNs;

/// What has been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Another program changed the table.
    Foreign,
    /// Notifications were lost: it may have.
    Lost,
}

/// Watches one table. Needs a tokio runtime.
#[derive(Debug)]
pub struct Watch {
    socket: AsyncFd<SocketFd>,
    table: String,
    own_port: u32,
}

#[derive(Debug)]
struct SocketFd(Socket);

impl AsRawFd for SocketFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// Bytes of unread notifications: our own change of a thousand services fits.
const BUFFER_BYTES: u32 = 4 << 20;

impl Watch {
    /// Watches `table` inside `ns`, ignoring changes from the socket with port `own_port`.
    pub fn open(ns: Option<&NetNs>, table: &str, own_port: u32) -> Result<Self, NftError> {
        let socket = Socket::open(libc::NETLINK_NETFILTER, ns)?;
        socket.grow_receive_buffer(BUFFER_BYTES)?;
        socket.join(GROUP)?;
        // SAFETY: the descriptor is owned by the socket, which moves into the AsyncFd, is never
        // replaced there, and closes only when the AsyncFd drops it.
        let socket = unsafe {
            AsyncFd::register_with_interest(SocketFd(socket), Interest::READABLE)
                .map_err(|e| NetlinkError::Open(e.into_parts().1))?
        };
        Ok(Watch { socket, table: table.to_owned(), own_port })
    }

    /// Waits for the next sign that the table is not what we made it. Safe to cancel.
    pub async fn next(&mut self) -> Result<Seen, NftError> {
        loop {
            let mut ready = self.socket.readable_mut().await.map_err(NetlinkError::Receive)?;
            let (table, own_port) = (&self.table, self.own_port);
            let mut foreign = false;
            let more = ready.get_inner_mut().0.receive(|message| {
                foreign |=
                    message.port != own_port && concerns(table, message.kind, message.payload);
            });
            match more {
                Ok(true) => {}
                Ok(false) => ready.clear_ready(),
                Err(NetlinkError::Receive(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Seen::Lost);
                }
                Err(e) => return Err(e.into()),
            }
            if foreign {
                return Ok(Seen::Foreign);
            }
        }
    }
}

/// Whether a notification is about `table`: every kind of them names its table first.
fn concerns(table: &str, kind: u16, payload: &[u8]) -> bool {
    kind >> 8 == SUBSYSTEM
        && kind & 0xff < NEW_GENERATION
        && payload
            .get(GENERIC_HEADER_BYTES..)
            .and_then(|body| attribute(body, 1))
            .is_some_and(|name| text(name) == table)
}

/// `NFT_MSG_NEWGEN`: comes after every change and names no table.
const NEW_GENERATION: u16 = 15;
