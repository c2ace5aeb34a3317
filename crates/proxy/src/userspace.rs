//! Offers a port of the cluster on another network through sockets: no rule, no route, no link.
//!
//! A listener on the outer side (the host's loopback), a connection from inside the node's
//! namespace per client; the bytes are copied. For UDP each client address is a flow with a socket
//! of its own inside, forgotten after some idle time.
//!
//! The service sees the node as its client: source addresses do not pass sockets.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use listener::{Gate, Limits};
use network::NetNs;
use network::netns::{tcp_connect, udp_bind};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Forwards one listening address. Dropping it closes the listener and cuts its connections.
#[derive(Debug)]
pub struct Forwarder {
    local: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Time after which a silent UDP flow is forgotten: the kernel's own limit for UDP streams.
const UDP_IDLE: Duration = Duration::from_secs(120);
/// UDP flows per listener: a bound on sockets that a scan could make us open.
const MAX_UDP_FLOWS: usize = 1024;
/// Datagrams of one flow that wait for its socket; more are dropped, as a router would.
const UDP_QUEUE: usize = 64;
/// Largest datagram.
const DATAGRAM_BYTES: usize = 65_536;
/// Time for a connection inside to come about.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Connections of one port at a time. Each takes two descriptors of the process that holds the
/// control plane.
const MAX_CONNECTIONS: usize = 1024;

impl Forwarder {
    /// Takes connections at `listener` to `target`, as seen from inside `netns`.
    pub fn tcp(
        listener: TcpListener,
        netns: Option<NetNs>,
        target: SocketAddr,
    ) -> io::Result<Self> {
        let forwarder = Forwarder::new(listener.local_addr()?);
        let stop = forwarder.stop.clone();
        forwarder.tasks.spawn(stop.run_until_cancelled_owned(accept(listener, netns, target)));
        forwarder.tasks.close();
        Ok(forwarder)
    }

    /// Takes datagrams at `socket` to `target`, as seen from inside `netns`.
    pub fn udp(socket: UdpSocket, netns: Option<NetNs>, target: SocketAddr) -> io::Result<Self> {
        let forwarder = Forwarder::new(socket.local_addr()?);
        let stop = forwarder.stop.clone();
        let relay = Relay { outer: Arc::new(socket), netns, target };
        forwarder.tasks.spawn(stop.run_until_cancelled_owned(relay.run()));
        forwarder.tasks.close();
        Ok(forwarder)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Closes the listener and its connections, and waits until they are closed.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    fn new(local: SocketAddr) -> Self {
        Forwarder { local, stop: CancellationToken::new(), tasks: TaskTracker::new() }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, netns: Option<NetNs>, target: SocketAddr) {
    let gate = Gate::new(Limits { per_source: MAX_CONNECTIONS, ..Limits::new(MAX_CONNECTIONS) });
    // The set is dropped, and its connections with it, when this future is cancelled.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (client, _, slot) = listener::accept(&listener, &gate) => {
                let netns = netns.clone();
                connections.spawn(async move {
                    // A tunnel may be silent for as long as its ends like.
                    let _work = slot.connection().request();
                    splice(client, netns, target).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn splice(mut client: TcpStream, netns: Option<NetNs>, target: SocketAddr) {
    let connecting = tokio::time::timeout(CONNECT_TIME, tcp_connect(netns.as_ref(), target)).await;
    let Ok(Ok(mut server)) = connecting else {
        // The client learns by a reset, as it would from the service itself.
        if let Err(e) = client.set_zero_linger() {
            tracing::debug!(error = %e, "reset a client whose service is unreachable");
        }
        return;
    };
    for side in [&client, &server] {
        if let Err(e) = side.set_nodelay(true) {
            tracing::debug!(error = %e, "set TCP_NODELAY");
        }
    }
    if let Err(e) = copy_bidirectional(&mut client, &mut server).await {
        tracing::debug!(%target, error = %e, "forwarded connection ended");
    }
}

struct Relay {
    outer: Arc<UdpSocket>,
    netns: Option<NetNs>,
    target: SocketAddr,
}

impl Relay {
    async fn run(self) {
        let mut flows: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
        let mut running = JoinSet::new();
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            tokio::select! {
                received = self.outer.recv_from(&mut buffer) => match received {
                    Ok((count, client)) => {
                        self.pass(&mut flows, &mut running, client, buffer[..count].to_vec());
                    }
                    // Errors here are answers to earlier datagrams (a client's port is closed).
                    Err(e) => tracing::debug!(error = %e, "receive a datagram to forward"),
                },
                Some(ended) = running.join_next() => {
                    if let Ok(client) = ended {
                        flows.remove(&client);
                    }
                }
            }
        }
    }

    fn pass(
        &self,
        flows: &mut HashMap<SocketAddr, mpsc::Sender<Vec<u8>>>,
        running: &mut JoinSet<SocketAddr>,
        client: SocketAddr,
        datagram: Vec<u8>,
    ) {
        if !flows.contains_key(&client) {
            if flows.len() >= MAX_UDP_FLOWS {
                return;
            }
            let inside = match udp_bind(self.netns.as_ref(), any_like(self.target)) {
                Ok(socket) => socket,
                Err(e) => {
                    tracing::warn!(error = %e, "open a socket inside the node's namespace");
                    return;
                }
            };
            let (sender, receiver) = mpsc::channel(UDP_QUEUE);
            running.spawn(flow(self.outer.clone(), inside, self.target, client, receiver));
            flows.insert(client, sender);
        }
        if let Some(sender) = flows.get(&client)
            && sender.try_send(datagram).is_err()
        {
            tracing::debug!(%client, "a forwarded datagram was dropped: the flow's queue is full");
        }
    }
}

/// One client's flow, until it has been silent for [`UDP_IDLE`]. Ends with the client's address.
async fn flow(
    outer: Arc<UdpSocket>,
    inside: UdpSocket,
    target: SocketAddr,
    client: SocketAddr,
    mut datagrams: mpsc::Receiver<Vec<u8>>,
) -> SocketAddr {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    if let Err(e) = inside.connect(target).await {
        tracing::debug!(%target, error = %e, "connect a forwarded flow");
        return client;
    }
    loop {
        let step = async {
            tokio::select! {
                datagram = datagrams.recv() => match datagram {
                    Some(datagram) => inside.send(&datagram).await.map(|_| ()),
                    None => Err(io::ErrorKind::BrokenPipe.into()),
                },
                answer = inside.recv(&mut buffer) => match answer {
                    Ok(count) => outer.send_to(&buffer[..count], client).await.map(|_| ()),
                    Err(e) => Err(e),
                },
            }
        };
        match tokio::time::timeout(UDP_IDLE, step).await {
            Ok(Ok(())) => {}
            // Nobody listens at the target now; the next datagram may find somebody.
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(Err(_)) | Err(_) => return client,
        }
    }
}

fn any_like(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        SocketAddr::V6(_) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}
