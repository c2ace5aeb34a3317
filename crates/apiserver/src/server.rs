//! The server as its handlers see it: the store, the tables, and who may do what.

use std::net::IpAddr;
use std::sync::Arc;

use api::registry::Registry;
use audit::Auditor;
use auth::{Authenticator, AuthorizationModes, Authorizer, User};
use bytes::Bytes;
use flowcontrol::FlowControl;
use http::{Request, Response};
use store::{CollectionSpec, Store};
use telemetry::zpages::Component;
use tokio_util::sync::CancellationToken;

use crate::aggregate::{Aggregator, FrontProxy};
use crate::dialer::{NodeAccess, NodeDialer};
use crate::exchange::{Exchange, Handler};
use crate::filters::{self, Filters};
use crate::legacy_tokens::{GENERATED, LegacyTokens};
use crate::life::Life;
use crate::parts::Parts;
use crate::resource_metrics::{self, KubeletFigures};
use crate::service_network::ServiceNetwork as NetworkOfServices;
use discovery::documents::Documents;
use extensions::Customs;
use resources::admission::Admission;
use resources::admission_options::AdmissionOptions;
use resources::health_check::HealthCheck;
use resources::identity::Identity;
use resources::limits::{InFlight, Limits};
use resources::metrics::Metrics;
use resources::ports::StoredObjects;
use resources::resources::{Resources, Settings};
use resources::respond::{self, Accept, Body};
use strategy::allocate::{Allocators, MASTERS, RANGES, ServiceNetwork};

/// What the wiring decides.
pub struct Config {
    pub authenticator: Arc<Authenticator>,
    pub service_network: ServiceNetwork,
    /// Where kubelets and pods are reached from.
    pub node_dialer: Arc<dyn NodeDialer>,
    /// Address and port published as the `kubernetes` Service's endpoint.
    pub advertise: (IpAddr, u16),
    /// Issues and checks service account tokens.
    pub tokens: Arc<pki::TokenIssuer>,
    /// How long events are kept after their last write (`--event-ttl`).
    pub event_ttl: std::time::Duration,
    /// `--authorization-mode`.
    pub authorization: AuthorizationModes,
    pub admission: AdmissionOptions,
    /// How extension servers know this one.
    pub front_proxy: Option<FrontProxy>,
    pub limits: Limits,
    /// Serve the versions that Kubernetes served once (`--runtime-config=legacy`).
    pub legacy: bool,
    /// Serve `metrics.k8s.io` from the kubelets' figures, unless an APIService names another server for it.
    pub resource_metrics: bool,
    /// What is told of requests, if anything is (`--audit-*`).
    pub auditor: Option<Arc<Auditor>>,
    /// Records requests, if anything does (`--tracing-config-file`).
    pub tracer: Option<Arc<traces::Tracer>>,
    /// Name and flags, for `/statusz` and `/flagz`.
    pub component: Component,
    /// Checks of `/healthz` and `/readyz` beside the server's own.
    pub health_checks: Vec<Arc<dyn HealthCheck>>,
    /// The other parts of the control plane by upstream's names, for ComponentStatuses.
    pub components: Vec<Arc<dyn HealthCheck>>,
    /// Figures for `/metrics` of parts that the server does not know.
    pub figures: Vec<Figures>,
}

/// Families of figures in Prometheus' text form.
pub type Figures = Box<dyn Fn() -> String + Send + Sync>;

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("admission: {0}")]
    Admission(String),
}

