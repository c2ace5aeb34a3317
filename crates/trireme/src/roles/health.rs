//! Health and metrics ports of components that run alone, with upstream's paths.
//!
//! `/healthz`, `/livez` and `/readyz` are for everyone. Over HTTPS, `/metrics`, `/statusz` and `/flagz` are for those
//! whom the API server knows by their bearer token and allows it; the certificate is the process's own.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use client::{Client, Health, Tasks};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use listener::{Gate, Limits, Slot};
use pki::{Authority, CertSpec};
use telemetry::checks::{self, HealthChecks};
use telemetry::zpages::{self, Component};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::cluster::node::server_identity;
use crate::flags;

/// Connections of one port at a time: probes and those who read metrics.
const MAX_CONNECTIONS: usize = 256;

const HEALTH: [&str; 3] = ["/healthz", "/livez", "/readyz"];
const GUARDED: [&str; 5] = ["/metrics", checks::PATH, RESOURCES, "/statusz", "/flagz"];
/// What pods ask for, told by the scheduler.
const RESOURCES: &str = "/metrics/resources";
/// Of the binary, and of the API that its components speak.
const VERSIONS: (&str, &str) = ("1.36.2", "1.36");

/// A port that is open already, so that one in use is told before any work begins.
pub(crate) struct HealthPort {
    component: Component,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    guard: Option<Client>,
    health: bool,
    metrics: bool,
    checks: HealthChecks,
    /// The figures of [`RESOURCES`].
    resources: Option<Figures>,
}

/// Figures that are read when they are asked for.
pub(crate) type Figures = Box<dyn Fn() -> String + Send + Sync>;

/// The flags of components that serve HTTPS.
#[derive(Debug, clap::Args)]
pub(crate) struct SecurePort {
    /// Address that health and metrics are served on.
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// Port of health and metrics, by HTTPS; 0 serves none. Upstream's when absent.
    #[arg(long)]
    secure_port: Option<u16>,
}

impl SecurePort {
    /// Opens the port, `usual` unless the flag says otherwise.
    pub(crate) async fn open(
        &self,
        usual: u16,
        name: &str,
        client: Client,
    ) -> Result<Option<HealthPort>> {
        let port = self.secure_port.unwrap_or(usual);
        if port == 0 {
            return Ok(None);
        }
        let listener = bind(SocketAddr::new(self.bind_address, port), "--secure-port").await?;
        let tls = Some(TlsAcceptor::from(certificate(name)?));
        let (component, guard) = (flags::component(name), Some(client));
        let port = HealthPort { tls, guard, ..HealthPort::new(component, listener, [true, true]) };
        Ok(Some(port))
    }
}

async fn bind(at: SocketAddr, flag: &str) -> Result<TcpListener> {
    let bound = listener::bind(at).await;
    bound.with_context(|| format!("listen on {at}: choose another {flag}, or 0 for none"))
}

