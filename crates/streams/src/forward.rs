//! Port-forward: pairs of streams, data and error, each joined to a connection that the caller opens.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::handshake::{accept_spdy, accept_websocket, choose_websocket};
use crate::websocket::{self, Encoding};
use crate::{CHUNK, Duplex, In, Out, Outgoing, QUEUE, Refusal, Upgrade, is_websocket, spdy};

const SPDY_PROTOCOL: &str = "portforward.k8s.io";
/// A whole SPDY session inside WebSocket messages (kubectl from 1.31 on).
const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNEL_PROTOCOLS: &[&str] =
    &[TUNNEL_PROTOCOL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];

/// Connects to a port; the error is told to the client.
pub type Connect =
    Arc<dyn Fn(u16) -> BoxFuture<'static, Result<Box<dyn Duplex>, String>> + Send + Sync>;

/// Connections of one session, and streams that wait for their other half: each costs descriptors of
/// the whole process.
const CONNECTIONS_MAX: usize = 512;
const HALVES_MAX: usize = 64;
/// Channels are numbered by a byte, and a port has two.
const PORTS_MAX: usize = 127;

/// Accepts an upgrade request. `ports` are the query's, for WebSocket channels.
pub fn accept<B>(
    request: &mut http::Request<B>,
    ports: Vec<u16>,
    connect: Connect,
) -> Result<Upgrade, Refusal> {
    let upgrade = hyper::upgrade::on(&mut *request);
    let headers = request.headers();
    let (response, protocol) = if is_websocket(headers) {
        let protocol = choose_websocket(headers, CHANNEL_PROTOCOLS).ok_or_else(|| {
            Refusal::new(403, "unable to upgrade: no supported WebSocket subprotocol")
        })?;
        if protocol != TUNNEL_PROTOCOL && ports.is_empty() {
            return Err(Refusal::new(400, "query parameter \"port\" is required"));
        }
        if ports.len() > PORTS_MAX {
            return Err(Refusal::new(400, format!("more than {PORTS_MAX} ports")));
        }
        (accept_websocket(headers, protocol)?, protocol)
    } else {
        accept_spdy(headers, &[SPDY_PROTOCOL])?
    };
    let session = async move {
        let io = match upgrade.await {
            Ok(io) => TokioIo::new(io),
            Err(error) => return tracing::debug!(%error, "upgrade failed"),
        };
        match protocol {
            SPDY_PROTOCOL => over_spdy(io, connect).await,
            TUNNEL_PROTOCOL => over_tunnel(io, connect).await,
            _ => over_channels(io, protocol.contains("base64"), &ports, connect).await,
        }
    };
    Ok(Upgrade { response, session: session.boxed() })
}

/// Forwards until the client closes the session.
pub(crate) async fn over_spdy<C>(io: C, connect: Connect)
where
    C: AsyncRead + AsyncWrite + Send,
{
    let (streams, mut opened) = mpsc::channel::<spdy::Stream>(QUEUE);
    let (out, outgoing) = spdy::outgoing();
    let work = async {
        let mut pairs: HashMap<String, (Option<spdy::Stream>, Option<spdy::Stream>)> =
            HashMap::new();
        let mut active = FuturesUnordered::new();
        loop {
            let stream = tokio::select! {
                stream = opened.recv() => stream,
                Some(()) = active.next() => continue,
            };
            let Some(stream) = stream else { return };
            // Clients before 1.4 sent no request id; they open error before data, in turn.
            let key = stream.header("requestid").to_owned();
            let pair = pairs.entry(key.clone()).or_default();
            match stream.header("streamtype") {
                "error" => pair.0 = Some(stream),
                "data" => pair.1 = Some(stream),
                other => tracing::debug!(other, "unknown stream type"),
            }
            if pairs.len() > HALVES_MAX || active.len() >= CONNECTIONS_MAX {
                return tracing::debug!("port-forward session with too many connections");
            }
            if matches!(pairs.get(&key), Some((Some(_), Some(_)))) {
                let Some((Some(error), Some(data))) = pairs.remove(&key) else { continue };
                let port = data.header("port").parse().unwrap_or(0);
                active.push(one(port, data.id, error.id, data.input, out.clone(), connect.clone()));
            }
        }
    };
    // The session ends with its connection; `work` then sees no more streams.
    let ran = tokio::select! {
        ran = spdy::run(io, streams, outgoing) => ran,
        () = work => Ok(()),
    };
    if let Err(error) = ran {
        tracing::debug!(%error, "port-forward session ended");
    }
}

