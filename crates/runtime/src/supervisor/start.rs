//! Starting a process: streams, launch, and the wait (without blocking) for the program to run.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use prost::Message;
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};

use super::flow::{Flow, Role};
use super::launcher::Job;
use super::log::LogFile;
use super::prepare::Problem;
use super::serve::failure;
use super::sys;
use super::ticker::Ticker;
use super::{Entry, RUNS, Supervisor, TOKEN_STARTING, now_ns};
use crate::packet;
use crate::wire::{Plan, Run, Tell};

/// A process between launch and execve.
pub(super) struct Starting {
    pub(super) client: u64,
    pub(super) serial: u64,
    status: OwnedFd,
    pub(super) plan: Plan,
    pub(super) pid: i32,
    /// The process that was launched. Its successor runs in the container already, where others may
    /// have got hold of it, so only the first is believed about terminals and successors.
    first: i32,
    streams: Streams,
    /// Where an OCI runtime sends the terminal.
    pub(super) console: Option<OwnedFd>,
    pub(super) master: Option<OwnedFd>,
    /// Of a process that an OCI runtime has left to somebody else.
    pub(super) pidfd: Option<OwnedFd>,
    /// Its wait status, when it ended before we heard of its start.
    pub(super) ended: Option<i32>,
    failed: Option<(String, i32)>,
}

/// Our ends of a container's streams.
#[derive(Default)]
struct Streams {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Supervisor {
    pub(super) fn start(&mut self, client: u64, serial: u64, fds: Vec<OwnedFd>) {
        self.warm();
        if let Err(problem) = self.try_start(client, serial, fds) {
            self.reply(client, serial, failure(&problem), &[]);
        }
    }

    /// Only where containers are attached the v1 way.
    pub(super) fn warm(&mut self) {
        if self.ticker.is_none()
            && let Some([a, b]) = self.ticker_groups.take()
        {
            self.ticker = Ticker::start([&a, &b]).inspect_err(|e| eprintln!("ticker: {e}")).ok();
        }
        if let Some(ticker) = &self.ticker {
            ticker.warm();
        }
    }

    fn try_start(&mut self, client: u64, serial: u64, fds: Vec<OwnedFd>) -> Result<(), Problem> {
        let mut fds = fds.into_iter();
        let file =
            fds.next().ok_or_else(|| ("plan is missing".to_owned(), super::prepare::invalid()))?;
        let copy = file.try_clone().map_err(|e| ("plan".to_owned(), e))?;
        let plan = packet::from_memory_file(copy)
            .and_then(|bytes| Plan::decode(&bytes[..]).map_err(io::Error::other))
            .map_err(|e| ("plan".to_owned(), e))?;
        if self.entries.get(&plan.id).is_some_and(|e| !e.run.ended) {
            return Err((
                format!("{} runs already", plan.id),
                io::Error::from_raw_os_error(libc::EEXIST),
            ));
        }
        let given: Vec<OwnedFd> = fds.collect();
        let (streams, theirs) = self.streams(&plan, given)?;
        let (status, child_status) = status_pair().map_err(|e| ("status socket".to_owned(), e))?;
        let console = super::foreign::console(&plan)?;
        let is_exec = !plan.exec_in.is_empty();
        if !is_exec {
            // Should this process end before the start has: the next one ends what was started.
            self.persist(&intended(&plan));
        }
        let launched = self.launch(&plan, [&file, &child_status], &theirs);
        if launched.is_err() && !is_exec {
            let _ = fs::remove_dir_all(self.run_dir(&plan.id));
        }
        let pid = launched?;
        let number = self.number();
        self.listen(&status, TOKEN_STARTING | number).map_err(|e| ("epoll".to_owned(), e))?;
        self.pids.insert(pid, plan.id.clone());
        self.starting.insert(
            number,
            Starting {
                client,
                serial,
                status,
                plan,
                pid,
                first: pid,
                streams,
                console,
                master: None,
                pidfd: None,
                ended: None,
                failed: None,
            },
        );
        Ok(())
    }

    fn launch(
        &self,
        plan: &Plan,
        always: [&OwnedFd; 2],
        theirs: &[Option<OwnedFd>; 3],
    ) -> Result<i32, Problem> {
        let joined = if plan.exec_in.is_empty() { &plan.pid_ns_of } else { &plan.exec_in };
        let is_own = plan.foreign.is_none();
        let join = if plan.new_pid_ns || !is_own { None } else { self.pidfd_of(joined)? };
        let cgroup = if is_own { cgroup(plan)? } else { None };
        let mut fds: Vec<&OwnedFd> = always.to_vec();
        fds.extend(theirs.iter().flatten().chain(&join).chain(&cgroup));
        let job = Job {
            flags: clone_flags(plan),
            streams: theirs[0].is_some(),
            join: join.is_some(),
            cgroup: cgroup.is_some(),
            hold: false,
            present: true,
        };
        self.launcher.launch(&job, &fds).map_err(|e| ("clone".to_owned(), e))
    }

