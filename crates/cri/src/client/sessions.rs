//! Sessions at the runtime's streaming server.

use std::time::Duration;

use ::runtime::{Duplex, Error, ExecSession, Result, StreamOptions, TerminalSize};
use bytes::Bytes;
use futures::FutureExt as _;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use streams::client::{self, FORWARD_PROTOCOL, REMOTE_PROTOCOL};
use streams::remote::{Options, Size};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::Client;

/// Until the upgrade is answered.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of a refusal that are told.
const REFUSAL_MAX: usize = 4 << 10;
/// Terminal sizes that wait.
const SIZES: usize = 4;

fn failed(why: impl std::fmt::Display) -> Error {
    Error::Precondition(format!("the container runtime's streaming server: {why}"))
}

impl Client {
    /// Opens the session of an exec or an attachment.
    pub(super) async fn session(&self, url: &str, streams: StreamOptions) -> Result<ExecSession> {
        let connection = self.upgrade(url, REMOTE_PROTOCOL).await?;
        let StreamOptions { stdin, stdout, stderr, tty } = streams;
        let (remote, moving) = client::remote(connection, Options { stdin, stdout, stderr, tty });
        self.inner.tasks.spawn("foreign session", moving);
        let (resize, wanted) = mpsc::channel(SIZES);
        let sizes = pass_on(wanted, remote.resize);
        self.inner.tasks.spawn("terminal sizes", sizes);
        let exit = remote.exit.map(|exit| exit.map_err(failed)).boxed();
        let (stdin, stdout, stderr) = (remote.stdin, remote.stdout, remote.stderr);
        Ok(ExecSession { stdin, stdout, stderr, resize, exit })
    }

    pub(super) async fn forward(&self, url: &str, port: u16) -> Result<Box<dyn Duplex>> {
        let connection = self.upgrade(url, FORWARD_PROTOCOL).await?;
        let (stream, moving) = client::forward(connection, port);
        self.inner.tasks.spawn("foreign port", moving);
        Ok(Box::new(stream))
    }

    /// Opens what a URL of the runtime stands for.
    async fn upgrade(&self, url: &str, protocol: &'static str) -> Result<TokioIo<Upgraded>> {
        let opened = tokio::time::timeout(LIMIT, self.open(url, protocol)).await;
        opened.map_err(|_| failed("it does not answer in time"))?
    }

    async fn open(&self, url: &str, protocol: &'static str) -> Result<TokioIo<Upgraded>> {
        let uri: Uri = url.parse().map_err(failed)?;
        if uri.scheme_str() != Some("http") {
            return Err(Error::Unsupported(format!(
                "a streaming server by other than HTTP: {url}"
            )));
        }
        let authority = uri.authority().ok_or_else(|| failed("its URL has no host"))?;
        let port = authority.port_u16().unwrap_or(80);
        // A literal address: the runtime is on this machine.
        let host = authority.host().trim_matches(['[', ']']);
        let address: std::net::IpAddr = match host {
            "localhost" => std::net::Ipv4Addr::LOCALHOST.into(),
            literal => literal.parse().map_err(|_| failed(format!("{host} is no address")))?,
        };
        let stream = TcpStream::connect((address, port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let connection = connection.with_upgrades();
        self.inner.tasks.spawn("foreign streaming connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a streaming connection ended");
            }
        });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path)
            .header("host", authority.as_str())
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1")
            .header("x-stream-protocol-version", protocol)
            .body(Empty::<Bytes>::new())
            .map_err(failed)?;
        let response = sender.send_request(request).await.map_err(failed)?;
        let code = response.status();
        if code != StatusCode::SWITCHING_PROTOCOLS {
            let body = Limited::new(response.into_body(), REFUSAL_MAX).collect().await;
            let text = body.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(failed(format!("{code}: {}", String::from_utf8_lossy(&text).trim())));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
        Ok(TokioIo::new(upgraded))
    }
}

async fn pass_on(mut wanted: mpsc::Receiver<TerminalSize>, to: mpsc::Sender<Size>) {
    while let Some(TerminalSize { width, height }) = wanted.recv().await {
        if to.send(Size { width, height }).await.is_err() {
            return;
        }
    }
}
