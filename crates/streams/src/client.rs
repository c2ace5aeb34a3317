//! Exec, attach and port-forward as a client, over SPDY/3.1: the only protocol of container runtimes' streaming
//! servers in which standard input can end while the output goes on.

use std::future::Future;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, join_all};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};

use crate::remote::{Options, Size};
use crate::spdy::client::{Plan, collect, deliver, run};
use crate::spdy::outgoing;
use crate::{CHUNK, In, Input, Out, Outgoing, Output};

/// The subprotocol of exec and attach: the first with a structured result.
pub const REMOTE_PROTOCOL: &str = "v4.channel.k8s.io";
/// That of port-forward.
pub const FORWARD_PROTOCOL: &str = "portforward.k8s.io";
/// Bytes of a result or an error: more is not read.
const ERROR_MAX: usize = 64 << 10;
/// Terminal sizes that wait.
const SIZES: usize = 4;

/// A process elsewhere.
pub struct Remote {
    pub stdin: Option<Output>,
    pub stdout: Option<Input>,
    pub stderr: Option<Input>,
    pub resize: mpsc::Sender<Size>,
    /// The exit code; the error says why there is none.
    pub exit: BoxFuture<'static, Result<i32, String>>,
}

fn named(kind: &str) -> Vec<(&'static str, String)> {
    vec![("streamtype", kind.to_owned())]
}

/// A pipe, one end of which is boxed.
fn pipe() -> (DuplexStream, DuplexStream) {
    duplex(CHUNK)
}

/// Joins a process on an upgraded connection. The future moves its bytes: nothing happens without it.
pub fn remote<C>(connection: C, options: Options) -> (Remote, BoxFuture<'static, ()>)
where
    C: AsyncRead + AsyncWrite + Send + 'static,
{
    let Options { stdin, stdout, stderr, tty } = options;
    let (mut plan, (out, queue)) = (Plan::default(), outgoing());
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let (_, errors) = plan.open(named("error"));
    let mut remote = Remote {
        stdin: None,
        stdout: None,
        stderr: None,
        resize: mpsc::channel(SIZES).0,
        exit: Box::pin(std::future::ready(Ok(0))),
    };
    if stdin {
        let ((ours, theirs), (id, _)) = (pipe(), plan.open(named("stdin")));
        remote.stdin = Some(Box::new(theirs));
        inputs.push(collect(Box::new(ours), id, out.clone()).boxed());
    }
    let mut output = |wanted: bool, kind| {
        wanted.then(|| {
            let ((ours, theirs), (_, from)) = (pipe(), plan.open(named(kind)));
            outputs.push(deliver(from, Box::new(ours)).boxed());
            Box::new(theirs) as Input
        })
    };
    remote.stdout = output(stdout, "stdout");
    remote.stderr = output(stderr && !tty, "stderr");
    if tty {
        let (id, _) = plan.open(named("resize"));
        let (sizes, wanted) = mpsc::channel(SIZES);
        remote.resize = sizes;
        inputs.push(resize(wanted, id, out.clone()).boxed());
    }
    let (told, exit) = oneshot::channel();
    remote.exit = exit.map(|said| said.unwrap_or_else(|_| Err(lost()))).boxed();
    let session = async move {
        let result = async move {
            let result = result(&text(errors).await);
            // Whoever asked may have gone.
            drop(told.send(result));
            // Until here: the session ends when nothing more can be sent.
            drop(out);
        };
        let (inputs, outputs) = (join_all(inputs), join_all(outputs));
        drive(run(connection, plan, queue), inputs, futures::future::join(outputs, result)).await;
    };
    (remote, session.boxed())
}

/// Moves bytes until the session has ended and what it brought has been delivered.
async fn drive<S, I, R>(session: S, inputs: I, delivered: R)
where
    S: Future<Output = std::io::Result<()>>,
    I: Future,
    R: Future,
{
    let session = async {
        if let Err(error) = session.await {
            tracing::debug!(%error, "a streaming session was lost");
        }
    };
    // Input that nobody ends does not keep a session whose streams have ended.
    let inputs = async {
        inputs.await;
        std::future::pending().await
    };
    tokio::select! {
        _ = futures::future::join(session, delivered) => {}
        () = inputs => {}
    }
}

async fn resize(mut wanted: mpsc::Receiver<Size>, stream: u32, out: Out) {
    while let Some(Size { width, height }) = wanted.recv().await {
        let text = serde_json::json!({"Width": width, "Height": height}).to_string();
        let data = Some(Bytes::from(text + "\n"));
        if out.send(Outgoing { stream, data }).await.is_err() {
            return;
        }
    }
}

fn lost() -> String {
    "the connection to the container runtime was lost".to_owned()
}

/// All of a stream, up to [`ERROR_MAX`].
async fn text(mut from: In) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = from.recv().await {
        let room = ERROR_MAX.saturating_sub(all.len());
        all.extend_from_slice(&data[..data.len().min(room)]);
    }
    all
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    status: String,
    message: String,
    reason: String,
    details: Details,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    causes: Vec<Cause>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    message: String,
}

