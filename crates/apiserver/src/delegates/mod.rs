//! Delegates: who answers a request that has passed the filters.

mod measure;
mod metrics;
mod paths;
mod resource;

use std::sync::Arc;

use api::Status;
use http::Response;

use crate::exchange::{Exchange, Handler};
use crate::parts::Parts;
use crate::respond::Body;

/// Hands a request to the delegate that its path names.
pub(crate) struct Router {
    server: Arc<Parts>,
}

impl Router {
    pub(crate) fn new(server: Arc<Parts>) -> Router {
        Router { server }
    }
}

impl Handler for Router {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        match exchange.info.is_resource {
            true => Box::pin(resource::serve(&self.server, *exchange)).await,
            false => Box::pin(paths::serve(&self.server, *exchange)).await,
        }
    }
}
