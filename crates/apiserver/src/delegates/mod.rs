//! Delegates: they answer requests that have passed the filters. Extension servers come first, then the API's
//! resources, then everything else.

mod measure;
mod metrics;
mod paths;
mod resource;

use std::sync::Arc;

use api::Status;
use http::Response;

use crate::aggregate::Present;
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

impl Router {
    /// The extension server that a path belongs to.
    fn extension(&self, path: &str) -> Option<Present> {
        let path = path.strip_prefix("/openapi/v3").unwrap_or(path);
        let (group, rest) = path.strip_prefix("/apis/")?.split_once('/')?;
        let version = rest.split('/').next().unwrap_or(rest);
        self.server.aggregator.find(group, version)
    }
}

impl Handler for Router {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        if let Some(extension) = self.extension(&exchange.info.path) {
            let closing = &self.server.closing;
            let forwarded = self.server.aggregator.forward(&extension, *exchange, closing);
            return Box::pin(forwarded).await;
        }
        match exchange.info.is_resource {
            true => Box::pin(resource::serve(&self.server, *exchange)).await,
            false => Box::pin(paths::serve(&self.server, *exchange)).await,
        }
    }
}
