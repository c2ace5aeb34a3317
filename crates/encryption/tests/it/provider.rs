//! A KMS v2 provider on a unix socket, which does as it is told. It knows the messages from the API's definition,
//! not from the crate.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

/// Status, Encrypt and Decrypt, with all fields that any of them has.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Encrypt {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
}

#[derive(Clone, PartialEq, Message)]
struct Encrypted {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Decrypt {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Decrypted {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

/// What the provider does.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    pub(crate) version: String,
    pub(crate) healthz: String,
    /// The key that Status names.
    pub(crate) key_id: String,
    /// The key that Encrypt uses, when it is another one.
    pub(crate) encrypts_with: Option<String>,
    pub(crate) annotations: BTreeMap<String, Vec<u8>>,
    /// Takes requests and never answers.
    pub(crate) stalls: bool,
    /// Answers Decrypt with this error.
    pub(crate) refuses: Option<(u32, &'static str)>,
    /// Answers Encrypt with so many bytes.
    pub(crate) ciphertext: Option<usize>,
    /// Methods that were called, in order.
    pub(crate) calls: Vec<String>,
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        Behaviour {
            version: "v2".into(),
            healthz: "ok".into(),
            key_id: "1".into(),
            encrypts_with: None,
            annotations: BTreeMap::from([("version.encryption.example".to_owned(), b"1".to_vec())]),
            stalls: false,
            refuses: None,
            ciphertext: None,
            calls: Vec::new(),
        }
    }
}

/// A provider that listens until it is dropped or [`Provider::stop`]ped.
pub(crate) struct Provider {
    folder: tempfile::TempDir,
    behaviour: Arc<Mutex<Behaviour>>,
    task: Option<JoinHandle<()>>,
}

impl Provider {
    pub(crate) fn start() -> Provider {
        let mut provider = Provider::stopped();
        provider.listen();
        provider
    }

    pub(crate) fn stopped() -> Provider {
        let folder = tempfile::tempdir().expect("a folder");
        Provider { folder, behaviour: Arc::default(), task: None }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("kms.sock")
    }

    /// The provider's element in a configuration.
    pub(crate) fn config(&self, name: &str) -> String {
        let path = self.path();
        format!(
            "{{kms: {{apiVersion: v2, name: {name}, endpoint: 'unix://{}', timeout: 300ms}}}}",
            path.display()
        )
    }

    pub(crate) fn listen(&mut self) {
        let listener = UnixListener::bind(self.path()).expect("a socket");
        let behaviour = self.behaviour.clone();
        self.task = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let behaviour = behaviour.clone();
                let serve = service_fn(move |request| answer(behaviour.clone(), request));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                connections.spawn(server.serve_connection(TokioIo::new(stream), serve));
            }
        }));
    }

    /// Ends it and everything on its connections.
    pub(crate) async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            task.await.expect_err("it was aborted");
        }
        std::fs::remove_file(self.path()).expect("the socket");
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().expect("no panic"));
    }

    /// How often a method was called.
    pub(crate) fn calls(&self, method: &str) -> usize {
        let behaviour = self.behaviour.lock().expect("no panic");
        behaviour.calls.iter().filter(|called| *called == method).count()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(
    behaviour: Arc<Mutex<Behaviour>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let method = path.strip_prefix("/v2.KeyManagementService/").expect("a method of the API");
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let now = {
        let mut behaviour = behaviour.lock().expect("no panic");
        behaviour.calls.push(method.to_owned());
        behaviour.clone()
    };
    if now.stalls {
        std::future::pending::<()>().await;
    }
    let outcome = match method {
        "Status" => Ok(Status {
            version: now.version.clone(),
            healthz: now.healthz.clone(),
            key_id: now.key_id.clone(),
        }
        .encode_to_vec()),
        "Encrypt" => Ok(encrypt(&now, &Encrypt::decode(&body[5..]).expect("a message"))),
        "Decrypt" => decrypt(&now, &Decrypt::decode(&body[5..]).expect("a message")),
        other => panic!("{other} is no method of the API"),
    };
    Ok(response(outcome))
}

/// The key's id, a zero, and the bytes turned over.
fn encrypt(now: &Behaviour, request: &Encrypt) -> Vec<u8> {
    assert!(!request.uid.is_empty());
    let key_id = now.encrypts_with.clone().unwrap_or_else(|| now.key_id.clone());
    let mut ciphertext = key_id.clone().into_bytes();
    ciphertext.push(0);
    ciphertext.extend(request.plaintext.iter().rev().map(|byte| !byte));
    if let Some(size) = now.ciphertext {
        ciphertext = vec![7; size];
    }
    Encrypted { ciphertext, key_id, annotations: now.annotations.clone() }.encode_to_vec()
}

fn decrypt(now: &Behaviour, request: &Decrypt) -> Result<Vec<u8>, (u32, &'static str)> {
    if let Some(refusal) = now.refuses {
        return Err(refusal);
    }
    let mut prefix = request.key_id.clone().into_bytes();
    prefix.push(0);
    assert!(!request.uid.is_empty() && !request.annotations.is_empty(), "they come back as given");
    let rest = request.ciphertext.strip_prefix(prefix.as_slice()).ok_or((3, "another key"))?;
    Ok(Decrypted { plaintext: rest.iter().rev().map(|byte| !byte).collect() }.encode_to_vec())
}

fn response(outcome: Result<Vec<u8>, (u32, &'static str)>) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    let mut frames = Vec::new();
    let code = match outcome {
        Ok(message) => {
            let mut framed = BytesMut::new();
            framed.put_u8(0);
            framed.put_u32(u32::try_from(message.len()).expect("short"));
            framed.put_slice(&message);
            frames.push(Ok(Frame::data(framed.freeze())));
            0
        }
        Err((code, message)) => {
            trailers.insert("grpc-message", message.parse().expect("a header"));
            code
        }
    };
    trailers.insert("grpc-status", code.into());
    frames.push(Ok(Frame::trailers(trailers)));
    let body = StreamBody::new(futures::stream::iter(frames));
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(UnsyncBoxBody::new(body)).expect("a response")
}
