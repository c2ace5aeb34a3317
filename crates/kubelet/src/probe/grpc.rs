//! The gRPC health check (`grpc.health.v1.Health/Check`): two messages of one field each.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::kubelet::Shared;

/// `HealthCheckResponse.SERVING`.
const SERVING: u8 = 1;
/// Longest answer: a real one has seven bytes. The server is a pod's, and may send for ever.
const BODY_MAX: usize = 4 << 10;
const HEADERS_MAX: u32 = 16 << 10;

pub(super) async fn check(shared: &Shared, to: SocketAddr, service: &str) -> Result<(), String> {
    let stream = shared.dialer.tcp(to).await;
    let stream = stream.map_err(|e| format!("timeout: failed to connect service \"{to}\": {e}"))?;
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.max_header_list_size(HEADERS_MAX);
    let failed = |e: &dyn std::fmt::Display| format!("error: health rpc failed: {e}");
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    let request = http::Request::post(format!("http://{to}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(message(service)?));
    let request = request.map_err(|e| failed(&e))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let code = response.headers().get("grpc-status").cloned();
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
        let body = body.map_err(|e| e.to_string())?;
        let trailer = body.trailers().and_then(|t| t.get("grpc-status")).cloned();
        Ok::<_, String>((trailer.or(code), body.to_bytes()))
    };
    let (code, body) = tokio::select! {
        answer = exchange => answer.map_err(|e| failed(&e))?,
        _ = connection => return Err(failed(&"the connection was closed")),
    };
    if code.is_some_and(|c| c != "0") {
        return Err(failed(&"the server answered with an error"));
    }
    // Frame head of five bytes, then field 1 as a varint; absent is UNKNOWN.
    match body.get(5..) {
        Some([0x08, SERVING, ..]) => Ok(()),
        _ => Err("service unhealthy (responded with \"NOT_SERVING\")".into()),
    }
}

fn message(service: &str) -> Result<Bytes, String> {
    let length = u8::try_from(service.len()).ok().filter(|n| *n < 126);
    let length = length.ok_or("gRPC service name is too long")?;
    let mut out = vec![0, 0, 0, 0, 0];
    if length > 0 {
        out[4] = length + 2;
        out.extend([0x0a, length]);
        out.extend(service.as_bytes());
    }
    Ok(Bytes::from(out))
}
