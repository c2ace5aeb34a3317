//! Exec, attach and port-forward: descriptors between the caller and the container, and nothing else.
//!
//! An exec's pipes connect the caller to the process itself; the supervisor is not in between. A
//! terminal's master comes back from the supervisor. An attachment goes through the supervisor,
//! which copies the container's output to everyone who listens.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::{Inner, new_id, pins};
use crate::cri::{ExecSyncRequest, ExecSyncResponse};
use crate::error::{Error, IoContext, Result};
use crate::plan;
use crate::service::{Duplex, ExecSession, Input, Output, StreamOptions, TerminalSize};
use crate::wire::{Ask, Attach, Resize, Run};

/// Bytes of one stream that exec_sync returns; the rest is read and dropped (CVE-2022-1708).
const OUTPUT_LIMIT: usize = 16 << 20;
/// Sizes waiting to be set: only the last one matters.
const RESIZE_BACKLOG: usize = 4;
/// How long output may still come after an exec's end: a child of it may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// A descriptor as an asynchronous stream: pipes and terminal masters alike.
struct Stream {
    fd: AsyncFd<OwnedFd>,
}

impl Stream {
    fn new(fd: OwnedFd) -> Result<Stream> {
        rustix::io::ioctl_fionbio(&fd, true).doing("set up a stream")?;
        Ok(Stream { fd: AsyncFd::new(fd).doing("set up a stream")? })
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(done) => return Poll::Ready(done),
                Err(_) => {}
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
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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
struct Pipes {
    stdin: Option<Output>,
    stdout: Option<Input>,
    stderr: Option<Input>,
    theirs: Vec<OwnedFd>,
}

/// A pipe for each wanted stream; for the others `unused` decides what the other side gets.
fn pipes(wanted: StreamOptions, with_null: bool) -> Result<Pipes> {
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

async fn exit_code(mut watch: watch::Receiver<Option<Run>>) -> Result<i32> {
    let ended = watch.wait_for(|run| run.as_ref().is_some_and(|r| r.ended)).await;
    let ended = ended.map_err(|_| Error::Supervisor("the runtime is shutting down".to_owned()))?;
    Ok(ended.as_ref().map_or(255, |r| r.exit_code))
}

impl Inner {
    /// Starts a process in a running container; its id is for signals.
    async fn start_exec(&self, id: &str, cmd: Vec<String>, streams: StreamOptions) -> Result<(String, ExecSession)> {
        let record = self.container_record(id)?;
        if !record.running() {
            return Err(Error::Precondition(format!("container {id} is not running")));
        }
        if cmd.is_empty() {
            return Err(Error::Invalid("no command specified".to_owned()));
        }
        let exec_id = new_id();
        let container = record.plan.unwrap_or_default();
        let plan = plan::exec(&container, exec_id.clone(), cmd, streams.tty);
        // Before the start: its end may be news sooner than its start.
        let watch = watch::Sender::new(None);
        let exit = exit_code(watch.subscribe());
        self.state().others.insert(exec_id.clone(), watch);
        let pipes = if streams.tty { None } else { Some(pipes(streams, true)?) };
        let theirs = pipes.as_ref().map_or(&[][..], |p| &p.theirs[..]);
        let (_, master) = match self.client.start(&plan, theirs).await {
            Ok(started) => started,
            Err(e) => {
                self.state().others.remove(&exec_id);
                return Err(e);
            }
        };
        let (sizes, resize) = mpsc::channel(RESIZE_BACKLOG);
        let session = match (pipes, master) {
            (Some(p), _) => ExecSession { stdin: p.stdin, stdout: p.stdout, stderr: p.stderr, resize: sizes, exit: Box::pin(exit) },
            (None, Some(master)) => terminal(master, streams, sizes, resize, exit)?,
            (None, None) => return Err(Error::Supervisor("no terminal came".to_owned())),
        };
        Ok((exec_id, session))
    }

    pub(super) async fn exec(&self, id: &str, cmd: Vec<String>, streams: StreamOptions) -> Result<ExecSession> {
        Ok(self.start_exec(id, cmd, streams).await?.1)
    }

    pub(super) async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
        let streams = StreamOptions { stdout: true, stderr: true, ..StreamOptions::default() };
        let (exec_id, session) = self.start_exec(&request.container_id, request.cmd, streams).await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let exit_code = {
            let outputs = async {
                tokio::join!(collect(session.stdout, &mut stdout), collect(session.stderr, &mut stderr));
            };
            let done = async {
                tokio::pin!(outputs);
                let mut exit = session.exit;
                tokio::select! {
                    code = &mut exit => {
                        let _ = tokio::time::timeout(OUTPUT_GRACE, outputs).await;
                        code
                    }
                    () = &mut outputs => exit.await,
                }
            };
            if request.timeout <= 0 {
                done.await?
            } else {
                let limit = Duration::from_secs(request.timeout.unsigned_abs());
                match tokio::time::timeout(limit, done).await {
                    Ok(code) => code?,
                    Err(_) => {
                        self.signal(&exec_id, libc::SIGKILL).await?;
                        return Err(Error::ExecTimeout(request.timeout));
                    }
                }
            }
        };
        Ok(ExecSyncResponse { stdout, stderr, exit_code })
    }

    pub(super) async fn attach(self: &Arc<Self>, id: &str, streams: StreamOptions) -> Result<ExecSession> {
        let (record, watch) = {
            let state = self.state();
            let container = state.containers.get(id).ok_or_else(|| Error::not_found("container", id))?;
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
                if let Err(e) = inner.client.ask(Ask::Resize(Resize { id: id.clone(), width, height }), &[]).await {
                    tracing::debug!("resize: {e}");
                }
            }
        };
        drop(tokio::spawn(resizing));
        let exit = Box::pin(exit_code(watch));
        Ok(ExecSession { stdin: pipes.stdin, stdout: pipes.stdout, stderr: pipes.stderr, resize: sizes, exit })
    }

    pub(super) async fn port_forward(&self, id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        let sandbox = self.sandbox_record(id)?;
        if !sandbox.ready {
            return Err(Error::Precondition(format!("sandbox {id} is not running")));
        }
        let own = !super::sandbox::on_node(super::sandbox::namespaces(&sandbox.config()).network);
        let namespace = if own { Some(pins::net(&self.pin_dir(id))) } else { self.config.node_netns.clone() };
        let connect = move || {
            if let Some(path) = &namespace {
                pins::enter(path)?;
            }
            let v4 = std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port));
            let stream = v4.or_else(|e| {
                std::net::TcpStream::connect((std::net::Ipv6Addr::LOCALHOST, port)).map_err(|_| e)
            });
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
            let size = rustix::termios::Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
            if let Err(e) = rustix::termios::tcsetwinsize(&master, size) {
                tracing::debug!("resize: {e}");
            }
        }
    };
    drop(tokio::spawn(resizing));
    Ok(ExecSession { stdin, stdout, stderr: None, resize: sizes, exit: Box::pin(exit) })
}

/// Reads to the end, keeps the first bytes.
async fn collect(stream: Option<Input>, out: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0u8; 32 << 10];
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        let room = OUTPUT_LIMIT.saturating_sub(out.len()).min(count);
        out.extend_from_slice(&buffer[..room]);
    }
}
