//! The agent's end of the supervisor's socket.
//!
//! One task owns the reading; anyone may send. When the supervisor is not there it is started, when it
//! goes away it is started again, and after every connection its list of runs is handed to the core,
//! which thereby learns what it has missed.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::{Error, IoContext, Result};
use crate::packet;
use crate::supervisor::{LOCK, SOCKET, socket_address};
use crate::wire::{Ask, LEVEL, Reply, Request, Run, RunList, Tell, UserNamespaceAsk};

/// How long a new supervisor may take to listen; it needs some milliseconds.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Between two attempts to connect to one that was just started.
const RETRY: Duration = Duration::from_millis(2);
/// Between two attempts to start one.
const RESPAWN: Duration = Duration::from_secs(1);
/// Where the supervisor's complaints go.
const LOG: &str = "supervisor.log";

/// What the supervisor tells on its own.
#[derive(Debug)]
pub(crate) enum News {
    Exited(Run),
    /// Everything it knows, after a (re)connection at this moment (nanoseconds since 1970).
    Listed(Vec<Run>, i64),
}

type Answer = (Tell, Vec<OwnedFd>);

pub(crate) struct Client {
    config: Config,
    stop: CancellationToken,
    serial: AtomicU64,
    socket: Mutex<Option<Arc<AsyncFd<OwnedFd>>>>,
    pending: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    connected: Notify,
}

impl Client {
    /// Connects; starts the supervisor when there is none. `stop` ends [`Client::run`].
    pub(crate) async fn connect(config: &Config, stop: CancellationToken) -> Result<Arc<Client>> {
        let client = Arc::new(Client {
            config: config.clone(),
            stop,
            serial: AtomicU64::new(0),
            socket: Mutex::new(None),
            pending: Mutex::default(),
            connected: Notify::new(),
        });
        client.establish().await?;
        Ok(client)
    }

    async fn establish(&self) -> Result<()> {
        let socket = match self.try_connect() {
            Ok(socket) => socket,
            Err(_) => self.spawn_and_connect().await?,
        };
        *self.socket.lock().expect("no holder panics") = Some(Arc::new(socket));
        self.connected.notify_waiters();
        Ok(())
    }

