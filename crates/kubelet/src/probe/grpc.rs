//! The gRPC health check (`grpc.health.v1.Health/Check`): two messages of one field each.

use std::time::Duration;

use bytes::Bytes;
use grpc::Code;
use http::HeaderMap;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::dial;
use crate::config::Dialer;
use crate::pod::plan::go_duration;

/// Longest answer: a real one has seven bytes. The server is a pod's, and may send for ever.
const BODY_MAX: usize = 4 << 10;
const HEADERS_MAX: u32 = 16 << 10;
/// Wait before a connection that failed is tried again, while there is time (gRPC's first back-off).
const RETRY: Duration = Duration::from_secs(1);

/// Codes that have a sentence of their own.
const OK: u32 = 0;
const UNIMPLEMENTED: u32 = 12;
/// `HealthCheckResponse.ServingStatus`, and the one that is healthy.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;

/// How an RPC ended: gRPC's code and its words.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    code: u32,
    message: String,
}

pub(super) async fn check(
    dialer: &dyn Dialer,
    (host, port): (&str, u16),
    service: &str,
    limit: Duration,
) -> Result<(), String> {
    let until = Instant::now() + limit;
    let shown = go_duration(limit);
    let to = dial::join(host, port);
    let connect = connect(dialer, host, port);
    let stream = tokio::time::timeout_at(until, connect).await.map_err(|_| {
        format!(
            "timeout: failed to connect service \"{to}\" within {shown}: context deadline exceeded"
        )
    })?;
    let rpc = tokio::time::timeout_at(until, call(stream, &to, service)).await;
    let answer = rpc.map_err(|_| format!("timeout: health rpc did not complete within {shown}"))?;
    match answer {
        Ok(SERVING) => Ok(()),
        Ok(other) => {
            let index = usize::try_from(other).unwrap_or(usize::MAX);
            let name = STATUSES.get(index).map_or_else(|| other.to_string(), |s| (*s).to_owned());
            Err(format!("service unhealthy (responded with \"{name}\")"))
        }
        Err(Status { code: UNIMPLEMENTED, message }) => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Err(Status { code, message }) => {
            let name = Code::name(code);
            Err(format!(
                "error: health rpc probe failed: rpc error: code = {name} desc = {message}"
            ))
        }
    }
}

/// Tries until it succeeds: the caller keeps the time.
async fn connect(dialer: &dyn Dialer, host: &str, port: u16) -> TcpStream {
    loop {
        match dial::tcp(dialer, host, port).await {
            Ok(stream) => return stream,
            Err(error) => tracing::debug!(error, "gRPC probe does not connect"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn unavailable(message: impl std::fmt::Display) -> Status {
    Status { code: 14, message: message.to_string() }
}

/// The status that the service answers with.
async fn call(stream: TcpStream, to: &str, service: &str) -> Result<u64, Status> {
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.max_header_list_size(HEADERS_MAX);
    let shaken = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(unavailable)?;
    let request = http::Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(message(service)))
        .map_err(unavailable)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(unavailable)?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            return Err(http_status(head.status));
        }
        let body = Limited::new(body, BODY_MAX).collect().await.map_err(unavailable)?;
        let ended = body.trailers().and_then(status).or_else(|| status(&head.headers));
        match ended {
            Some(Status { code: OK, .. }) => serving(&body.to_bytes()),
            Some(failed) => Err(failed),
            None => Err(Status {
                code: 13,
                message: "server closed the stream without sending trailers".into(),
            }),
        }
    };
    tokio::select! {
        answer = exchange => answer,
        _ = connection => Err(unavailable("error reading from server: EOF")),
    }
}

/// What a server that is no gRPC server has answered.
fn http_status(status: http::StatusCode) -> Status {
    let code = match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    };
    let words = status.canonical_reason().unwrap_or("");
    let message =
        format!("unexpected HTTP status code received from server: {} ({words})", status.as_u16());
    Status { code, message }
}

fn status(headers: &HeaderMap) -> Option<Status> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let code = text("grpc-status").parse().ok()?;
    Some(Status { code, message: unescape(text("grpc-message")) })
}

