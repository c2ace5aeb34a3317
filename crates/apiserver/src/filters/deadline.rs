//! Ends a request that takes too long; streams end with the server.

use api::Status;
use http::Response;
use tokio_util::sync::CancellationToken;

use crate::exchange::{Exchange, Handler};
use resources::limits::{self, Limits};
use resources::respond::{self, Body};

pub(crate) struct Deadline<H> {
    pub(super) limits: Limits,
    pub(super) closing: CancellationToken,
    pub(super) next: H,
}

impl<H: Handler> Handler for Deadline<H> {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        if exchange.info.is_long_running() {
            let mut response = self.next.handle(exchange).await?;
            response.extensions_mut().insert(respond::Streaming);
            return Ok(respond::until(response, self.closing.clone()));
        }
        let deadline = self.limits.deadline(&exchange.query)?;
        let answered = tokio::time::timeout(deadline, self.next.handle(exchange)).await;
        answered.unwrap_or_else(|_| Err(limits::timed_out()))
    }
}