    fn try_connect(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let dir: OwnedFd = std::fs::File::open(&self.config.state_dir)?.into();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &socket_address(&dir)?)?;
        packet::watched(socket)
    }

    async fn spawn_and_connect(&self) -> Result<AsyncFd<OwnedFd>> {
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        let mut started = Started::new(self.spawn()?);
        loop {
            match self.try_connect() {
                Ok(socket) => {
                    started.keep();
                    return Ok(socket);
                }
                Err(e) if tokio::time::Instant::now() > deadline => {
                    started.end().await;
                    return Err(e)
                        .at("connect to the supervisor at", self.config.state_dir.join(SOCKET));
                }
                Err(_) => {}
            }
            match started.child.try_wait() {
                // Another one held the lock: it is about to listen, or about to be gone.
                Ok(Some(status)) if status.success() => started = Started::new(self.spawn()?),
                Ok(Some(status)) => {
                    let place = self.config.state_dir.join(LOG);
                    let place = place.display();
                    return Err(Error::Supervisor(format!("it ended with {status}; see {place}")));
                }
                _ => {}
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = self.stop.cancelled() => {
                    started.end().await;
                    return Err(Error::Supervisor("the agent ends".to_owned()));
                }
            }
        }
    }

    fn spawn(&self) -> Result<tokio::process::Child> {
        let state = &self.config.state_dir;
        let log_path = state.join(LOG);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log_path)
            .at("open", &log_path)?;
        let mut words = self.config.supervisor_command.iter();
        let program =
            words.next().ok_or_else(|| Error::Invalid("supervisor_command is empty".to_owned()))?;
        let file = super::program::unwritable(program)?;
        // Not killed on drop: once connected it outlives us. Tokio collects it should it end before.
        tokio::process::Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .arg0(program)
            // It has no use for the agent's environment, and what it has a container might see.
            .env_clear()
            .args(words)
            .arg("--state-dir")
            .arg(state)
            .arg("--cgroup-root")
            .arg(&self.config.cgroup_root)
            .arg("--cgroup")
            .arg(format!("{}/supervisor", self.config.cgroup_parent))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .spawn()
            .at("start the supervisor", program)
    }

    /// Reads until `stop`; reconnects whenever the supervisor has gone. Once this has returned, no
    /// supervisor is started, and none that was started is on its way.
    pub(crate) async fn run(self: Arc<Self>, news: mpsc::UnboundedSender<News>) {
        loop {
            let socket = self.socket.lock().expect("no holder panics").clone();
            if let Some(socket) = socket {
                let reading = self.list(&socket, &news);
                if let Some(Err(e)) = self.stop.run_until_cancelled(reading).await {
                    tracing::warn!("supervisor: {e}");
                }
            }
            *self.socket.lock().expect("no holder panics") = None;
            self.pending.lock().expect("no holder panics").clear();
            if self.stop.is_cancelled() {
                return;
            }
            tracing::warn!("supervisor is gone: starting another one");
            if !self.reconnect().await {
                return;
            }
        }
    }

    /// Whether there is a supervisor again; there is none when the agent ends.
    async fn reconnect(&self) -> bool {
        // A supervisor that ends together with us is not started again.
        while !self.stop.is_cancelled() {
            match self.establish().await {
                Ok(()) => return true,
                Err(e) => tracing::error!("supervisor: {}", e.chain()),
            }
            let pause = tokio::time::sleep(RESPAWN);
            let _ended = self.stop.run_until_cancelled(pause).await;
        }
        false
    }

    /// Asks for the list, then reads for as long as the connection lasts.
    async fn list(
        &self,
        socket: &AsyncFd<OwnedFd>,
        news: &mpsc::UnboundedSender<News>,
    ) -> io::Result<()> {
        let since = super::now_ns();
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().expect("no holder panics").insert(serial, sender);
        send(socket, &Request { serial, ask: Some(Ask::List(true)) }.encode_to_vec(), &[]).await?;
        let mut receiver = Some(receiver);
        let mut buffer = vec![0u8; packet::MAX_PACKET];
        loop {
            let (count, fds) = receive(socket, &mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            let reply = Reply::decode(&buffer[..count]).map_err(io::Error::other)?;
            self.heard(reply, fds, news);
            if let Some(Ok((Tell::Listed(_), fds))) = receiver.as_mut().map(|r| r.try_recv()) {
                receiver = None;
                let bytes = match fds.into_iter().next() {
                    Some(fd) => packet::from_memory_file(fd)?,
                    None => Vec::new(),
                };
                let list = RunList::decode(&bytes[..]).map_err(io::Error::other)?;
                if list.replaceable() {
                    return replace(socket);
                }
                if list.level < LEVEL {
                    tracing::warn!(
                        "the supervisor is of an earlier version, and stays while containers \
                         with terminals run: start the node again to have its protection"
                    );
                }
                let _ = news.send(News::Listed(list.runs, since));
            }
        }
    }

    fn heard(&self, reply: Reply, fds: Vec<OwnedFd>, news: &mpsc::UnboundedSender<News>) {
        let Some(tell) = reply.tell else { return };
        match (reply.serial, tell) {
            (0, Tell::Exited(run)) => drop(news.send(News::Exited(run))),
            (serial, tell) => {
                let waiting = self.pending.lock().expect("no holder panics").remove(&serial);
                if let Some(waiting) = waiting {
                    let _ = waiting.send((tell, fds));
                }
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn ask(&self, ask: Ask, fds: &[BorrowedFd<'_>]) -> Result<Answer> {
        let socket = self.socket().await?;
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().expect("no holder panics").insert(serial, sender);
        let bytes = Request { serial, ask: Some(ask) }.encode_to_vec();
        if let Err(e) = send(&socket, &bytes, fds).await {
            self.pending.lock().expect("no holder panics").remove(&serial);
            return Err(Error::Supervisor(format!("send: {e}")));
        }
        match receiver.await {
            Ok((Tell::Failed(f), _)) => {
                Err(Error::Start { step: f.step, source: io::Error::from_raw_os_error(f.errno) })
            }
            Ok(answer) => Ok(answer),
            Err(_) => Err(Error::Supervisor("it went away during the request".to_owned())),
        }
    }

    /// Sends a plan in a memory file, with an exec's streams.
    pub(crate) async fn start(
        &self,
        plan: &crate::wire::Plan,
        streams: &[OwnedFd],
    ) -> Result<(Run, Option<OwnedFd>)> {
        let file = packet::to_memory_file(&plan.encode_to_vec()).doing("write the plan")?;
        let mut fds = vec![file.as_fd()];
        fds.extend(streams.iter().map(|fd| fd.as_fd()));
        match self.ask(Ask::Start(true), &fds).await? {
            (Tell::Started(run), fds) => Ok((run, fds.into_iter().next())),
            (other, _) => Err(Error::Supervisor(format!("unexpected answer {other:?}"))),
        }
    }

    /// Makes a user namespace; returns the descriptors of it, uts, and as asked net and ipc.
    pub(crate) async fn user_namespace(&self, ask: UserNamespaceAsk) -> Result<Vec<OwnedFd>> {
        match self.ask(Ask::UserNamespace(ask), &[]).await? {
            (Tell::Namespaces(_), fds) => Ok(fds),
            (other, _) => Err(Error::Supervisor(format!("unexpected answer {other:?}"))),
        }
    }

    async fn socket(&self) -> Result<Arc<AsyncFd<OwnedFd>>> {
        let waits = async {
            loop {
                let connected = self.connected.notified();
                if let Some(socket) = self.socket.lock().expect("no holder panics").clone() {
                    return socket;
                }
                connected.await;
            }
        };
        let late = |_| Error::Supervisor(format!("not there (lock {LOCK})"));
        tokio::time::timeout(START_LIMIT, waits).await.map_err(late)
    }
}

/// A supervisor that was started and is not connected yet. It ends with this value unless it is kept:
/// it may not have reached its lock and its cgroup, so nobody else would find it.
struct Started {
    child: tokio::process::Child,
    kept: bool,
}

impl Started {
    fn new(child: tokio::process::Child) -> Started {
        Started { child, kept: false }
    }

    fn keep(mut self) {
        self.kept = true;
    }

    /// Kills it and waits for its end.
    async fn end(mut self) {
        if let Err(e) = self.child.kill().await {
            tracing::error!("supervisor not ended: {e}");
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.kept {
            // One that has ended by itself is no error.
            let _ended = self.child.start_kill();
        }
    }
}

/// Ends a supervisor of an earlier version. The next one adopts what runs.
fn replace(socket: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(socket.get_ref())?;
    tracing::info!("the supervisor is of an earlier version: replaced");
    Ok(rustix::process::kill_process(peer.pid, rustix::process::Signal::KILL)?)
}

async fn send(socket: &AsyncFd<OwnedFd>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    loop {
        let mut ready = socket.writable().await?;
        match ready.try_io(|s| packet::send(s.get_ref().as_fd(), bytes, fds)) {
            Ok(done) => return done,
            Err(_) => continue,
        }
    }
}

async fn receive(
    socket: &AsyncFd<OwnedFd>,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|s| packet::receive(s.get_ref().as_fd(), buffer)) {
            Ok(done) => return done,
            Err(_) => continue,
        }
    }
}
