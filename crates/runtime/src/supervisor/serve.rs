//! The supervisor's own set-up, and its conversation with agents.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use prost::Message;
use rustix::event::epoll;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::flow::{BUFFER_BYTES, Flow, Role};
use super::launcher::Launcher;
use super::state_lock::StateLock;
use super::{
    Options, RUNS, SOCKET, Supervisor, TOKEN_CLIENT, TOKEN_LISTENER, TOKEN_SIGNALS, TOKEN_STATE,
};
use crate::cgroup::Hierarchies;
use crate::packet;
use crate::wire::{Ask, Attach, Failure, LEVEL, Reply, Request, Resize, RunList, Signal, Tell};

/// Agents waiting to be accepted: one, and a second one while it restarts.
const BACKLOG: i32 = 8;

/// Makes this process a supervisor; `None` when another one holds the state directory.
pub(super) fn set_up(options: Options) -> io::Result<Option<Supervisor>> {
    // SAFETY: nothing is open yet but the three standard streams; the agent's descriptors must not
    // live on in us.
    unsafe { libc::close_range(3, u32::MAX, 0) };
    let Some(lock) = StateLock::take(&options.state_dir)? else { return Ok(None) };
    match DirBuilder::new().mode(0o700).create(options.state_dir.join(RUNS)) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    detach()?;
    let ticker_groups = options.cgroup.and_then(|(root, path)| join_own_cgroup(&root, &path));
    // Neither it nor the launcher can be looked into, whoever shares the host's pid namespace.
    super::sys::undumpable().map_err(io::Error::from_raw_os_error)?;
    // Before anything is read or opened that no container may see.
    let launcher = Launcher::start()?;
    let listener = bind(&options.state_dir)?;
    let supervisor = Supervisor {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        signals: child_signals()?,
        launcher,
        listener,
        lock,
        state_dir: options.state_dir,
        clients: Default::default(),
        entries: Default::default(),
        starting: Default::default(),
        creating: Default::default(),
        pids: Default::default(),
        relieved: Default::default(),
        unnamed: Default::default(),
        flows: Default::default(),
        adopted: Default::default(),
        ticker: None,
        ticker_groups,
        next: 0,
        buffer: vec![0; BUFFER_BYTES],
    };
    supervisor.listen(&supervisor.listener, TOKEN_LISTENER)?;
    supervisor.listen(&supervisor.signals, TOKEN_SIGNALS)?;
    supervisor.listen(supervisor.lock.changes(), TOKEN_STATE)?;
    Ok(Some(supervisor))
}

/// Leaves the agent's session, and becomes the parent of orphans.
fn detach() -> io::Result<()> {
    // Fails only for a group leader, which is then in a session of its own already.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    std::env::set_current_dir("/")?;
    // SAFETY: dispositions and name of this single-threaded process.
    unsafe {
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGINT] {
            libc::signal(signal, libc::SIG_IGN);
        }
        libc::prctl(libc::PR_SET_NAME, c"supervisor".as_ptr());
    }
    // Under memory pressure the containers' parent must be the last to go; without the right, so be it.
    let _ = fs::write("/proc/self/oom_score_adj", "-998");
    Ok(())
}

/// Out of the agent's cgroup, so that stopping that as a whole leaves us; also the ticker's two groups.
fn join_own_cgroup(root: &Path, path: &str) -> Option<[PathBuf; 2]> {
    let joined = Hierarchies::detect(root).and_then(|h| {
        let group = h.create(path)?;
        group.attach(std::process::id())?;
        let Some(freezer) = h.v1("freezer") else { return Ok(None) };
        let base = freezer.join(path.trim_start_matches('/'));
        let groups = [base.join("tick-a"), base.join("tick-b")];
        for dir in &groups {
            match fs::create_dir(dir) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    eprintln!("{}: {e}", dir.display());
                    return Ok(None);
                }
                _ => {}
            }
        }
        Ok(Some(groups))
    });
    joined.unwrap_or_else(|e| {
        eprintln!("own cgroup: {}", e.chain());
        None
    })
}

