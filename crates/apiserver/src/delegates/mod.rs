//! Delegates: they answer requests that have passed the filters. Extension servers come first, then the API's
//! resources, then everything else.

mod measure;
mod metrics;
mod paths;
mod resource;
mod resource_metrics;

use std::sync::Arc;

use api::Status;
use http::Response;

use crate::aggregate::Present;
use crate::exchange::{Exchange, Handler};
use crate::parts::Parts;
use resources::respond::Body;

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

/// Whether a path is of a group's version.
fn is_of(path: &str, group: &str, version: &str) -> bool {
    let rest = path.strip_prefix("/apis/").and_then(|rest| rest.strip_prefix(group));
    let rest = rest.and_then(|rest| rest.strip_prefix('/')?.strip_prefix(version));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Handler for Router {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        if let Some(extension) = self.extension(&exchange.info.path) {
            let closing = &self.server.closing;
            let forwarded = self.server.aggregator.forward(&extension, *exchange, closing);
            return Box::pin(forwarded).await;
        }
        if let Some(metrics) = &self.server.resource_metrics
            && is_of(&exchange.info.path, ::metrics::GROUP, ::metrics::VERSION)
        {
            return Box::pin(resource_metrics::serve(&self.server, metrics, *exchange)).await;
        }
        match exchange.info.is_resource {
            true => Box::pin(resource::serve(&self.server, *exchange)).await,
            false => Box::pin(paths::serve(&self.server, *exchange)).await,
        }
    }
}