/// One API server. Clones are the same one.
#[derive(Clone)]
pub struct Server {
    pub(crate) parts: Arc<Parts>,
    filters: Arc<Filters>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

/// The collections every server keeps.
pub fn collections() -> Vec<CollectionSpec> {
    let mut specs: Vec<CollectionSpec> = Vec::new();
    for row in Registry::built_in().rows().iter().filter(|r| !r.prefix.is_empty()) {
        if !specs.iter().any(|s| s.prefix == row.prefix) {
            specs.push(CollectionSpec {
                prefix: row.prefix.clone(),
                selectable: row.selectable,
                indexed: row.indexed,
            });
        }
    }
    let unserved = [RANGES, MASTERS].map(|prefix| CollectionSpec {
        prefix: prefix.into(),
        selectable: &[],
        indexed: None,
    });
    specs.extend(unserved);
    specs
}

fn settings(config: &Config) -> Settings {
    Settings {
        event_ttl: config.event_ttl,
        watch_min: config.limits.watch_min,
        legacy: config.legacy,
    }
}

/// The metrics at `/metrics` beside those of requests.
fn add_figures(metrics: &Metrics, flow_control: &Arc<FlowControl>, others: Vec<Figures>) {
    metrics.add_flow_control(flow_control.clone());
    metrics.add_source(::admission::figures);
    metrics.add_source(::custom::figures);
    others.into_iter().for_each(|source| metrics.add_source(source));
}

impl Server {
    /// A server over a store that was opened with [`collections`].
    pub fn new(store: Store, config: Config) -> Result<Server, StartError> {
        let objects =
            Arc::new(StoredObjects { store: store.clone(), registry: Registry::built_in() });
        let allocators = Allocators::new(&config.service_network, &store);
        let settings = settings(&config);
        let authorizer = Arc::new(Authorizer::new(objects.clone(), config.authorization));
        let customs = Arc::<Customs>::default();
        let network =
            NetworkOfServices { store: store.clone(), dialer: config.node_dialer.clone() };
        let services: Arc<dyn webhook::Services> = Arc::new(network);
        let admission = Admission::new(
            store.clone(),
            (authorizer.clone(), &*objects),
            customs.clone(),
            (&config.admission, &services),
        );
        let admission = admission.map_err(StartError::Admission)?;
        let closing = CancellationToken::new();
        let nodes = NodeAccess {
            dialer: config.node_dialer,
            authorizer: authorizer.clone(),
            closing: closing.clone(),
        };
        let resource_metrics = config.resource_metrics.then(|| {
            let kubelets = KubeletFigures::new(store.clone(), nodes.dialer.clone());
            ::metrics::ResourceMetrics::new(Arc::new(kubelets))
        });
        let local = resource_metrics.as_ref().map(|_| resource_metrics::local());
        let aggregator = Aggregator::new(store.clone(), services, config.front_proxy, local);
        let identity = Identity {
            authenticator: config.authenticator,
            authorizer,
            objects,
            tokens: config.tokens,
        };
        let in_flight = Arc::new(InFlight::new(&config.limits));
        let metrics = Arc::new(Metrics::new(in_flight.clone()));
        let seats = u32::try_from(config.limits.reads + config.limits.changes).unwrap_or(u32::MAX);
        let patience = config.limits.request_timeout / 4;
        let flow_control = Arc::new(FlowControl::new(seats, patience));
        add_figures(&metrics, &flow_control, config.figures);
        let legacy_tokens = Arc::new(LegacyTokens::new(metrics.registry()));
        identity.authenticator.tell_legacy_uses(legacy_tokens.clone());
        if let Some(auditor) = &config.auditor {
            filters::audit::count(&metrics, auditor.clone());
        }
        let parts = Arc::new(Parts {
            identity: Arc::new(identity),
            legacy_tokens,
            aggregator: Arc::new(aggregator),
            resource_metrics,
            resources: Resources::new(store, allocators, (admission, customs), settings),
            nodes,
            auditor: config.auditor,
            tracer: config.tracer,
            metrics,
            flow_control,
            in_flight,
            limits: config.limits,
            advertise: config.advertise,
            life: Life::default(),
            component: config.component,
            health_checks: config.health_checks,
            checked: telemetry::checks::HealthChecks::default(),
            components: config.components,
            documents: Documents::default(),
            closing,
        });
        Ok(Server { filters: Arc::new(Filters::new(&parts)), parts })
    }

    /// Answers a request from the network; `certificate` is the client's (DER), if TLS verified one.
    pub async fn serve<B>(
        &self,
        request: Request<B>,
        certificate: Option<Arc<[u8]>>,
    ) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let network = &self.filters.network;
        let (request, id) = filters::audit::named(request);
        let with = |exchange: &mut Exchange| exchange.certificate = certificate;
        let mut response = enter(network, request, with).await;
        filters::audit::name(&mut response, id);
        response
    }

    /// Answers a request of a known user.
    pub async fn serve_as<B>(&self, user: User, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        enter(&*self.filters.known, request, |exchange| exchange.user = user).await
    }

    /// Other authorizers are asked from now on.
    pub fn change_authorization(&self, modes: AuthorizationModes) {
        self.parts.identity.authorizer.change(modes);
    }

    /// From now on `/readyz` fails, so that load balancers send new clients elsewhere; everything is
    /// still answered.
    pub fn announce_end(&self) {
        self.parts.life.end();
    }

    /// Ends serving: listeners close, streams end, requests under way are finished. The listeners'
    /// `run` returns when the last connection has.
    pub fn drain(&self) {
        self.announce_end();
        self.parts.closing.cancel();
    }
}

/// Sends a request through the chain from one of its entrances, and puts a refusal into the client's form.
async fn enter<B>(
    entrance: &impl Handler,
    request: Request<B>,
    complete: impl FnOnce(&mut Exchange),
) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let form = Accept::of_failure(request.headers());
    let mut exchange = match Exchange::new(request) {
        Ok(exchange) => exchange,
        Err(status) => return respond::failure(&status, form),
    };
    complete(&mut exchange);
    let (flow, legacy_token) = (exchange.flow.clone(), exchange.legacy_token.clone());
    let answered = entrance.handle(exchange).await;
    let mut response = answered.unwrap_or_else(|status| respond::failure(&status, form));
    if legacy_token.get().is_some_and(|used| used.is_generated) {
        respond::add_warnings(&mut response, &[GENERATED.to_owned()]);
    }
    filters::flow::name(&mut response, flow.get().map(|names| &**names));
    response
}
