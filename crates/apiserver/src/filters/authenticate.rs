//! Who sends the request: by certificate, token, or nobody.

use std::sync::Arc;

use api::Status;
use http::Response;

use crate::exchange::{Exchange, Handler};
use crate::identity::Identity;
use crate::respond::Body;

pub(crate) struct Authenticate<H> {
    pub(super) identity: Arc<Identity>,
    pub(super) next: H,
}

impl<H: Handler> Handler for Authenticate<H> {
    async fn handle(&self, mut exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        let Identity { authenticator, objects, .. } = &*self.identity;
        let certificate = exchange.certificate.as_deref();
        let headers = exchange.request.headers_mut();
        exchange.user = authenticator.request(&**objects, headers, certificate)?;
        self.next.handle(exchange).await
    }
}
