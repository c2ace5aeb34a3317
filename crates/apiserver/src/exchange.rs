//! A request on its way through filters and delegates.

use std::sync::{Arc, OnceLock};

use api::Status;
use auth::{LegacyUse, RequestInfo, User, decode_path};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use resources::respond::Body;
use strategy::query::Query;

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
    pub(crate) received: jiff::Timestamp,
    /// The flow that the request belongs to, once that is known.
    pub(crate) flow: Arc<OnceLock<Arc<flowcontrol::Names>>>,
    /// The credential, when it is a service account token without an end.
    pub(crate) legacy_token: Arc<OnceLock<LegacyUse>>,
    /// What is told of the request, if anything is.
    pub(crate) audit: Option<Arc<audit::Record>>,
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
        let received = jiff::Timestamp::now();
        Ok(Box::new(Exchange {
            user,
            info,
            query,
            request,
            certificate: None,
            received,
            flow: Arc::default(),
            legacy_token: Arc::default(),
            audit: None,
        }))
    }
}

/// A filter, or what the last filter hands requests to.
pub(crate) trait Handler: Send + Sync {
    fn handle(
        &self,
        exchange: Box<Exchange>,
    ) -> impl Future<Output = Result<Response<Body>, Status>> + Send;
}

impl<H: Handler> Handler for Arc<H> {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        H::handle(self, exchange).await
    }
}
