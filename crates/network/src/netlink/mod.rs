//! A blocking netlink socket of one namespace: send a request, read its answers.
//!
//! Why so: the kernel handles a netlink request inside the `send` call, so an exchange is two system
//! calls that never wait. An async stack around that costs a task per socket and half the speed of
//! attaching a pod (runtime.md §6.1). Messages of routing come typed from `netlink-packet-route`
//! ([`route`]); nf_tables and conntrack have no fitting crate and are written with [`msg`].

pub mod msg;
pub mod route;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::netns::{NetNs, NetNsError, run_in};

#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error(transparent)]
    Enter(#[from] NetNsError),
    #[error("open a netlink socket: {0}")]
    Open(io::Error),
    #[error("send a netlink request: {0}")]
    Send(io::Error),
    #[error("read a netlink answer: {0}")]
    Receive(io::Error),
    #[error("{operation}: {source}")]
    Refused { operation: String, source: io::Error },
    #[error("a netlink answer cannot be read: {0}")]
    Malformed(String),
}

impl NetlinkError {
    /// The kernel's error number, when the kernel refused the request.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// A netlink socket, bound to the namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One message of an answer.
#[derive(Debug)]
pub struct Received<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    pub sequence: u32,
    /// `nlmsg_pid`: in notifications, the socket whose request caused them.
    pub port: u32,
    pub payload: &'a [u8],
    whole: &'a [u8],
}

impl Received<'_> {
    /// The error number of an NLMSG_ERROR message (0: acknowledged), nothing for other messages.
    pub fn error_code(&self) -> Option<i32> {
        let code = self.payload.first_chunk::<4>()?;
        (self.kind == NLMSG_ERROR).then(|| i32::from_ne_bytes(*code).saturating_neg())
    }

    /// The message with its header, as typed decoders want it.
    pub fn whole(&self) -> &[u8] {
        self.whole
    }
}

/// Bytes of a receive buffer: the kernel fills dumps in pieces of at most 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;

impl Socket {
    /// Opens a socket of `protocol` (`NETLINK_ROUTE`, `NETLINK_NETFILTER`) inside `ns`.
    pub fn open(protocol: i32, ns: Option<&NetNs>) -> Result<Self, NetlinkError> {
        let (fd, port) = run_in(ns, || open_bound(protocol))?.map_err(NetlinkError::Open)?;
        Ok(Socket { fd, port, sequence: 0, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// This socket's address, as it stands in notifications of changes made through it.
    pub fn port(&self) -> u32 {
        self.port
    }

    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Receives notifications of multicast group `group` from now on.
    pub fn join(&self, group: u32) -> Result<(), NetlinkError> {
        set_option(&self.fd, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)
            .map_err(NetlinkError::Open)
    }

    /// Room for `bytes` in one send: the default would refuse a large batch.
    pub fn grow_send_buffer(&self, bytes: usize) -> Result<(), NetlinkError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX / 2);
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
            .map_err(NetlinkError::Send)
    }

    /// Room for `bytes` of notifications that nobody has read yet.
    pub fn grow_receive_buffer(&self, bytes: u32) -> Result<(), NetlinkError> {
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
            .map_err(NetlinkError::Receive)
    }

    pub fn send(&self, message: &[u8]) -> Result<(), NetlinkError> {
        // SAFETY: the pointer and length describe `message`, which outlives the call.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        if sent < 0 { Err(NetlinkError::Send(io::Error::last_os_error())) } else { Ok(()) }
    }

    /// Reads what has already arrived, one datagram, and calls `each` for its messages. Says
    /// whether there was one.
    pub fn receive(&mut self, mut each: impl FnMut(Received<'_>)) -> Result<bool, NetlinkError> {
        let length = match self.receive_datagram(libc::MSG_DONTWAIT) {
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(NetlinkError::Receive(e)),
        };
        for message in messages(&self.buffer[..length])? {
            each(message);
        }
        Ok(true)
    }

    /// Sends one request (flags must ask for an acknowledgement or a dump) and calls `each` for
    /// every answer until the kernel says it is done. `what` names the request in errors.
    pub fn exchange(
        &mut self,
        request: &[u8],
        sequence: u32,
        what: &dyn Fn() -> String,
        mut each: impl FnMut(Received<'_>),
    ) -> Result<(), NetlinkError> {
        self.send(request)?;
        loop {
            let length = self.receive_datagram(0).map_err(NetlinkError::Receive)?;
            for message in messages(&self.buffer[..length])? {
                if message.sequence != sequence {
                    continue;
                }
                match message.error_code() {
                    Some(0) => return Ok(()),
                    Some(code) => {
                        let source = io::Error::from_raw_os_error(code);
                        return Err(NetlinkError::Refused { operation: what(), source });
                    }
                    None if message.kind == NLMSG_DONE => return Ok(()),
                    None => each(message),
                }
            }
        }
    }

    fn receive_datagram(&mut self, flags: i32) -> io::Result<usize> {
        loop {
            // SAFETY: the pointer and length describe our own buffer, borrowed for the call.
            let got = unsafe {
                let (at, room) = (self.buffer.as_mut_ptr().cast(), self.buffer.len());
                libc::recv(self.fd.as_raw_fd(), at, room, flags)
            };
            match usize::try_from(got) {
                Ok(length) => return Ok(length),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

fn open_bound(protocol: i32) -> io::Result<(OwnedFd, u32)> {
    // SAFETY: a plain socket call; the descriptor it returns is ours alone.
    let fd = unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: an all-zero sockaddr_nl is valid; the kernel then chooses the port.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    let mut size = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    let at: *mut libc::sockaddr = (&raw mut address).cast();
    // SAFETY: `at` points to an address of `size` bytes that outlives both calls.
    let failed = unsafe {
        libc::bind(fd.as_raw_fd(), at, size) < 0
            || libc::getsockname(fd.as_raw_fd(), at, &raw mut size) < 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok((fd, address.nl_pid)) }
}

fn set_option(fd: &OwnedFd, level: i32, name: i32, value: u32) -> io::Result<()> {
    let size = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the pointer and size describe `value`, which outlives the call.
    let failed = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) < 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Cuts a datagram into its messages.
fn messages(mut rest: &[u8]) -> Result<Vec<Received<'_>>, NetlinkError> {
    let mut found = Vec::new();
    while let Some((header, _)) = rest.split_at_checked(HEADER_BYTES) {
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = word(0) as usize;
        if length < HEADER_BYTES || length > rest.len() {
            return Err(NetlinkError::Malformed(format!("message of {length} bytes")));
        }
        found.push(Received {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: word(8),
            port: word(12),
            payload: &rest[HEADER_BYTES..length],
            whole: &rest[..length],
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}
