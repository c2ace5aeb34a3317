//! The streaming server: sessions that were asked for over gRPC, at URLs that work once and for a minute.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::runtime::{ExecSession, RuntimeService, StreamOptions, TerminalSize};
use bytes::Bytes;
use grpc::Code;
use grpc::server::Status;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use streams::{forward, remote};
use tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// How long a URL waits for its client, and how many do at most (upstream's).
const LIFE: Duration = Duration::from_secs(60);
const WAITING_MAX: usize = 1000;

/// What a client may open.
#[derive(Debug, Clone)]
pub(super) enum Session {
    Exec { container: String, command: Vec<String>, streams: StreamOptions },
    Attach { container: String, streams: StreamOptions },
    PortForward { sandbox: String },
}

impl Session {
    fn path(&self) -> &'static str {
        match self {
            Session::Exec { .. } => "exec",
            Session::Attach { .. } => "attach",
            Session::PortForward { .. } => "portforward",
        }
    }
}

/// The server of one runtime.
pub struct Streaming {
    at: SocketAddr,
    runtime: Arc<dyn RuntimeService>,
    waiting: Mutex<HashMap<String, (Instant, Session)>>,
}

impl std::fmt::Debug for Streaming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Streaming({})", self.at)
    }
}

impl Streaming {
    /// Serves on `listener`, which only this machine should reach, until the tasks end.
    pub fn serve(
        listener: TcpListener,
        runtime: Arc<dyn RuntimeService>,
        tasks: &Tasks,
    ) -> std::io::Result<Arc<Streaming>> {
        let at = listener.local_addr()?;
        let server = Arc::new(Streaming { at, runtime, waiting: Mutex::default() });
        tasks.spawn("streaming server", server.clone().accept(listener, tasks.clone()));
        Ok(server)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, (Instant, Session)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The URL of a session, for whoever knows it.
    pub(super) fn open(&self, session: Session) -> Result<String, Status> {
        let mut waiting = self.waiting();
        waiting.retain(|_, (since, _)| since.elapsed() < LIFE);
        if waiting.len() >= WAITING_MAX {
            return Err(Status::new(
                Code::ResourceExhausted,
                "maximum number of in-flight requests exceeded",
            ));
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        let url = format!("http://{}/{}/{token}", self.at, session.path());
        waiting.insert(token, (Instant::now(), session));
        Ok(url)
    }

    /// The session of a path, which nobody can have again.
    fn take(&self, path: &str) -> Option<Session> {
        let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
        let mut waiting = self.waiting();
        let (since, session) = waiting.get(token).filter(|(_, session)| session.path() == kind)?;
        let session = (since.elapsed() < LIFE).then(|| session.clone());
        waiting.remove(token);
        session
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, tasks: Tasks) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = self.clone().connection(stream, tasks.clone());
                    tasks.spawn("streaming connection", connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "the streaming server takes no connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, tasks: Tasks) {
        let service = hyper::service::service_fn(move |request| {
            let answer = self.answer(request, &tasks);
            async move { Ok::<_, Infallible>(answer) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(hyper_util::rt::TokioTimer::new())
            .header_read_timeout(LIFE)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        if let Err(error) = served.await {
            tracing::debug!(%error, "a streaming connection ended");
        }
    }

    fn answer(&self, mut request: Request<Incoming>, tasks: &Tasks) -> Response<Full<Bytes>> {
        let Some(session) = self.take(request.uri().path()) else {
            return told(StatusCode::NOT_FOUND, "404 page not found\n".into());
        };
        let runtime = self.runtime.clone();
        let accepted = match session {
            Session::Exec { container, command, streams } => {
                let start = move || async move { runtime.exec(&container, command, streams).await };
                joined(&mut request, remote::Kind::Exec, streams, start)
            }
            Session::Attach { container, streams } => {
                let start = move || async move { runtime.attach(&container, streams).await };
                joined(&mut request, remote::Kind::Attach, streams, start)
            }
            Session::PortForward { sandbox } => {
                let connect: forward::Connect = Arc::new(move |port| {
                    let (runtime, sandbox) = (runtime.clone(), sandbox.clone());
                    Box::pin(async move {
                        let connected = runtime.port_forward(&sandbox, port).await;
                        let boxed = |stream| Box::new(stream) as Box<dyn streams::Duplex>;
                        connected.map(boxed).map_err(|error| error.chain())
                    })
                });
                let ports = ports(request.uri().query());
                forward::accept(&mut request, ports, connect)
            }
        };
        match accepted {
            Ok(upgrade) => {
                tasks.spawn("streaming session", upgrade.session);
                upgrade.response.map(|()| Full::default())
            }
            Err(refusal) => {
                let code = StatusCode::from_u16(refusal.code);
                told(code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), refusal.message)
            }
        }
    }
}

fn told(code: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    response
}

/// The ports that a WebSocket client names in its query.
fn ports(query: Option<&str>) -> Vec<u16> {
    let pairs = query.unwrap_or("").split('&').filter_map(|pair| pair.strip_prefix("port="));
    pairs.flat_map(|list| list.split(',')).filter_map(|port| port.parse().ok()).collect()
}

/// Joins a client to what `start` starts, once the client is there.
fn joined<S, F>(
    request: &mut Request<Incoming>,
    kind: remote::Kind,
    streams: StreamOptions,
    start: S,
) -> Result<streams::Upgrade, streams::Refusal>
where
    S: FnOnce() -> F + Send + 'static,
    F: Future<Output = ::runtime::Result<ExecSession>> + Send + 'static,
{
    let start: remote::Starter = Box::new(move || {
        Box::pin(async move { start().await.map(process).map_err(|e| e.chain()) })
    });
    let StreamOptions { stdin, stdout, stderr, tty } = streams;
    remote::accept(request, kind, remote::Options { stdin, stdout, stderr, tty }, start)
}

/// A runtime's session as the streaming protocols see it.
fn process(session: ExecSession) -> remote::Process {
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let resize: remote::Resize = Box::new(move |remote::Size { width, height }| {
        let to = resize.clone();
        Box::pin(async move { to.send(TerminalSize { width, height }).await.is_ok() })
    });
    let exit = Box::pin(async move { exit.await.map_err(|error| error.chain()) });
    remote::Process { stdin, stdout, stderr, resize, exit }
}
