//! Listening: a loop per UDP socket and per TCP listener, all ended together.
//!
//! Cluster names are answered within the receiving loop (they cost microseconds); forwarded ones
//! get a task each, up to a bound.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::Name;
use listener::{Gate, Limits, Slot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::forward::{Forward, ForwardConfig};
use crate::index::Index;
use crate::reply::{Reply, Responder, encode};

/// What a node's DNS must know.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The cluster's domain, usually `cluster.local`.
    pub zone: String,
    pub forward: ForwardConfig,
}

/// DNS on any number of sockets. Dropping it closes them.
#[derive(Debug)]
pub struct Server {
    responder: Arc<Responder>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Forwarded questions of one UDP socket at once: more are refused, so that a dead upstream cannot
/// fill the memory.
const MAX_FORWARDED: usize = 512;
/// TCP connections per listener at once, and from one client: resolvers use one or two. A client
/// that asks nothing makes room for those that do.
const MAX_CONNECTIONS: usize = 512;
const MAX_OF_CLIENT: usize = 16;
/// Time a TCP client may stay silent, or take for a request or an answer.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Largest request over UDP; real ones have under a hundred bytes.
const REQUEST_BYTES: usize = 4096;

impl Server {
    /// Prepares a server that answers from `index`. The zone must be a valid domain name.
    pub fn new(config: ServerConfig, index: Arc<RwLock<Index>>) -> io::Result<Self> {
        let zone = format!("{}.", config.zone.trim_end_matches('.').to_lowercase());
        let zone = Name::from_ascii(&zone)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("{zone}: {e}")))?;
        let forward = Forward::new(config.forward);
        let responder = Responder { index, zone, forward, turn: AtomicUsize::new(0) };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Ok(Server { responder: Arc::new(responder), stop, tasks })
    }

    /// Answers on a socket bound to one address (answers must come from the address asked).
    pub fn serve_udp(&self, socket: UdpSocket) {
        let work = udp_loop(self.responder.clone(), Arc::new(socket));
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(work));
    }

    pub fn serve_tcp(&self, listener: TcpListener) {
        let work = tcp_loop(self.responder.clone(), listener);
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(work));
    }

    /// Closes all sockets and waits until they are closed.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn udp_loop(responder: Arc<Responder>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; REQUEST_BYTES];
    let mut forwarded = JoinSet::new();
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok((count, client)) => {
                    let bytes = &buffer[..count];
                    udp_request(&responder, &socket, bytes, client, &mut forwarded).await;
                }
                // Errors here are answers to earlier datagrams (a client's port is closed).
                Err(e) => tracing::debug!(error = %e, "receive a DNS request"),
            },
            Some(_) = forwarded.join_next() => {}
        }
    }
}

async fn udp_request(
    responder: &Arc<Responder>,
    socket: &Arc<UdpSocket>,
    bytes: &[u8],
    client: SocketAddr,
    forwarded: &mut JoinSet<()>,
) {
    match responder.begin(bytes) {
        None => {}
        Some(Reply::Now(response)) => send(socket, bytes, &response, client).await,
        Some(Reply::Later { request, .. }) if forwarded.len() >= MAX_FORWARDED => {
            let (id, op_code) = (request.metadata.id, request.metadata.op_code);
            send(socket, bytes, &Message::error_msg(id, op_code, ResponseCode::ServFail), client)
                .await;
        }
        Some(Reply::Later { request, so_far }) => {
            let (responder, socket) = (responder.clone(), socket.clone());
            let bytes = bytes.to_vec();
            forwarded.spawn(async move {
                let response = responder.finish(&request, so_far).await;
                send(&socket, &bytes, &response, client).await;
            });
        }
    }
}

async fn send(socket: &UdpSocket, request: &[u8], response: &Message, client: SocketAddr) {
    let Some(bytes) = Responder::encode_udp(request, response) else { return };
    if let Err(e) = socket.send_to(&bytes, client).await {
        tracing::debug!(%client, error = %e, "send a DNS response");
    }
}

async fn tcp_loop(responder: Arc<Responder>, listener: TcpListener) {
    let limits = Limits {
        per_source: MAX_OF_CLIENT,
        first: TCP_IDLE,
        idle: TCP_IDLE,
        ..Limits::new(MAX_CONNECTIONS)
    };
    let gate = Gate::new(limits);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (stream, _, slot) = listener::accept(&listener, &gate) => {
                let responder = responder.clone();
                connections.spawn(async move {
                    let ended = tokio::select! {
                        ended = tcp_connection(&responder, stream, &slot) => ended,
                        () = slot.connection().ended() => return,
                    };
                    if let Err(e) = ended {
                        tracing::debug!(error = %e, "DNS connection ended");
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn tcp_connection(
    responder: &Responder,
    mut stream: TcpStream,
    slot: &Slot,
) -> io::Result<()> {
    loop {
        let request = tokio::time::timeout(TCP_IDLE, read_request(&mut stream)).await;
        let Ok(Ok(request)) = request else { return Ok(()) };
        let _work = slot.connection().request();
        let response = match responder.begin(&request) {
            None => return Ok(()),
            Some(Reply::Now(response)) => *response,
            Some(Reply::Later { request, so_far }) => responder.finish(&request, so_far).await,
        };
        let Some(bytes) = encode(&response) else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), bytes.as_slice()].concat();
        tokio::time::timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
}

async fn read_request(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut request = vec![0; usize::from(length)];
    stream.read_exact(&mut request).await?;
    Ok(request)
}
