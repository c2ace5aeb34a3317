//! Starting a process: streams, clone, and the wait (without blocking) for the program to run.

use std::fs::{self, DirBuilder};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use prost::Message;
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};

use super::child::{self, Inherited};
use super::flow::{Flow, Role};
use super::log::LogFile;
use super::prepare::{Prepared, Problem, prepare};
use super::serve::failure;
use super::sys::{self, Stage};
use super::ticker::Ticker;
use super::{Entry, RUNS, Supervisor, TOKEN_STARTING, now_ns};
use crate::packet;
use crate::wire::{Plan, Run, Tell};

/// A process between clone and execve.
pub(super) struct Starting {
    client: u64,
    serial: u64,
    status: OwnedFd,
    plan: Plan,
    names: Vec<String>,
    pid: i32,
    streams: Streams,
    master: Option<OwnedFd>,
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
            self.ticker =
                Ticker::start([&a, &b]).inspect_err(|e| eprintln!("ticker: {e}")).ok();
        }
        if let Some(ticker) = &self.ticker {
            ticker.warm();
        }
    }

    fn try_start(&mut self, client: u64, serial: u64, fds: Vec<OwnedFd>) -> Result<(), Problem> {
        let mut fds = fds.into_iter();
        let plan = fds.next().ok_or_else(|| ("plan is missing".to_owned(), super::prepare::invalid()))?;
        let plan = packet::from_memory_file(plan)
            .and_then(|bytes| Plan::decode(&bytes[..]).map_err(io::Error::other))
            .map_err(|e| ("plan".to_owned(), e))?;
        if self.entries.get(&plan.id).is_some_and(|e| !e.run.ended) {
            return Err((format!("{} runs already", plan.id), io::Error::from_raw_os_error(libc::EEXIST)));
        }
        let mut prepared = prepare(&plan)?;
        let given: Vec<OwnedFd> = fds.collect();
        let (ours, theirs) = self.streams(&plan, given)?;
        let (status, child_status) = status_pair().map_err(|e| ("status socket".to_owned(), e))?;
        let join = self.pidfd_of(&plan.exec_in)?;
        let inherited = Inherited {
            status: child_status.as_raw_fd(),
            stdio: theirs.each_ref().map(|fd| fd.as_ref().map_or(-1, |f| f.as_raw_fd())),
            join: join.as_ref().map_or(-1, |fd| fd.as_raw_fd()),
        };
        let pid = self.clone_child(&plan, &mut prepared, &inherited)?;
        let number = self.number();
        self.listen(&status, TOKEN_STARTING | number).map_err(|e| ("epoll".to_owned(), e))?;
        self.pids.insert(pid, plan.id.clone());
        let names = mem::take(&mut prepared.names);
        self.starting.insert(
            number,
            Starting { client, serial, status, plan, names, pid, streams: ours, master: None, ended: None, failed: None },
        );
        Ok(())
    }

    /// Our ends and the child's. An exec's streams come from the agent, which keeps the other ends.
    fn streams(&self, plan: &Plan, given: Vec<OwnedFd>) -> Result<(Streams, [Option<OwnedFd>; 3]), Problem> {
        let at = |e: io::Error| ("streams".to_owned(), e);
        if plan.tty || plan.pause {
            return Ok((Streams::default(), [None, None, None]));
        }
        if !plan.exec_in.is_empty() {
            let theirs: [OwnedFd; 3] = given.try_into().map_err(|_| at(super::prepare::invalid()))?;
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
        let gone = || (format!("container {id} is not running"), io::Error::from_raw_os_error(libc::ESRCH));
        let entry = self.entries.get(id).filter(|e| !e.run.ended).ok_or_else(gone)?;
        match &entry.pidfd {
            Some(fd) => fd.try_clone().map(Some).map_err(|e| ("pidfd".to_owned(), e)),
            None => pidfd_open(entry.run.pid).map(Some).map_err(|_| gone()),
        }
    }

    fn clone_child(&self, plan: &Plan, prepared: &mut Prepared, inherited: &Inherited) -> Result<i32, Problem> {
        let joined = if plan.exec_in.is_empty() { &plan.pid_ns_of } else { &plan.exec_in };
        let target = if plan.new_pid_ns { None } else { self.pidfd_of(joined)? };
        if let Some(fd) = &target {
            sys::setns(fd.as_raw_fd(), libc::CLONE_NEWPID).map_err(|e| problem("join the pid namespace", e))?;
        }
        let pid = clone3(plan, prepared, inherited);
        if target.is_some() {
            // Our own pid namespace is always one we may return to.
            let _ = sys::setns(self.own_pid_ns.as_raw_fd(), libc::CLONE_NEWPID);
        }
        pid.map_err(|e| problem("clone", e))
    }

    pub(super) fn starting_ready(&mut self, number: u64) {
        let Some(starting) = self.starting.get_mut(&number) else { return };
        let mut packet = [0u8; sys::STATUS_BYTES];
        match packet::receive(starting.status.as_fd(), &mut packet) {
            Ok((sys::STATUS_BYTES, fds)) => starting.heard(packet, fds),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            _ => self.settle_start(number),
        }
    }

    /// The status socket has closed: the program runs, or its set-up has failed.
    fn settle_start(&mut self, number: u64) {
        let Some(mut starting) = self.starting.remove(&number) else { return };
        if let Some((step, errno)) = starting.failed.take() {
            let problem = (step, io::Error::from_raw_os_error(errno));
            if starting.ended.is_none() {
                self.pids.remove(&starting.pid);
            }
            let _ = fs::remove_dir_all(self.run_dir(&starting.plan.id));
            return self.reply(starting.client, starting.serial, failure(&problem), &[]);
        }
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
    fn enter(&mut self, starting: Starting, run: Run) {
        if !run.exec {
            self.persist(&run);
        }
        let id = run.id.clone();
        let log = (!run.log_path.is_empty())
            .then(|| LogFile::open(Path::new(&run.log_path), run.log_max_bytes, run.log_max_files));
        let Streams { stdin, stdout, stderr } = starting.streams;
        let terminal = starting.master.as_ref().and_then(|m| m.try_clone().ok());
        let entry = Entry { run, log, stdin, master: starting.master, pidfd: None };
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

    fn heard(&mut self, packet: [u8; sys::STATUS_BYTES], fds: Vec<OwnedFd>) {
        let [kind, stage, i0, i1, e0, e1, e2, e3] = packet;
        let index = usize::from(u16::from_ne_bytes([i0, i1]));
        let errno = i32::from_ne_bytes([e0, e1, e2, e3]);
        match kind {
            sys::TERMINAL => self.master = fds.into_iter().next(),
            sys::NOTE => eprintln!(
                "{}: oom_score_adj is left as it is: {}",
                self.plan.id,
                io::Error::from_raw_os_error(errno)
            ),
            _ => self.failed = Some((self.describe(stage, index, errno), errno)),
        }
    }

    fn describe(&self, stage: u8, index: usize, errno: i32) -> String {
        let program = self.plan.args.first().map_or("", String::as_str);
        let is = |s: Stage| stage == s as u8;
        if is(Stage::Build) {
            self.names.get(index).cloned().unwrap_or_else(|| "build the root".to_owned())
        } else if is(Stage::Sources) {
            let mut binds = self.names.iter().filter(|n| n.starts_with("mount /"));
            binds.nth(index).cloned().unwrap_or_else(|| "open a mount's source".to_owned())
        } else if is(Stage::Execute) && errno == libc::ENOENT && !program.contains('/') {
            format!("exec: {program:?}: executable file not found in $PATH")
        } else if is(Stage::Execute) {
            format!("exec: {program:?}")
        } else if is(Stage::Cwd) {
            format!("chdir to cwd ({:?})", self.plan.cwd)
        } else {
            let known = [
                (Stage::Namespaces, "join namespaces"),
                (Stage::Pivot, "change the root"),
                (Stage::Streams, "set up the streams"),
                (Stage::Cgroup, "join cgroups"),
                (Stage::Credentials, "set user and capabilities"),
                (Stage::Seccomp, "load the seccomp filter"),
            ];
            known.iter().find(|(s, _)| is(*s)).map_or("start", |(_, text)| text).to_owned()
        }
    }

    fn run(&self) -> Run {
        Run {
            id: self.plan.id.clone(),
            pid: self.pid,
            start_ticks: super::adopt::start_ticks(self.pid).unwrap_or(0),
            started_at: now_ns(),
            exec: !self.plan.exec_in.is_empty(),
            log_path: self.plan.log_path.clone(),
            log_max_bytes: self.plan.log_max_bytes,
            log_max_files: self.plan.log_max_files,
            tty: self.plan.tty,
            cgroup_dir: self.plan.cgroup_dir.clone(),
            cgroup_v1_dirs: self.plan.cgroup_v1_dirs.clone(),
            stdin_once: self.plan.stdin_once,
            ..Run::default()
        }
    }
}

fn problem(what: &str, errno: i32) -> Problem {
    (what.to_owned(), io::Error::from_raw_os_error(errno))
}

pub(super) fn open_fifo(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}

fn status_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

pub(super) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the descriptor returned is new and ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as RawFd)) }
    }
}

/// `CLONE_INTO_CGROUP`, which libc has only as an overflowing `c_int`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn clone3(plan: &Plan, prepared: &mut Prepared, inherited: &Inherited) -> Result<i32, i32> {
    let mut flags = prepared.clone_flags;
    let cgroup = prepared.raw_cgroup();
    if cgroup >= 0 {
        flags |= CLONE_INTO_CGROUP;
    }
    // SAFETY: a zeroed structure is valid. Without CLONE_VM the child has a copy of everything; it
    // only runs `child::run`, which makes system calls and never returns.
    unsafe {
        let mut args: libc::clone_args = mem::zeroed();
        args.flags = flags;
        args.exit_signal = libc::SIGCHLD as u64;
        args.cgroup = if cgroup >= 0 { cgroup as u64 } else { 0 };
        let pid = libc::syscall(libc::SYS_clone3, &mut args, mem::size_of::<libc::clone_args>());
        match pid {
            0 => child::run(plan, prepared, inherited),
            pid if pid > 0 => Ok(pid as i32),
            _ => Err(sys::errno()),
        }
    }
}