/// A certificate of an authority that is forgotten at once.
fn certificate(name: &str) -> Result<Arc<rustls::ServerConfig>> {
    let authority = Authority::create(&format!("{name}-ca"))?;
    let loopback = [IpAddr::from([127, 0, 0, 1])];
    let pair = authority.issue(&CertSpec::server(name, &["localhost"], &loopback))?;
    let (chain, key) = server_identity(&pair)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

impl HealthPort {
    /// Plain HTTP; port 0 serves none.
    pub(crate) async fn plain(
        at: SocketAddr,
        (name, flag): (&str, &str),
        [health, metrics]: [bool; 2],
    ) -> Result<Option<HealthPort>> {
        if at.port() == 0 {
            return Ok(None);
        }
        let listener = bind(at, flag).await?;
        Ok(Some(HealthPort::new(flags::component(name), listener, [health, metrics])))
    }

    fn new(
        component: Component,
        listener: TcpListener,
        [health, metrics]: [bool; 2],
    ) -> HealthPort {
        let (checks, resources) = (HealthChecks::default(), None);
        HealthPort {
            component,
            listener,
            tls: None,
            guard: None,
            health,
            metrics,
            checks,
            resources,
        }
    }

    /// Tells what pods ask for, too.
    pub(crate) fn with_resources(self, figures: Figures) -> HealthPort {
        HealthPort { resources: Some(figures), ..self }
    }

    /// Serves until the tasks end. A process is healthy while none of its essential and required tasks
    /// has failed.
    pub(crate) fn serve(self, tasks: &Tasks) {
        let own = tasks.clone();
        tasks.spawn("health port", self.accept(own));
    }

    async fn accept(self, tasks: Tasks) {
        let port = Arc::new(self);
        let gate = Gate::new(Limits::new(MAX_CONNECTIONS));
        loop {
            let (stream, _, slot) = tokio::select! {
                accepted = listener::accept(&port.listener, &gate) => accepted,
                () = tasks.cancelled() => return,
            };
            let (port, health) = (port.clone(), tasks.health().clone());
            tasks.spawn("health request", async move {
                tokio::select! {
                    () = port.connection(stream, &slot, &health) => {}
                    () = slot.connection().ended() => {}
                }
            });
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, slot: &Slot, health: &Health) {
        let served = match &self.tls {
            None => self.clone().http(stream, slot, health).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => self.clone().http(stream, slot, health).await,
                Err(error) => return tracing::debug!(%error, "health port: TLS handshake failed"),
            },
        };
        if let Err(error) = served {
            tracing::debug!(%error, "health request ended");
        }
    }

    async fn http<S>(self: Arc<Self>, stream: S, slot: &Slot, health: &Health) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connection = slot.connection().clone();
        let service = service_fn(move |request| {
            let (port, work) = (self.clone(), connection.request());
            let failing = health.failing();
            async move {
                let answer = port.answer(request, &failing).await;
                drop(work);
                Ok::<_, Infallible>(answer)
            }
        });
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        failing: &[&'static str],
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if self.health && HEALTH.contains(&path) {
            return self.checked(path, failing);
        }
        let is_served = path != RESOURCES || self.resources.is_some();
        if !(self.metrics && GUARDED.contains(&path) && is_served) {
            return text(StatusCode::NOT_FOUND, "404 page not found\n".into());
        }
        if let Some(client) = &self.guard
            && let Err((code, why)) = allowed(client, &request).await
        {
            return text(code, why);
        }
        let accept = request.headers().get(http::header::ACCEPT);
        let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or("");
        match path {
            "/statusz" => {
                let health = HEALTH.iter().filter(|_| self.health);
                let paths = health.chain(GUARDED.iter()).filter(|path| **path != "/statusz");
                zpage(zpages::statusz(&self.component, accept, paths.copied(), VERSIONS))
            }
            "/flagz" => zpage(zpages::flagz(&self.component, accept)),
            checks::PATH => text(StatusCode::OK, self.checks.text()),
            RESOURCES => text(StatusCode::OK, self.resources.iter().map(|told| told()).collect()),
            _ => {
                let figures = client::figures() + &controllers::figures() + &scheduler::figures();
                text(StatusCode::OK, figures + &telemetry::process_metrics())
            }
        }
    }
}

impl HealthPort {
    /// Answers a health endpoint: the process answers, and its tasks run.
    fn checked(&self, path: &str, failing: &[&'static str]) -> Response<Full<Bytes>> {
        let endpoint = path.trim_start_matches('/');
        self.checks.observe("ping", endpoint, true);
        self.checks.observe("tasks", endpoint, failing.is_empty());
        match failing {
            [] => text(StatusCode::OK, "ok".into()),
            _ => {
                let told = format!("not running: {}\n", failing.join(", "));
                text(StatusCode::INTERNAL_SERVER_ERROR, told)
            }
        }
    }
}

/// Asks the API server who calls and whether they may read this path.
async fn allowed(client: &Client, request: &Request<Incoming>) -> Result<(), (StatusCode, String)> {
    let path = request.uri().path();
    let header = request.headers().get(http::header::AUTHORIZATION);
    let token = header.and_then(|h| h.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned));
    let nobody = || (StatusCode::UNAUTHORIZED, "Unauthorized\n".to_owned());
    let failed = |error: client::Error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let spec = TokenReviewSpec { token: token.ok_or_else(nobody)?, audiences: None };
    let review = TokenReview { spec, ..TokenReview::default() };
    let review = client.create("", &review).await.map_err(failed)?;
    let status = review.status.filter(|s| s.authenticated == Some(true)).ok_or_else(nobody)?;
    let user = status.user.ok_or_else(nobody)?;
    let name = user.username.unwrap_or_default();
    let spec = SubjectAccessReviewSpec {
        user: Some(name.clone()),
        groups: user.groups,
        non_resource_attributes: Some(NonResourceAttributes {
            path: Some(path.to_owned()),
            verb: Some("get".into()),
        }),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let review = client.create("", &review).await.map_err(failed)?;
    match review.status.is_some_and(|s| s.allowed) {
        true => Ok(()),
        false => {
            let why = format!("forbidden: User {name:?} cannot get path {path:?}\n");
            Err((StatusCode::FORBIDDEN, why))
        }
    }
}

fn zpage(page: zpages::Page) -> Response<Full<Bytes>> {
    let code = StatusCode::from_u16(page.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = text(code, page.body);
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(page.content_type));
    if let Some(warning) = page.warning.and_then(|text| text.parse().ok()) {
        headers.insert(http::header::WARNING, warning);
    }
    response
}

fn text(code: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}
