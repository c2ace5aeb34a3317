//! The filter chain: what every request passes before it is routed. One file a filter, outermost first:
//! authenticate, memory, unsent, impersonate, deadline, flow, authorize.

mod authenticate;
mod authorize;
mod deadline;
mod flow;
mod impersonate;
mod memory;
mod unsent;

use std::sync::Arc;

use api::Status;
use auth::{RequestInfo, User, decode_path};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use crate::delegates::Router;
use crate::query::Query;
use crate::respond::Body;
use crate::server::Inner;

pub(crate) type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A request on its way through the chain.
pub(crate) struct Exchange {
    /// Nobody, until the request is authenticated.
    pub(crate) user: User,
    /// Path segments are percent-decoded here, once.
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) request: Request<RequestBody>,
    /// The client certificate that TLS verified (DER).
    pub(crate) certificate: Option<Arc<[u8]>>,
}

impl Exchange {
    /// Fails when the path has a broken escape.
    pub(crate) fn new<B>(request: Request<B>) -> Result<Box<Exchange>, Status>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let query = Query::parse(request.uri().query().unwrap_or(""));
        let path = decode_path(request.uri().path());
        let path = path.ok_or_else(|| Status::bad_request("invalid URL escape"))?;
        let info = RequestInfo::parse(request.method(), &path, query.flag("watch"));
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let user = User::default();
        Ok(Box::new(Exchange { user, info, query, request, certificate: None }))
    }
}

/// A filter, or what the last filter hands requests to.
pub(crate) trait Handler: Send + Sync {
    fn handle(
        &self,
        exchange: Box<Exchange>,
    ) -> impl Future<Output = Result<Response<Body>, Status>> + Send;
}

/// Requests whose user is known: where in-process clients enter.
pub(crate) type Known =
    impersonate::Impersonate<deadline::Deadline<flow::FlowControl<authorize::Authorize<Router>>>>;
/// Requests from the network.
pub(crate) type Network =
    authenticate::Authenticate<memory::MemoryGuard<unsent::UnsentGuard<Arc<Known>>>>;

/// The chain of one server, with both its entrances.
pub(crate) struct Filters {
    pub(crate) network: Network,
    pub(crate) known: Arc<Known>,
}

impl Filters {
    pub(crate) fn new(server: &Arc<Inner>) -> Filters {
        let authorizer = &server.identity.authorizer;
        let router = Router::new(server.clone());
        let authorize = authorize::Authorize { authorizer: authorizer.clone(), next: router };
        let flow = flow::FlowControl { in_flight: server.in_flight.clone(), next: authorize };
        let deadline = deadline::Deadline {
            limits: server.limits,
            closing: server.closing.clone(),
            next: flow,
        };
        let impersonate =
            impersonate::Impersonate { authorizer: authorizer.clone(), next: deadline };
        let known = Arc::new(impersonate);
        let unsent =
            unsent::UnsentGuard { in_flight: server.in_flight.clone(), next: known.clone() };
        let memory = memory::MemoryGuard { in_flight: server.in_flight.clone(), next: unsent };
        let network =
            authenticate::Authenticate { identity: server.identity.clone(), next: memory };
        Filters { network, known }
    }
}

impl<H: Handler> Handler for Arc<H> {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        H::handle(self, exchange).await
    }
}