    /// Our ends and the child's. An exec's streams come from the agent, which keeps the other ends.
    fn streams(
        &self,
        plan: &Plan,
        given: Vec<OwnedFd>,
    ) -> Result<(Streams, [Option<OwnedFd>; 3]), Problem> {
        let at = |e: io::Error| ("streams".to_owned(), e);
        if plan.tty || plan.pause {
            return Ok((Streams::default(), [None, None, None]));
        }
        if !plan.exec_in.is_empty() {
            let theirs: [OwnedFd; 3] =
                given.try_into().map_err(|_| at(super::prepare::invalid()))?;
            return Ok((Streams::default(), theirs.map(Some)));
        }
        let (stdout, child_out) = self.fifo(&plan.id, "stdout").map_err(at)?;
        let (stderr, child_err) = self.fifo(&plan.id, "stderr").map_err(at)?;
        let (child_in, stdin) = if plan.stdin {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| at(e.into()))?;
            (read, Some(write))
        } else {
            let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            (null.map_err(|e| at(e.into()))?, None)
        };
        let ours = Streams { stdin, stdout: Some(stdout), stderr: Some(stderr) };
        Ok((ours, [Some(child_in), Some(child_out), Some(child_err)]))
    }

    pub(super) fn run_dir(&self, id: &str) -> PathBuf {
        self.state_dir.join(RUNS).join(id)
    }

