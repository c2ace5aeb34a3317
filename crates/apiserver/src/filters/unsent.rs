//! Holds a response back until there is room to keep its bytes until the client has read them.

use std::sync::Arc;

use api::Status;
use http::Response;
use hyper::body::Body as _;

use crate::exchange::{Exchange, Handler};
use resources::limits::InFlight;
use resources::respond::{self, Body};

pub(crate) struct UnsentGuard<H> {
    pub(super) in_flight: Arc<InFlight>,
    pub(super) next: H,
}

impl<H: Handler> Handler for UnsentGuard<H> {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        let mut response = self.next.handle(exchange).await?;
        let own = response.extensions().get::<respond::SharedBytes>().is_none();
        let size = response.body().size_hint().exact().filter(|_| own);
        let size = usize::try_from(size.unwrap_or(0)).unwrap_or(usize::MAX);
        if let Some(permit) = self.in_flight.room.unsent(size).await? {
            let held: respond::Unsent = Arc::new(permit);
            response.extensions_mut().insert(held);
        }
        Ok(response)
    }
}
