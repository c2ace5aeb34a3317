//! The supervisor: the small process that containers have for a parent.
//!
//! It has containers and execs forked (by a launcher that knows nothing), reaps them, owns their
//! streams, terminals and log files, and keeps their exit statuses on disk. It is the same program as
//! the agent, started once, and it outlives the agent: restarting or upgrading that touches no
//! container. It does not outlive its state directory (`state_lock`). It has one thread and one epoll
//! loop; it decides nothing (plans come from the agent), and forgets nothing (what runs is written
//! down, so that another supervisor could adopt it: streams are named pipes, which the container's own
//! end keeps alive; terminals are the exception, they end with the supervisor).
//!
//! Nothing here blocks on a container: a start is an entry in `starting` until its status socket
//! closes (the program runs) or brings an error.

mod adopt;
mod build;
mod child;
mod credentials;
mod exit;
mod flow;
mod foreign;
mod launcher;
mod log;
mod mount;
mod prepare;
mod serve;
mod start;
mod state_lock;
mod streams;
mod sys;
mod ticker;
mod users;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::wire::Run;
use flow::{After, Flow};
use log::LogFile;
use ticker::Ticker;

pub(crate) use serve::socket_address;

const TOKEN_LISTENER: u64 = 1;
const TOKEN_SIGNALS: u64 = 2;
const TOKEN_STATE: u64 = 3;
const TOKEN_CLIENT: u64 = 1 << 56;
const TOKEN_STARTING: u64 = 2 << 56;
const TOKEN_FLOW: u64 = 3 << 56;
const TOKEN_ADOPTED: u64 = 4 << 56;
const TOKEN_KIND: u64 = 0xff << 56;

/// The file names below the state directory that agent and supervisor agree on.
pub(crate) const SOCKET: &str = "supervisor.sock";
pub(crate) const LOCK: &str = "supervisor.lock";
pub(crate) const RUNS: &str = "runs";

/// A container or exec that runs, or has ended and is not yet forgotten.
struct Entry {
    run: Run,
    log: Option<LogFile>,
    /// The writing end of the container's stdin.
    stdin: Option<OwnedFd>,
    /// The container's terminal.
    master: Option<OwnedFd>,
    /// Only for one that is not our child: it was adopted.
    pidfd: Option<OwnedFd>,
}

struct Supervisor {
    state_dir: PathBuf,
    epoll: OwnedFd,
    listener: OwnedFd,
    signals: OwnedFd,
    launcher: launcher::Launcher,
    lock: state_lock::StateLock,
    clients: HashMap<u64, OwnedFd>,
    entries: HashMap<String, Entry>,
    starting: HashMap<u64, start::Starting>,
    /// OCI runtimes that run, by their pids.
    creating: HashMap<i32, start::Starting>,
    pids: HashMap<i32, String>,
    /// Launched processes that have named their successor, and are about to end.
    relieved: HashSet<i32>,
    /// Ends of processes that nobody has named yet; kept while a start may still do so.
    unnamed: HashMap<i32, i32>,
    flows: HashMap<u32, Flow>,
    /// Adopted entries by the number in their token.
    adopted: HashMap<u64, String>,
    ticker: Option<Ticker>,
    ticker_groups: Option<[PathBuf; 2]>,
    next: u64,
    buffer: Vec<u8>,
}

/// Nanoseconds since 1970.
fn now_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Runs the supervisor; `args` are those after the command's name: `--state-dir DIR
/// [--cgroup-root DIR --cgroup PATH]`. Ends with exit code 0 when another one is already there.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ! {
    let code = match Options::parse(args).and_then(run) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("supervisor: {e}");
            1
        }
    };
    std::process::exit(code)
}

struct Options {
    state_dir: PathBuf,
    cgroup: Option<(PathBuf, String)>,
}

impl Options {
    fn parse(args: impl IntoIterator<Item = OsString>) -> io::Result<Options> {
        let bad = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let (mut state_dir, mut root, mut cgroup) = (None, None, None);
        let mut args = args.into_iter();
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| bad(format!("{flag:?} needs a value")))?;
            match flag.to_str() {
                Some("--state-dir") => state_dir = Some(PathBuf::from(value)),
                Some("--cgroup-root") => root = Some(PathBuf::from(value)),
                Some("--cgroup") => cgroup = Some(value.to_string_lossy().into_owned()),
                _ => return Err(bad(format!("unknown flag {flag:?}"))),
            }
        }
        let state_dir = state_dir.ok_or_else(|| bad("--state-dir is needed".to_owned()))?;
        Ok(Options { state_dir, cgroup: root.zip(cgroup) })
    }
}

fn run(options: Options) -> io::Result<()> {
    let Some(mut supervisor) = serve::set_up(options)? else { return Ok(()) };
    supervisor.adopt_all();
    supervisor.serve()
}

impl Supervisor {
    fn serve(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            for event in events.drain(..) {
                self.dispatch(event.data.u64());
            }
        }
    }

    fn dispatch(&mut self, token: u64) {
        let number = token & !TOKEN_KIND;
        match (token & TOKEN_KIND, token) {
            (0, TOKEN_LISTENER) => self.accept(),
            (0, TOKEN_SIGNALS) => self.reap(),
            (0, TOKEN_STATE) => {
                self.lock.drain();
                self.end_without_state();
            }
            (TOKEN_CLIENT, _) => self.client_ready(number),
            (TOKEN_STARTING, _) => self.starting_ready(number),
            (TOKEN_ADOPTED, _) => self.adopted_ended(number),
            (TOKEN_FLOW, _) => self.flow_ready((number >> 16) as u32, number as u16),
            _ => {}
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn listen(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?)
    }

    fn flow_ready(&mut self, number: u32, sink: u16) {
        let Some(flow) = self.flows.get_mut(&number) else { return };
        let after = if sink == 0 {
            let log = match flow.role {
                flow::Role::Stdin { .. } => None,
                _ => self.entries.get_mut(&flow.owner).and_then(|e| e.log.as_mut()),
            };
            flow.readable(&mut self.buffer, log)
        } else {
            flow.writable(sink)
        };
        self.settle_flow(number, after);
    }

    /// Keeps a flow going, or removes it with what depends on it.
    fn settle_flow(&mut self, number: u32, after: After) {
        let Some(flow) = self.flows.get_mut(&number) else { return };
        let failed = after == After::Continue
            && flow.arm(number, &self.epoll).inspect_err(|e| eprintln!("flow: {e}")).is_err();
        if after == After::Remove || failed {
            let flow = self.flows.remove(&number);
            if let Some(Flow { owner, role: flow::Role::Stdin { once: true }, .. }) = flow
                && let Some(entry) = self.entries.get_mut(&owner)
            {
                entry.stdin = None;
            }
        }
    }

    /// Adds a flow and starts it.
    fn add_flow(&mut self, flow: Flow) -> u32 {
        let number = self.number() as u32;
        self.flows.insert(number, flow);
        self.settle_flow(number, After::Continue);
        number
    }
}