/// The exit code that the error stream tells.
fn result(text: &[u8]) -> Result<i32, String> {
    if text.is_empty() {
        return Err(lost());
    }
    let Ok(told) = serde_json::from_slice::<Status>(text) else {
        return Err(String::from_utf8_lossy(text).into_owned());
    };
    if told.status == "Success" {
        return Ok(0);
    }
    let code = told.details.causes.iter().find(|cause| cause.reason == "ExitCode");
    match code.map(|cause| cause.message.parse()) {
        Some(Ok(code)) if told.reason == "NonZeroExitCode" => Ok(code),
        _ => Err(told.message),
    }
}

/// Joins a port on an upgraded connection. The future moves its bytes: nothing happens without it. An error of
/// the other side ends the stream and is logged: it comes after the stream was opened.
pub fn forward<C>(connection: C, port: u16) -> (DuplexStream, BoxFuture<'static, ()>)
where
    C: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut plan, (out, queue)) = (Plan::default(), outgoing());
    let headers = |kind: &str| {
        let mut headers = named(kind);
        headers.extend([("port", port.to_string()), ("requestid", "0".to_owned())]);
        headers
    };
    let (error, errors) = plan.open(headers("error"));
    let (data, from) = plan.open(headers("data"));
    let (ours, theirs) = pipe();
    let (read, write) = tokio::io::split(ours);
    let session = async move {
        // Nothing is ever said on it.
        if out.send(Outgoing { stream: error, data: None }).await.is_err() {
            return;
        }
        let sending = collect(Box::new(read), data, out.clone());
        let result = async move {
            let said = text(errors).await;
            if !said.is_empty() {
                tracing::warn!(port, error = %String::from_utf8_lossy(&said), "port not forwarded");
            }
            drop(out);
        };
        let delivered = futures::future::join(deliver(from, Box::new(write)), result);
        drive(run(connection, plan, queue), sending, delivered).await;
    };
    (theirs, session.boxed())
}

#[cfg(test)]
mod tests {
    use super::result;

    #[test]
    fn results_are_codes_or_reasons() {
        let failure = |reason: &str, cause: &str, message: &str| {
            serde_json::json!({"status": "Failure", "message": "why", "reason": reason,
                "details": {"causes": [{"reason": cause, "message": message}]}})
            .to_string()
        };
        assert_eq!(result(br#"{"metadata":{},"status":"Success"}"#), Ok(0));
        assert_eq!(result(failure("NonZeroExitCode", "ExitCode", "7").as_bytes()), Ok(7));
        assert_eq!(
            result(failure("NonZeroExitCode", "ExitCode", "x").as_bytes()),
            Err("why".into())
        );
        assert_eq!(result(failure("InternalError", "", "no").as_bytes()), Err("why".into()));
        assert_eq!(result(b"plain words"), Err("plain words".into()));
        assert!(result(b"").unwrap_err().contains("was lost"));
    }
}
