//! A conversion webhook on this machine's loopback: widths become sizes and back.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// How the webhook behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    /// One object fewer than was sent.
    Short,
    /// Another name.
    Renames,
    Refuses,
    /// HTTP 500 with a text.
    Fails,
    /// No answer ever.
    Hangs,
}

pub(crate) struct Hook {
    pub(crate) address: SocketAddr,
    /// PEM of the authority, base64.
    pub(crate) bundle: String,
    pub(crate) mood: Arc<Mutex<Mood>>,
    /// Numbers of objects in each request.
    pub(crate) asked: Arc<Mutex<Vec<usize>>>,
    /// Connections that were opened.
    pub(crate) connections: Arc<Mutex<usize>>,
}

pub(crate) fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("signs").pem();
    (STANDARD.encode(pem), Issuer::new(params, key))
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    CertificateParams::new(names).expect("names")
}

impl Hook {
    /// One whose certificate, by an authority of its own, is for `names`.
    pub(crate) async fn start(names: &[&str]) -> Hook {
        let (bundle, issuer) = authority();
        let key = KeyPair::generate().expect("a key");
        let own = params(names).signed_by(&key, &issuer).expect("signs");
        Hook::serve(bundle, CertificateDer::from(own.der().to_vec()), &key).await
    }

    /// One with a certificate that is its own authority, as `openssl req -x509` makes them.
    pub(crate) async fn self_signed(names: &[&str]) -> Hook {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(names);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("signs");
        let bundle = STANDARD.encode(own.pem());
        Hook::serve(bundle, CertificateDer::from(own.der().to_vec()), &key).await
    }

    async fn serve(bundle: String, own: CertificateDer<'static>, key: &KeyPair) -> Hook {
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_no_client_auth()
            .with_single_cert(vec![own], key)
            .expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let hook = Hook {
            address: listener.local_addr().expect("bound"),
            bundle,
            mood: Arc::new(Mutex::new(Mood::Good)),
            asked: Arc::default(),
            connections: Arc::default(),
        };
        let (mood, asked) = (hook.mood.clone(), hook.asked.clone());
        let (tls, opened) =
            (tokio_rustls::TlsAcceptor::from(Arc::new(tls)), hook.connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *opened.lock().expect("sound") += 1;
                tokio::spawn(serve(stream, tls.clone(), mood.clone(), asked.clone()));
            }
        });
        hook
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().expect("sound") = mood;
    }

    pub(crate) fn take_asked(&self) -> Vec<usize> {
        std::mem::take(&mut *self.asked.lock().expect("sound"))
    }
}

async fn serve(
    stream: TcpStream,
    tls: tokio_rustls::TlsAcceptor,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<Mutex<Vec<usize>>>,
) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (mood, asked) = (*mood.lock().expect("sound"), asked.clone());
        async move {
            assert_eq!(request.uri().to_string(), "/convert?timeout=30s");
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let review: Value = serde_json::from_slice(&body).expect("a review");
            let count = review["request"]["objects"].as_array().map_or(0, Vec::len);
            asked.lock().expect("sound").push(count);
            if mood == Mood::Hangs {
                std::future::pending::<()>().await;
            }
            let text = Bytes::from(answer(&review, mood).to_string());
            let mut response = Response::new(Full::new(text));
            if mood == Mood::Fails {
                *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                *response.body_mut() = Full::new(Bytes::from_static(b"broken"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(review: &Value, mood: Mood) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or("");
    let objects = request["objects"].as_array().cloned().unwrap_or_default();
    let mut converted: Vec<Value> = objects.into_iter().map(|o| convert(o, wanted)).collect();
    match mood {
        Mood::Short => drop(converted.pop()),
        Mood::Renames => converted.iter_mut().for_each(|o| o["metadata"]["name"] = "other".into()),
        _ => {}
    }
    let result = match mood {
        Mood::Refuses => json!({"status": "Failed", "message": "not today"}),
        _ => json!({"status": "Success"}),
    };
    json!({
        "apiVersion": review["apiVersion"], "kind": "ConversionReview",
        "response": {"uid": request["uid"], "result": result, "convertedObjects": converted},
    })
}

/// `spec.size` of v1 is `spec.width` of v2.
fn convert(mut object: Value, wanted: &str) -> Value {
    let (from, to) = if wanted.ends_with("v2") { ("size", "width") } else { ("width", "size") };
    object["apiVersion"] = wanted.into();
    if let Some(spec) = object["spec"].as_object_mut()
        && let Some(value) = spec.remove(from)
    {
        spec.insert(to.into(), value);
    }
    object["metadata"]["labels"]["seen"] = "yes".into();
    object["metadata"]["generation"] = 99.into();
    object
}
