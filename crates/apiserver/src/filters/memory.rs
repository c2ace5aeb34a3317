//! Refuses requests when the process takes too much memory.

use std::sync::Arc;

use api::Status;
use http::Response;

use crate::exchange::{Exchange, Handler};
use resources::limits::InFlight;
use resources::respond::Body;

pub(crate) struct MemoryGuard<H> {
    pub(super) in_flight: Arc<InFlight>,
    pub(super) next: H,
}

impl<H: Handler> Handler for MemoryGuard<H> {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        self.in_flight.check_memory(&exchange.user)?;
        self.next.handle(exchange).await
    }
}
