//! Bytes on their way: one source, a log, and any number of sinks.
//!
//! A container's stdout is a flow into its log and into whoever is attached; an attached client's stdin
//! is a flow into the container. A sink that does not take its bytes stops the source until it
//! does (the container then waits, as with a pipe); a sink that is gone is dropped.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::log::{LogFile, Partial};

/// Reads in a row from one source before others have their turn.
const READS_A_TURN: usize = 4;
/// Bytes a read: half a pipe.
pub(super) const BUFFER_BYTES: usize = 32 << 10;

/// Where a flow begins, seen from the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Stdout,
    Stderr,
    /// From an attached client; the container's stdin closes with it when it was the only allowed one.
    Stdin {
        once: bool,
    },
}

struct Sink {
    fd: OwnedFd,
    waiting: Vec<u8>,
    /// What is listened for: room when bytes wait, otherwise only that the other side has gone.
    registered: Option<EventFlags>,
}

pub(super) struct Flow {
    pub(super) owner: String,
    pub(super) role: Role,
    source: Option<OwnedFd>,
    listening: bool,
    sinks: HashMap<u16, Sink>,
    next_sink: u16,
    partial: Partial,
}

/// What the supervisor must do after an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    Continue,
    /// Nothing will come any more and nothing waits.
    Remove,
}

/// Tokens of the flows' descriptors: the flow's number, and which of its sinks (0: the source).
pub(super) fn token(flow: u32, sink: u16) -> u64 {
    super::TOKEN_FLOW | u64::from(flow) << 16 | u64::from(sink)
}

impl Flow {
    pub(super) fn new(owner: &str, role: Role, source: OwnedFd) -> io::Result<Flow> {
        rustix::io::ioctl_fionbio(&source, true)?;
        Ok(Flow {
            owner: owner.to_owned(),
            role,
            source: Some(source),
            listening: false,
            sinks: HashMap::new(),
            next_sink: 1,
            partial: Partial::default(),
        })
    }

    pub(super) fn add_sink(&mut self, fd: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        self.sinks.insert(self.next_sink, Sink { fd, waiting: Vec::new(), registered: None });
        self.next_sink = self.next_sink.wrapping_add(1).max(1);
        Ok(())
    }

    /// Starts or stops listening to the source, by whether every sink is ready.
    pub(super) fn arm(&mut self, number: u32, epoll: &OwnedFd) -> io::Result<()> {
        let want = self.sinks.values().all(|s| s.waiting.is_empty());
        let Some(source) = &self.source else { return Ok(()) };
        if want && !self.listening {
            epoll::add(epoll, source, EventData::new_u64(token(number, 0)), EventFlags::IN)?;
        } else if !want && self.listening {
            epoll::delete(epoll, source)?;
        }
        self.listening = want;
        for (id, sink) in &mut self.sinks {
            let data = EventData::new_u64(token(number, *id));
            let waits = !sink.waiting.is_empty();
            let want = if waits { EventFlags::OUT } else { EventFlags::empty() };
            match sink.registered {
                Some(flags) if flags == want => continue,
                Some(_) => epoll::modify(epoll, &sink.fd, data, want)?,
                None => epoll::add(epoll, &sink.fd, data, want)?,
            }
            sink.registered = Some(want);
        }
        Ok(())
    }

    /// The source has something, or has ended.
    pub(super) fn readable(&mut self, buffer: &mut [u8], log: Option<&mut LogFile>) -> After {
        self.pump(buffer, log, READS_A_TURN)
    }

    /// The container has ended: takes what is left, and lets go of the source even when a stray
    /// process still holds the other end.
    pub(super) fn drain(&mut self, buffer: &mut [u8], log: Option<&mut LogFile>) -> After {
        /// Reads for a full pipe of the largest size a container could have set (1 MiB).
        const DRAIN_READS: usize = 64;
        let mut log = log;
        self.pump(buffer, log.as_deref_mut(), DRAIN_READS);
        self.end(log);
        self.after()
    }

    fn pump(&mut self, buffer: &mut [u8], mut log: Option<&mut LogFile>, reads: usize) -> After {
        for _ in 0..reads {
            let Some(source) = &self.source else { break };
            match rustix::io::read(source, &mut *buffer) {
                Ok(0) => {
                    self.end(log.as_deref_mut());
                    break;
                }
                Ok(count) => self.deliver(&buffer[..count], log.as_deref_mut()),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // EIO is how a terminal says that its last user has gone.
                Err(_) => {
                    self.end(log.as_deref_mut());
                    break;
                }
            }
            if self.sinks.values().any(|s| !s.waiting.is_empty()) && reads == READS_A_TURN {
                break;
            }
        }
        self.after()
    }

    fn deliver(&mut self, bytes: &[u8], log: Option<&mut LogFile>) {
        if let Some(log) = log {
            log.write(self.stream(), &mut self.partial, bytes);
        }
        for sink in self.sinks.values_mut() {
            sink.waiting.extend_from_slice(bytes);
        }
        self.sinks.retain(|_, sink| sink.flush());
    }

    fn stream(&self) -> &'static str {
        if self.role == Role::Stderr { "stderr" } else { "stdout" }
    }

    fn end(&mut self, log: Option<&mut LogFile>) {
        if let (Some(_), Some(log)) = (self.source.take(), log) {
            log.finish(self.stream(), &mut self.partial);
        }
        self.listening = false;
        self.sinks.retain(|_, sink| !sink.waiting.is_empty());
    }

    /// A sink may take bytes again, or has gone.
    pub(super) fn writable(&mut self, sink: u16) -> After {
        let ended = self.source.is_none();
        if let Some(entry) = self.sinks.get_mut(&sink)
            && (!entry.flush() || entry.gone() || (ended && entry.waiting.is_empty()))
        {
            self.sinks.remove(&sink);
        }
        self.after()
    }

    fn after(&self) -> After {
        if self.source.is_none() && self.sinks.is_empty() { After::Remove } else { After::Continue }
    }
}

impl Sink {
    /// Whether nobody will ever read it: a client that went while the container was silent.
    fn gone(&self) -> bool {
        let mut poll = [PollFd::new(&self.fd, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut poll, Some(&now)).is_ok_and(|n| n > 0)
    }

    /// Writes what waits; false when the other side is gone.
    fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            match rustix::io::write(self.fd.as_fd(), &self.waiting) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        self.waiting = Vec::new();
        true
    }
}
