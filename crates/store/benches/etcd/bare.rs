//! etcd with nothing around it: single puts and gets over one HTTP/2 connection.

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Get {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct Bare(SendRequest<Full<Bytes>>);

impl Bare {
    pub(crate) async fn connect(address: &str) -> Bare {
        let stream = tokio::net::TcpStream::connect(address).await.expect("etcd listens");
        stream.set_nodelay(true).expect("a socket");
        let io = TokioIo::new(stream);
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        // Ends with its last sender; this process is a benchmark.
        drop(tokio::spawn(connection));
        Bare(sender)
    }

    async fn call(&self, path: &str, message: &impl Message) {
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(message.encoded_len() as u32);
        message.encode_raw(&mut body);
        let request = http::Request::post(format!("http://etcd{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))
            .expect("a request");
        let answer = self.0.clone().send_request(request).await.expect("an answer");
        let answer = answer.into_body().collect().await.expect("whole");
        let status = answer.trailers().and_then(|t| t.get("grpc-status")).expect("a verdict");
        assert_eq!(status, "0");
    }

    pub(crate) async fn put(&self, key: String, value: Vec<u8>) {
        self.call("/etcdserverpb.KV/Put", &Put { key: key.into_bytes(), value }).await;
    }

    pub(crate) async fn get(&self, key: String) {
        self.call("/etcdserverpb.KV/Range", &Get { key: key.into_bytes() }).await;
    }
}
