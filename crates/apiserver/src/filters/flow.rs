//! Lets a limited number of requests be worked on at a time. Streams take no place.

use std::sync::Arc;

use api::Status;
use http::Response;

use crate::exchange::{Exchange, Handler};
use crate::limits::InFlight;
use crate::metrics::{Labels, Metrics};
use crate::respond::Body;

pub(crate) struct FlowControl<H> {
    pub(super) in_flight: Arc<InFlight>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) next: H,
}

impl<H: Handler> Handler for FlowControl<H> {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        let _place = match exchange.info.is_long_running() {
            true => None,
            false => match self.in_flight.enter(&exchange.user, &exchange.info).await {
                Ok(place) => place,
                Err(status) => {
                    let Exchange { info, query, request, .. } = &*exchange;
                    self.metrics.dropped(&Labels::of(info, query, request.method(), ""));
                    return Err(status);
                }
            },
        };
        self.next.handle(exchange).await
    }
}
