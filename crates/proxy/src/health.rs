//! Health check node ports: a load balancer asks each node whether it has endpoints of a service.
//!
//! The answer is the same for every request on a port, so there is no HTTP library here: the request
//! is read up to its empty line and a fixed response is written. 200 with local endpoints, 503
//! without; the body is upstream's.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use listener::{Gate, Limits};
use network::NetNs;
use network::netns::tcp_listen;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::fragment::HealthCheck;

/// Serves the ports it is told to. Dropping it closes them.
#[derive(Debug)]
pub struct HealthServer {
    netns: Option<NetNs>,
    ports: BTreeMap<u16, Served>,
}

#[derive(Debug)]
struct Served {
    state: watch::Sender<HealthCheck>,
    _task: AbortOnDrop,
}

#[derive(Debug)]
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Bytes of a request's head that are read at most: load balancers send a few hundred.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Time a client has to send its request and read the answer.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Requests answered at once on one port; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;

impl HealthServer {
    pub fn new(netns: Option<NetNs>) -> Self {
        HealthServer { netns, ports: BTreeMap::new() }
    }

    /// Opens, updates and closes ports so that exactly `checks` are served. Ports that cannot be
    /// opened are returned with the reason; the others are served all the same.
    pub fn update(&mut self, checks: &[HealthCheck]) -> Vec<(HealthCheck, io::Error)> {
        self.ports.retain(|port, _| checks.iter().any(|check| check.port == *port));
        let mut failed = Vec::new();
        for check in checks {
            if let Some(served) = self.ports.get(&check.port) {
                served.state.send_replace(check.clone());
                continue;
            }
            match self.open(check) {
                Ok(served) => drop(self.ports.insert(check.port, served)),
                Err(e) => failed.push((check.clone(), e)),
            }
        }
        failed
    }

    fn open(&self, check: &HealthCheck) -> io::Result<Served> {
        let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), check.port);
        let listener = tcp_listen(self.netns.as_ref(), at)?;
        let (state, seen) = watch::channel(check.clone());
        let task = tokio::spawn(serve(listener, seen));
        Ok(Served { state, _task: AbortOnDrop(task.abort_handle()) })
    }
}

async fn serve(listener: TcpListener, state: watch::Receiver<HealthCheck>) {
    let gate = Gate::new(Limits { first: REQUEST_TIME, ..Limits::new(MAX_CONNECTIONS) });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (stream, _, slot) = listener::accept(&listener, &gate) => {
                let text = response(&state.borrow());
                connections.spawn(async move {
                    tokio::select! {
                        _ = tokio::time::timeout(REQUEST_TIME, answer(stream, text)) => {}
                        () = slot.connection().ended() => {}
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(mut stream: TcpStream, text: String) -> io::Result<()> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < MAX_HEAD_BYTES {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        head.extend_from_slice(&piece[..count]);
    }
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

fn response(check: &HealthCheck) -> String {
    let count = check.local_endpoints;
    let status = if count > 0 { "200 OK" } else { "503 Service Unavailable" };
    let (namespace, name) = (&check.service.namespace, &check.service.name);
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
         \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": true\n}}"
    );
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {count}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
