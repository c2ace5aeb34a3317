//! Packets with descriptors over a unix socket, and memory files for what is too large for a packet.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Bytes of the largest packet: a list of a few hundred runs; the kernel's default buffer is 208 KiB.
pub(crate) const MAX_PACKET: usize = 160 << 10;
/// Descriptors with one packet: a plan, a status socket, three streams, a process and a cgroup.
pub(crate) const MAX_FDS: usize = 8;

/// Sends one packet; would-block is an error like any other.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet into `buffer`; zero bytes means that the other side is gone.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    receive_from(socket, buffer).map(|packet| (packet.bytes, packet.fds))
}

/// A packet, and the process that sent it: the kernel's word, where the socket asks for it.
pub(crate) struct Packet {
    pub(crate) bytes: usize,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) sender: Option<i32>,
}

pub(crate) fn receive_from(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Packet> {
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let mut packet = Packet { bytes: message.bytes, fds: Vec::new(), sender: None };
    for part in control.drain() {
        match part {
            RecvAncillaryMessage::ScmRights(list) => packet.fds.extend(list),
            RecvAncillaryMessage::ScmCredentials(who) => {
                packet.sender = Some(who.pid.as_raw_nonzero().get());
            }
            _ => {}
        }
    }
    Ok(packet)
}

/// A memory file holding `bytes`.
pub(crate) fn to_memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create("plan", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    Ok(file.into())
}

pub(crate) fn from_memory_file(fd: OwnedFd) -> io::Result<Vec<u8>> {
    rustix::fs::seek(fd.as_fd(), rustix::fs::SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    std::fs::File::from(fd).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Hands a non-blocking descriptor to tokio.
pub(crate) fn watched(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, and always the same one, until the AsyncFd drops it.
    Ok(unsafe { tokio::io::unix::AsyncFd::register(fd) }?)
}