    /// A named pipe. The container's end can read too: without us its writes wait, and do not fail.
    fn fifo(&self, id: &str, name: &str) -> io::Result<(OwnedFd, OwnedFd)> {
        let dir = self.run_dir(id);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let path = dir.join(name);
        let _ = fs::remove_file(&path);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, Mode::from_raw_mode(0o600), 0)?;
        let ours = open_fifo(&path)?;
        let theirs = open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        Ok((ours, theirs))
    }

    fn pidfd_of(&self, id: &str) -> Result<Option<OwnedFd>, Problem> {
        if id.is_empty() {
            return Ok(None);
        }
        let gone = || {
            (format!("container {id} is not running"), io::Error::from_raw_os_error(libc::ESRCH))
        };
        let entry = self.entries.get(id).filter(|e| !e.run.ended).ok_or_else(gone)?;
        match &entry.pidfd {
            Some(fd) => fd.try_clone().map(Some).map_err(|e| ("pidfd".to_owned(), e)),
            None => pidfd_open(entry.run.pid).map(Some).map_err(|_| gone()),
        }
    }

    pub(super) fn starting_ready(&mut self, number: u64) {
        if self.hear(number) {
            self.settle_start(number);
        }
    }

    /// Reads what a starting process has said; whether it has closed its socket.
    fn hear(&mut self, number: u64) -> bool {
        let Some(starting) = self.starting.get_mut(&number) else { return false };
        loop {
            let mut bytes = [0u8; sys::STATUS_BYTES];
            match packet::receive_from(starting.status.as_fd(), &mut bytes) {
                Ok(p) if p.bytes >= sys::STATUS_HEAD => {
                    if let Some(pid) = starting.heard(&bytes[..p.bytes], p.fds, p.sender) {
                        // Its own end, when that has been seen, is gone from the list already.
                        if self.pids.remove(&starting.first).is_some() {
                            self.relieved.insert(starting.first);
                        }
                        starting.ended = self.unnamed.remove(&pid);
                        if starting.ended.is_none() {
                            self.pids.insert(pid, starting.plan.id.clone());
                        }
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => return true,
            }
        }
    }

    /// Before ends are looked at: one may be that of a process that has named its successor.
    pub(super) fn hear_all(&mut self) {
        for number in self.starting.keys().copied().collect::<Vec<_>>() {
            self.hear(number);
        }
    }

    /// The status socket has closed: the program runs, or its set-up has failed.
    fn settle_start(&mut self, number: u64) {
        let Some(mut starting) = self.starting.remove(&number) else { return };
        if let Some((step, errno)) = starting.failed.take() {
            let problem = (step, io::Error::from_raw_os_error(errno));
            if starting.ended.is_none() {
                self.pids.remove(&starting.pid);
                // SAFETY: plain numbers. It is not reaped yet, so the pid is its own; it may only claim
                // to have failed.
                unsafe { libc::kill(starting.pid, libc::SIGKILL) };
            }
            let _ = fs::remove_dir_all(self.run_dir(&starting.plan.id));
            return self.reply(starting.client, starting.serial, failure(&problem), &[]);
        }
        if starting.plan.foreign.is_some() {
            return match starting.ended.take() {
                Some(status) => self.created(starting, status),
                None => drop(self.creating.insert(starting.pid, starting)),
            };
        }
        self.started(starting);
    }

    /// The process of the plan runs; it may have ended, too.
    pub(super) fn started(&mut self, mut starting: Starting) {
        let run = starting.run();
        let id = run.id.clone();
        let (client, serial, ended) = (starting.client, starting.serial, starting.ended);
        let exec_master = if run.exec { starting.master.take() } else { None };
        self.enter(starting, run.clone());
        let fds: Vec<&OwnedFd> = exec_master.iter().collect();
        self.reply(client, serial, Tell::Started(run), &fds);
        if let Some(status) = ended {
            self.finish(&id, status);
        }
    }

    /// Takes a running process into the books, with its streams.
    fn enter(&mut self, mut starting: Starting, run: Run) {
        if !run.exec {
            self.persist(&run);
        }
        let id = run.id.clone();
        let log = (!run.log_path.is_empty())
            .then(|| LogFile::open(Path::new(&run.log_path), run.log_max_bytes, run.log_max_files));
        let Streams { stdin, stdout, stderr } = starting.streams;
        let terminal = starting.master.as_ref().and_then(|m| m.try_clone().ok());
        let pidfd = starting.pidfd.take();
        let entry = Entry { run, log, stdin, master: starting.master, pidfd };
        self.entries.insert(id.clone(), entry);
        let sources = [(Role::Stdout, terminal.or(stdout)), (Role::Stderr, stderr)];
        for (role, source) in sources {
            let Some(source) = source else { continue };
            match Flow::new(&id, role, source) {
                Ok(flow) => drop(self.add_flow(flow)),
                Err(e) => eprintln!("{id}: {e}"),
            }
        }
    }
}

impl Starting {
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Takes in a status packet; returns the pid of the successor that it names.
    fn heard(&mut self, packet: &[u8], fds: Vec<OwnedFd>, sender: Option<i32>) -> Option<i32> {
        let (head, text) = packet.split_at_checked(sys::STATUS_HEAD)?;
        let number = i32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
        let trusted = sender == Some(self.first);
        match head[0] {
            sys::TERMINAL if trusted => self.master = fds.into_iter().next(),
            sys::HANDED_OVER if trusted => {
                self.pid = number;
                return Some(number);
            }
            sys::NOTE if trusted => {
                let error = io::Error::from_raw_os_error(number);
                eprintln!("{}: {}: {error}", self.plan.id, printable(text));
            }
            sys::FAILED => self.failed = Some((printable(text), number)),
            _ => {}
        }
        None
    }

    fn run(&self) -> Run {
        Run {
            pid: self.pid,
            start_ticks: super::adopt::start_ticks(self.pid).unwrap_or(0),
            ..intended(&self.plan)
        }
    }
}

/// A run that has no process yet.
fn intended(plan: &Plan) -> Run {
    Run {
        id: plan.id.clone(),
        started_at: now_ns(),
        exec: !plan.exec_in.is_empty(),
        log_path: plan.log_path.clone(),
        log_max_bytes: plan.log_max_bytes,
        log_max_files: plan.log_max_files,
        tty: plan.tty || plan.foreign.as_ref().is_some_and(|f| f.terminal),
        cgroup_dir: plan.cgroup_dir.clone(),
        cgroup_v1_dirs: plan.cgroup_v1_dirs.clone(),
        stdin_once: plan.stdin_once,
        ..Run::default()
    }
}

/// Text without control characters: it ends in logs, and may be a container's.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// With a user namespace the process makes the others itself, so that they belong to it.
fn clone_flags(plan: &Plan) -> u64 {
    if !plan.user_ns.is_empty() || !plan.exec_in.is_empty() || plan.foreign.is_some() {
        return 0;
    }
    let pid = if plan.new_pid_ns { libc::CLONE_NEWPID as u64 } else { 0 };
    libc::CLONE_NEWNS as u64 | pid
}

fn cgroup(plan: &Plan) -> Result<Option<OwnedFd>, Problem> {
    if plan.cgroup_dir.is_empty() {
        return Ok(None);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(plan.cgroup_dir.as_str(), flags, Mode::empty())
        .map(Some)
        .map_err(|e| (format!("open cgroup {}", plan.cgroup_dir), e.into()))
}

pub(super) fn open_fifo(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}

pub(super) fn status_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    rustix::net::sockopt::set_socket_passcred(&ours, true)?;
    Ok((ours, theirs))
}

pub(super) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the descriptor returned is new and ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as RawFd)) }
    }
}
