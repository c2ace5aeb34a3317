//! Delegates: who answers a request that has passed the filters.

mod paths;
mod resource;

use std::sync::Arc;

use api::Status;
use http::Response;

use crate::filters::{Exchange, Handler};
use crate::respond::Body;
use crate::server::Inner;

/// Hands a request to the delegate that its path names.
pub(crate) struct Router {
    server: Arc<Inner>,
}

impl Router {
    pub(crate) fn new(server: Arc<Inner>) -> Router {
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