/// gRPC's messages have `%XX` for what no header may have.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex =
            |b: &[u8]| std::str::from_utf8(b).ok().and_then(|h| u8::from_str_radix(h, 16).ok());
        match tail.get(..2).filter(|_| *first == b'%').and_then(hex) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Frame head of five bytes, then field 1 as a varint; absent is 0.
fn serving(body: &[u8]) -> Result<u64, Status> {
    let broken = || Status { code: 13, message: "the answer is no health check's".into() };
    let message = body.get(5..).ok_or_else(broken)?;
    let Some((0x08, value)) = message.split_first() else {
        return if message.is_empty() { Ok(0) } else { Err(broken()) };
    };
    let mut number = 0u64;
    for (n, byte) in value.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * n).min(63);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(broken())
}

/// `HealthCheckRequest` in its frame.
fn message(service: &str) -> Bytes {
    let mut field = Vec::new();
    if !service.is_empty() {
        field.push(0x0a);
        varint(service.len(), &mut field);
        field.extend(service.as_bytes());
    }
    let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
    let mut out = vec![0];
    out.extend(length.to_be_bytes());
    out.extend(field);
    Bytes::from(out)
}

fn varint(mut number: usize, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::body::{Frame, Incoming};
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::PlainDialer;

    const LIMIT: Duration = Duration::from_secs(20);

    type Body = http_body_util::StreamBody<
        futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>,
    >;

    /// By the service that is asked for: a status, or how the RPC fails.
    async fn answer(request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let service = String::from_utf8_lossy(asked.get(7..).unwrap_or_default()).into_owned();
        let (code, text, body) = match service.as_str() {
            "down" => ("0", "", vec![0, 0, 0, 0, 2, 8, 2]),
            "none" => ("5", "unknown%20service", vec![]),
            "old" => ("12", "no method", vec![]),
            "hang" => std::future::pending().await,
            "web" => {
                let body = http_body_util::StreamBody::new(futures::stream::iter(vec![]));
                return Ok(http::Response::builder().status(404).body(body).unwrap());
            }
            _ => ("0", "", vec![0, 0, 0, 0, 2, 8, 1]),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.parse().unwrap());
        trailers.insert("grpc-message", text.parse().unwrap());
        let frames = vec![Ok(Frame::data(Bytes::from(body))), Ok(Frame::trailers(trailers))];
        Ok(http::Response::new(http_body_util::StreamBody::new(futures::stream::iter(frames))))
    }

    async fn start() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
        port
    }

    #[tokio::test]
    async fn every_answer_has_upstreams_words() {
        let port = start().await;
        let ask = |service: &'static str, limit| async move {
            check(&PlainDialer, ("127.0.0.1", port), service, limit).await
        };
        assert_eq!(ask("", LIMIT).await, Ok(()));
        let long = "x".repeat(300);
        assert_eq!(check(&PlainDialer, ("127.0.0.1", port), &long, LIMIT).await, Ok(()));
        let says = |text: &str| Err(text.to_owned());
        let down = "service unhealthy (responded with \"NOT_SERVING\")";
        assert_eq!(ask("down", LIMIT).await, says(down));
        let none =
            "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service";
        assert_eq!(ask("none", LIMIT).await, says(none));
        let old = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no method";
        assert_eq!(ask("old", LIMIT).await, says(old));
        let web = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unexpected HTTP status code received from server: 404 (Not Found)";
        assert_eq!(ask("web", LIMIT).await, says(web));
        let hang = "timeout: health rpc did not complete within 1s";
        assert_eq!(ask("hang", Duration::from_secs(1)).await, says(hang));
    }

    #[tokio::test]
    async fn what_does_not_listen_uses_its_time_up() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        tokio::time::pause();
        let asked = check(&PlainDialer, ("127.0.0.1", free.port()), "", Duration::from_secs(3));
        let said = format!(
            "timeout: failed to connect service \"{free}\" within 3s: context deadline exceeded"
        );
        assert_eq!(asked.await, Err(said));
    }
}