/// The address of a socket in `dir`, however long that path is: through an open descriptor.
pub(crate) fn socket_address(dir: &OwnedFd) -> io::Result<rustix::net::SocketAddrUnix> {
    Ok(rustix::net::SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))?)
}

fn bind(state_dir: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(state_dir.join(SOCKET)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let dir: OwnedFd = File::open(state_dir)?.into();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // The directory is closed to others; should it once not be, the socket is.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &socket_address(&dir)?);
    rustix::process::umask(before);
    bound?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn child_signals() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: a zeroed sigset is valid; the descriptor returned is new and ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

type Answer = Result<Tell, (String, io::Error)>;

impl Supervisor {
    pub(super) fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(client) = rustix::net::accept_with(&self.listener, flags) else { return };
        let number = self.number();
        match self.listen(&client, TOKEN_CLIENT | number) {
            Ok(()) => drop(self.clients.insert(number, client)),
            Err(e) => eprintln!("accept: {e}"),
        }
    }

    pub(super) fn client_ready(&mut self, number: u64) {
        let mut buffer = [0u8; 4096];
        let Some(client) = self.clients.get(&number) else { return };
        match packet::receive(client.as_fd(), &mut buffer) {
            Ok((0, _)) => self.disconnected(number),
            Ok((count, fds)) => match Request::decode(&buffer[..count]) {
                Ok(request) => self.handle(number, request, fds),
                Err(e) => eprintln!("request: {e}"),
            },
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.disconnected(number),
        }
    }

    fn disconnected(&mut self, number: u64) {
        self.clients.remove(&number);
        self.end_without_state();
    }

    fn handle(&mut self, client: u64, request: Request, fds: Vec<OwnedFd>) {
        let serial = request.serial;
        let answer: Answer = match request.ask {
            Some(Ask::Start(_)) => return self.start(client, serial, fds),
            Some(Ask::UserNamespace(ask)) => match self.user_namespace(&ask) {
                Ok(fds) => {
                    let fds: Vec<&OwnedFd> = fds.iter().collect();
                    return self.reply(client, serial, Tell::Namespaces(true), &fds);
                }
                Err(e) => Err(e),
            },
            Some(Ask::List(_)) => return self.list(client, serial),
            Some(Ask::Signal(signal)) => self.signal(&signal),
            Some(Ask::Attach(attach)) => self.attach(&attach, fds),
            Some(Ask::Resize(resize)) => self.resize(&resize),
            Some(Ask::ReopenLog(id)) => self.reopen_log(&id),
            Some(Ask::Forget(id)) => self.forget(&id),
            Some(Ask::Warm(_)) => {
                self.warm();
                Ok(Tell::Done(true))
            }
            None => Err(("unknown request".to_owned(), super::prepare::invalid())),
        };
        self.reply(client, serial, answer.unwrap_or_else(|e| failure(&e)), &[]);
    }

    /// Sends to one agent; one that does not read is dropped, and will list anew when it comes back.
    pub(super) fn reply(&mut self, client: u64, serial: u64, tell: Tell, fds: &[&OwnedFd]) {
        let bytes = Reply { serial, tell: Some(tell) }.encode_to_vec();
        let Some(socket) = self.clients.get(&client) else { return };
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        if let Err(e) = packet::send(socket.as_fd(), &bytes, &fds) {
            eprintln!("agent dropped: {e}");
            self.disconnected(client);
        }
    }

    pub(super) fn broadcast(&mut self, tell: &Tell) {
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            self.reply(client, 0, tell.clone(), &[]);
        }
    }

    fn list(&mut self, client: u64, serial: u64) {
        let runs = self.entries.values().map(|e| e.run.clone()).collect();
        match packet::to_memory_file(&RunList { runs, level: LEVEL }.encode_to_vec()) {
            Ok(file) => self.reply(client, serial, Tell::Listed(RunList::default()), &[&file]),
            Err(e) => self.reply(client, serial, failure(&("list".to_owned(), e)), &[]),
        }
    }

    fn signal(&mut self, signal: &Signal) -> Answer {
        if self.end_creation(&signal.id) {
            return Ok(Tell::Done(true));
        }
        let entry = self.running(&signal.id)?;
        let done = match &entry.pidfd {
            // SAFETY: plain numbers.
            Some(fd) => unsafe {
                let nothing = std::ptr::null::<libc::siginfo_t>();
                libc::syscall(
                    libc::SYS_pidfd_send_signal,
                    fd.as_raw_fd(),
                    signal.number,
                    nothing,
                    0,
                )
            },
            // SAFETY: plain numbers. A child is signalled before it is reaped, so the pid is its own.
            None => unsafe { libc::kill(entry.run.pid, signal.number).into() },
        };
        if done < 0 {
            return Err(("signal".to_owned(), io::Error::last_os_error()));
        }
        // A signal to kill means the whole container, also where it shares a pid namespace.
        if signal.number == libc::SIGKILL && !entry.run.exec {
            super::exit::kill_group(&entry.run);
        }
        Ok(Tell::Done(true))
    }

    fn running(&self, id: &str) -> Result<&super::Entry, (String, io::Error)> {
        match self.entries.get(id) {
            Some(entry) if !entry.run.ended => Ok(entry),
            _ => Err((format!("{id} is not running"), io::Error::from_raw_os_error(libc::ESRCH))),
        }
    }

    fn attach(&mut self, attach: &Attach, mut fds: Vec<OwnedFd>) -> Answer {
        let at = |e: io::Error| ("attach".to_owned(), e);
        let entry = self.running(&attach.id)?;
        let wanted = [attach.stdin, attach.stdout, attach.stderr];
        if wanted.iter().filter(|w| **w).count() != fds.len() {
            return Err(at(super::prepare::invalid()));
        }
        let mut fds = fds.drain(..);
        let stdin = if attach.stdin { fds.next() } else { None };
        let once = entry.run.stdin_once;
        if let Some(from) = stdin {
            let Some(to) = entry.stdin.as_ref().or(entry.master.as_ref()) else {
                return Err(("container has no stdin".to_owned(), super::prepare::invalid()));
            };
            let sink = to.try_clone().map_err(at)?;
            let mut flow = Flow::new(&attach.id, Role::Stdin { once }, from).map_err(at)?;
            flow.add_sink(sink).map_err(at)?;
            self.add_flow(flow);
        }
        for (wanted, role) in [(attach.stdout, Role::Stdout), (attach.stderr, Role::Stderr)] {
            let Some(sink) = wanted.then(|| fds.next()).flatten() else { continue };
            let found = self.flows.values_mut().find(|f| f.owner == attach.id && f.role == role);
            if let Some(flow) = found {
                flow.add_sink(sink).map_err(at)?;
            }
        }
        Ok(Tell::Done(true))
    }

    fn resize(&mut self, resize: &Resize) -> Answer {
        let entry = self.running(&resize.id)?;
        let Some(master) = &entry.master else {
            return Err(("container has no terminal".to_owned(), super::prepare::invalid()));
        };
        let size = rustix::termios::Winsize {
            ws_row: resize.height as u16,
            ws_col: resize.width as u16,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(master, size).map_err(|e| ("resize".to_owned(), e.into()))?;
        Ok(Tell::Done(true))
    }

    fn reopen_log(&mut self, id: &str) -> Answer {
        let log = self.entries.get_mut(id).and_then(|e| e.log.as_mut());
        let Some(log) = log else {
            return Err((format!("{id} has no log"), io::Error::from_raw_os_error(libc::ENOENT)));
        };
        log.reopen().map_err(|e| ("reopen log".to_owned(), e))?;
        Ok(Tell::Done(true))
    }
}

pub(super) fn failure((step, error): &(String, io::Error)) -> Tell {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    Tell::Failed(Failure { step: step.clone(), errno })
}
