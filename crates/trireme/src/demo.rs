//! `trireme demo`: the program inside `trireme.local/demo`, an echo server for trying the cluster.
//!
//! It says where it runs and what it was sent; its health can be switched off, and it ends on
//! demand. The image is made of this very binary.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use runtime::image::{ImageStore, StaticImage};

const VERSIONS: [&str; 2] = ["v1", "v2"];

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// Port to listen on.
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// Offers `trireme.local/demo:v1` and `:v2`: one layer, told apart by `DEMO_VERSION`.
pub(crate) fn build_images(images: &ImageStore) -> Result<()> {
    let file = std::env::current_exe().context("find this program's file")?;
    for version in VERSIONS {
        let name = format!("trireme.local/demo:{version}");
        let wanted = StaticImage {
            file: file.clone(),
            path: "/trireme".into(),
            entrypoint: vec!["/trireme".into(), "demo".into()],
            env: vec![format!("DEMO_VERSION={version}"), "PATH=/".into()],
            ports: vec!["8080/tcp".into()],
            working_dir: "/".into(),
            names: vec![name.clone()],
            ..StaticImage::default()
        };
        let image = images.build_static(&wanted).with_context(|| format!("make image {name}"))?;
        images.pin(&image.id, true)?;
    }
    Ok(())
}

/// Health and readiness as switched by requests.
#[derive(Debug)]
struct State {
    healthy: AtomicBool,
    ready: AtomicBool,
}

/// Serves until ended.
pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args.port))
}

async fn serve(port: u16) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", port))
        .await
        .with_context(|| format!("listen on {port}"))?;
    let version = std::env::var("DEMO_VERSION").unwrap_or_else(|_| "dev".into());
    println!("demo {version} on {} port {port}", host_name());
    let state = Arc::new(State { healthy: true.into(), ready: true.into() });
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (tcp, peer) = accepted?;
                connections.spawn(connection(tcp, peer, state.clone()));
            }
            Some(_) = connections.join_next() => {}
            ended = crate::roles::apiserver::interrupted() => return ended,
        }
    }
}

async fn connection(tcp: tokio::net::TcpStream, peer: SocketAddr, state: Arc<State>) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(&request, peer, &state)) }
    });
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // A client that goes away is none of our business.
    drop(server.serve_connection(TokioIo::new(tcp), service).await);
}

fn answer(request: &Request<Incoming>, peer: SocketAddr, state: &State) -> Response<Full<Bytes>> {
    let health = |flag: &AtomicBool| match flag.load(Ordering::Relaxed) {
        true => (200, "ok\n".to_owned()),
        false => (500, "failing on request\n".to_owned()),
    };
    let set = |flag: &AtomicBool, value: bool| {
        flag.store(value, Ordering::Relaxed);
        (200, "done\n".to_owned())
    };
    let (code, text) = match request.uri().path() {
        "/healthz" => health(&state.healthy),
        "/readyz" => health(&state.ready),
        "/healthz/fail" => set(&state.healthy, false),
        "/healthz/pass" => set(&state.healthy, true),
        "/readyz/fail" => set(&state.ready, false),
        "/readyz/pass" => set(&state.ready, true),
        "/exit" => {
            let code = request.uri().query().and_then(|q| q.strip_prefix("code=")?.parse().ok());
            println!("exit on request");
            std::process::exit(code.unwrap_or(1));
        }
        _ => (200, echo(request, peer)),
    };
    println!("{} {} {code} {peer}", request.method(), request.uri());
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}

fn echo(request: &Request<Incoming>, peer: SocketAddr) -> String {
    let mut out = format!(
        "host: {}\nversion: {}\nclient: {peer}\nrequest: {} {}\n",
        host_name(),
        std::env::var("DEMO_VERSION").unwrap_or_default(),
        request.method(),
        request.uri()
    );
    for (name, value) in request.headers() {
        writeln!(out, "header {name}: {}", String::from_utf8_lossy(value.as_bytes()))
            .expect("writing to a String");
    }
    for (name, value) in std::env::vars() {
        writeln!(out, "env {name}={value}").expect("writing to a String");
    }
    out
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