pub(crate) async fn over_tunnel<C>(io: C, connect: Connect)
where
    C: AsyncRead + AsyncWrite + Send,
{
    let (near, far) = tokio::io::duplex(2 * CHUNK);
    let (messages, received) = mpsc::channel(QUEUE);
    let (out, outgoing) = mpsc::channel(QUEUE);
    let run = websocket::run(io, Encoding::Raw, messages, outgoing);
    let ((), ran, ()) = futures::join!(over_spdy(far, connect), run, bridge(near, received, out));
    if let Err(error) = ran {
        tracing::debug!(%error, "port-forward tunnel ended");
    }
}

/// Moves bytes between messages and the session's stream.
async fn bridge(near: DuplexStream, mut received: mpsc::Receiver<(u8, Vec<u8>)>, out: Out) {
    let (mut from, mut to) = tokio::io::split(near);
    let inward = async move {
        while let Some((_, data)) = received.recv().await {
            if to.write_all(&data).await.is_err() {
                return;
            }
        }
        // The client has gone: the session sees the end of its stream.
        let _gone = to.shutdown().await;
    };
    let outward = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let data = Some(Bytes::copy_from_slice(&buffer[..n]));
            if out.send(Outgoing { stream: 0, data }).await.is_err() {
                return;
            }
        }
    };
    futures::join!(inward, outward);
}

async fn over_channels<C>(io: C, base64: bool, ports: &[u16], connect: Connect)
where
    C: AsyncRead + AsyncWrite + Send,
{
    let encoding = if base64 { Encoding::Base64 } else { Encoding::Binary };
    let (messages, mut received) = mpsc::channel::<(u8, Vec<u8>)>(QUEUE);
    let (out, outgoing) = mpsc::channel(QUEUE);
    let mut inputs = Vec::new();
    let active: FuturesUnordered<_> = ports
        .iter()
        .zip(0u32..)
        .map(|(port, i)| {
            let (sender, input) = mpsc::channel(QUEUE);
            inputs.push(sender);
            let (out, connect) = (out.clone(), connect.clone());
            async move {
                // Each channel opens with the port it is for.
                for stream in [2 * i, 2 * i + 1] {
                    let data = Some(Bytes::copy_from_slice(&port.to_le_bytes()));
                    if out.send(Outgoing { stream, data }).await.is_err() {
                        return;
                    }
                }
                one(*port, 2 * i, 2 * i + 1, input, out, connect).await;
            }
        })
        .collect();
    drop(out);
    let demux = async move {
        while let Some((channel, data)) = received.recv().await {
            let to = inputs.get(usize::from(channel / 2)).filter(|_| channel % 2 == 0);
            if let Some(to) = to {
                // A closed port drops what still comes.
                let _gone = to.send(Bytes::from(data)).await;
            }
        }
    };
    let run = websocket::run(io, encoding, messages, outgoing);
    let (ran, (), ()) = futures::join!(run, demux, active.collect::<()>());
    if let Err(error) = ran {
        tracing::debug!(%error, "port-forward channels ended");
    }
}

/// One connection, until both sides have ended.
async fn one(port: u16, data: u32, error: u32, mut input: In, out: Out, connect: Connect) {
    let connection = connect(port).await;
    let stream = match connection {
        Ok(stream) => stream,
        Err(failure) => {
            let text = format!("error forwarding port {port} to pod: {failure}");
            for (stream, bytes) in [(error, Some(Bytes::from(text))), (error, None), (data, None)] {
                if out.send(Outgoing { stream, data: bytes }).await.is_err() {
                    return;
                }
            }
            return;
        }
    };
    let (mut from, mut to) = tokio::io::split(stream);
    let inward = async {
        while let Some(bytes) = input.recv().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _gone = to.shutdown().await;
    };
    let outward = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let bytes = Some(Bytes::copy_from_slice(&buffer[..n]));
            if out.send(Outgoing { stream: data, data: bytes }).await.is_err() {
                return;
            }
        }
        for stream in [data, error] {
            let _gone = out.send(Outgoing { stream, data: None }).await;
        }
    };
    // Once the pod's side has ended nothing more can be said to it.
    tokio::pin!(outward);
    tokio::select! {
        () = &mut outward => {}
        () = inward => outward.await,
    }
}
