//! Exec, attach and port-forward: descriptors between the caller and the container, and nothing else.
//!
//! An exec's pipes connect the caller to the process itself; the supervisor is not in between. A
//! terminal's master comes back from the supervisor. An attachment goes through the supervisor,
//! which copies the container's output to everyone who listens.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::records::ContainerRecord;
use super::{Inner, foreign, new_id, pins};
use crate::error::{Error, IoContext, Result};
use crate::plan;
use crate::service::{Duplex, ExecSession, Input, Output, StreamOptions, TerminalSize};
use crate::wire::{Ask, Attach, Plan, Resize, Run};

/// To connect to a pod's port: its own rules may drop what we send.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Sizes waiting to be set: only the last one matters.
const RESIZE_BACKLOG: usize = 4;

/// A descriptor as an asynchronous stream: pipes and terminal masters alike.
struct Stream {
    fd: AsyncFd<OwnedFd>,
}

impl Stream {
    fn new(fd: OwnedFd) -> Result<Stream> {
        rustix::io::ioctl_fionbio(&fd, true).doing("set up a stream")?;
        Ok(Stream { fd: crate::packet::watched(fd).doing("set up a stream")? })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            let space = buffer.initialize_unfilled();
            match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), space)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // A terminal's way to say that the last process has closed it.
                Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            if let Ok(done) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(done);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A writer that closes for real when it is shut down: the reader shall see the end.
struct Closing(Option<Stream>);

impl AsyncWrite for Closing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(stream) => Pin::new(stream).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}

/// The caller's ends of a process's streams, and the process's.
pub(super) struct Pipes {
    stdin: Option<Output>,
    pub(super) stdout: Option<Input>,
    pub(super) stderr: Option<Input>,
    pub(super) theirs: Vec<OwnedFd>,
}

/// A pipe for each wanted stream; for the others `unused` decides what the other side gets.
pub(super) fn pipes(wanted: StreamOptions, with_null: bool) -> Result<Pipes> {
    let mut theirs = Vec::new();
    let null = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    let mut stdin = None;
    if wanted.stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).doing("make a pipe")?;
        theirs.push(read);
        stdin = Some(Box::new(Closing(Some(Stream::new(write)?))) as Output);
    } else if with_null {
        theirs.push(null().at("open", "/dev/null")?.into());
    }
    let mut output = |wanted: bool| -> Result<Option<Input>> {
        if wanted {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).doing("make a pipe")?;
            theirs.push(write);
            return Ok(Some(Box::new(Stream::new(read)?) as Input));
        }
        if with_null {
            theirs.push(null().at("open", "/dev/null")?.into());
        }
        Ok(None)
    };
    let stdout = output(wanted.stdout)?;
    let stderr = output(wanted.stderr)?;
    Ok(Pipes { stdin, stdout, stderr, theirs })
}

pub(super) async fn exit(mut watch: watch::Receiver<Option<Run>>) -> Result<Run> {
    let ended = watch.wait_for(|run| run.as_ref().is_some_and(|r| r.ended)).await;
    let ended = ended.map_err(|_| Error::Supervisor("the runtime is shutting down".to_owned()))?;
    Ok(ended.clone().unwrap_or_default())
}

async fn exit_code(watch: watch::Receiver<Option<Run>>) -> Result<i32> {
    exit(watch).await.map(|run| run.exit_code)
}

impl Inner {
    /// The record of a container that a process may be started in.
    pub(super) fn exec_target(&self, id: &str, cmd: &[String]) -> Result<ContainerRecord> {
        let record = self.container_record(id)?;
        if !record.running() {
            return Err(Error::Precondition(format!("container {id} is not running")));
        }
        if cmd.is_empty() {
            return Err(Error::Invalid("no command specified".to_owned()));
        }
        Ok(record)
    }

    /// Starts the process of a plan; returns where its end is told, and a terminal's master.
    pub(super) async fn start_exec(
        &self,
        plan: &Plan,
        theirs: &[OwnedFd],
    ) -> Result<(watch::Receiver<Option<Run>>, Option<OwnedFd>)> {
        // Before the start: its end may be news sooner than its start.
        let watch = watch::Sender::new(None);
        let receiver = watch.subscribe();
        self.state().others.insert(plan.id.clone(), watch);
        match self.launch_exec(plan, theirs).await {
            Ok((run, master)) => {
                if let Some(other) = self.state().others.get(&plan.id) {
                    other.send_replace(Some(run));
                }
                Ok((receiver, master))
            }
            Err(e) => {
                self.state().others.remove(&plan.id);
                Err(e)
            }
        }
    }

    /// By the runtime of the container that the plan is for.
    async fn launch_exec(&self, plan: &Plan, theirs: &[OwnedFd]) -> Result<(Run, Option<OwnedFd>)> {
        // The probe of user namespaces is in no container.
        let record = (!plan.exec_in.is_empty()).then(|| self.container_record(&plan.exec_in));
        let record = record.transpose()?;
        let runtime = record.as_ref().map(|record| self.oci_runtime_of(record)).transpose()?;
        let (Some(record), Some(runtime)) = (record, runtime.flatten()) else {
            return self.client.start(plan, theirs).await;
        };
        let (launch, bundle) = self.exec_in_oci(&runtime, &record.id, plan)?;
        let none = if plan.tty { foreign::no_streams()?.theirs } else { Vec::new() };
        let theirs = if plan.tty { &none } else { theirs };
        let started = self.client.start(&launch, theirs).await;
        started.map_err(|e| Inner::exec_failed(&runtime, &bundle, e))
    }

    /// A process with streams of the caller's. When the caller goes away its streams end, as upstream:
    /// a terminal hangs up, a pipe breaks; the process goes on until it notices or its container ends.
    pub(super) async fn exec(
        &self,
        id: &str,
        cmd: Vec<String>,
        streams: StreamOptions,
    ) -> Result<ExecSession> {
        let record = self.exec_target(id, &cmd)?;
        let container = record.plan.unwrap_or_default();
        let plan = plan::exec(&container, new_id(), cmd, streams.tty, None);
        let pipes = if streams.tty { None } else { Some(pipes(streams, true)?) };
        let theirs = pipes.as_ref().map_or(&[][..], |p| &p.theirs[..]);
        let (watch, master) = self.start_exec(&plan, theirs).await?;
        let exit = exit_code(watch);
        let (sizes, resize) = mpsc::channel(RESIZE_BACKLOG);
        let session = match (pipes, master) {
            (Some(p), _) => ExecSession {
                stdin: p.stdin,
                stdout: p.stdout,
                stderr: p.stderr,
                resize: sizes,
                exit: Box::pin(exit),
            },
            (None, Some(master)) => terminal(master, streams, sizes, resize, exit)?,
            (None, None) => return Err(Error::Supervisor("no terminal came".to_owned())),
        };
        Ok(session)
    }

    pub(super) async fn attach(
        self: &Arc<Self>,
        id: &str,
        streams: StreamOptions,
    ) -> Result<ExecSession> {
        let (record, watch) = {
            let state = self.state();
            let container =
                state.containers.get(id).ok_or_else(|| Error::not_found("container", id))?;
            (container.record.clone(), container.run.subscribe())
        };
        if !record.running() {
            return Err(Error::Precondition(format!("container {id} is not running")));
        }
        let config = record.config();
        let stderr = streams.stderr && !config.tty;
        let wanted = StreamOptions { stdin: streams.stdin && config.stdin, stderr, ..streams };
        let pipes = pipes(wanted, false)?;
        let ask = Attach { id: id.to_owned(), stdin: wanted.stdin, stdout: wanted.stdout, stderr };
        let fds: Vec<_> = pipes.theirs.iter().map(|fd| fd.as_fd()).collect();
        self.client.ask(Ask::Attach(ask), &fds).await?;
        let (sizes, mut resize) = mpsc::channel::<TerminalSize>(RESIZE_BACKLOG);
        let inner = self.clone();
        let id = id.to_owned();
        // The task ends when the session drops its sender.
        let resizing = async move {
            while let Some(size) = resize.recv().await {
                let (width, height) = (size.width.into(), size.height.into());
                if let Err(e) = inner
                    .client
                    .ask(Ask::Resize(Resize { id: id.clone(), width, height }), &[])
                    .await
                {
                    tracing::debug!("resize: {e}");
                }
            }
        };
        drop(tokio::spawn(resizing));
        let exit = Box::pin(exit_code(watch));
        Ok(ExecSession {
            stdin: pipes.stdin,
            stdout: pipes.stdout,
            stderr: pipes.stderr,
            resize: sizes,
            exit,
        })
    }

    pub(super) async fn port_forward(&self, id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        let sandbox = self.sandbox_record(id)?;
        if !sandbox.ready {
            return Err(Error::Precondition(format!("sandbox {id} is not running")));
        }
        let own = !super::sandbox::on_node(super::sandbox::namespaces(&sandbox.config()).network);
        let namespace =
            if own { Some(pins::net(&self.pin_dir(id))) } else { self.config.node_netns.clone() };
        let connect = move || {
            if let Some(path) = &namespace {
                pins::enter(path)?;
            }
            let connect = |ip: IpAddr| {
                std::net::TcpStream::connect_timeout(&(ip, port).into(), CONNECT_LIMIT)
            };
            let stream = connect(Ipv4Addr::LOCALHOST.into())
                .or_else(|e| connect(Ipv6Addr::LOCALHOST.into()).map_err(|_| e));
            let stream = stream.doing("connect to the port in the sandbox")?;
            stream.set_nonblocking(true).doing("set up a stream")?;
            Ok(stream)
        };
        let stream = pins::on_thread(connect).await?;
        Ok(Box::new(TcpStream::from_std(stream).doing("set up a stream")?))
    }
}

fn terminal(
    master: OwnedFd,
    streams: StreamOptions,
    sizes: mpsc::Sender<TerminalSize>,
    mut resize: mpsc::Receiver<TerminalSize>,
    exit: impl Future<Output = Result<i32>> + Send + 'static,
) -> Result<ExecSession> {
    let copy = || master.try_clone().doing("copy the terminal");
    let stdin = if streams.stdin { Some(Box::new(Stream::new(copy()?)?) as Output) } else { None };
    let stdout = if streams.stdout { Some(Box::new(Stream::new(copy()?)?) as Input) } else { None };
    // The task ends when the session drops its sender; until then it keeps the terminal open.
    let resizing = async move {
        while let Some(size) = resize.recv().await {
            let size = rustix::termios::Winsize {
                ws_row: size.height,
                ws_col: size.width,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            if let Err(e) = rustix::termios::tcsetwinsize(&master, size) {
                tracing::debug!("resize: {e}");
            }
        }
    };
    drop(tokio::spawn(resizing));
    Ok(ExecSession { stdin, stdout, stderr: None, resize: sizes, exit: Box::pin(exit) })
}
