//! Lets requests be worked on by their priority level, or a limited number at a time. Streams take no place.

use std::sync::Arc;

use api::Status;
use auth::RequestInfo;
use http::{HeaderValue, Response};

use crate::exchange::{Exchange, Handler};
use crate::parts::Parts;
use resources::limits::too_many;
use resources::metrics::Labels;
use resources::respond::Body;

/// Objects of a list that are one seat's work, and the most seats that a list takes (upstream's estimator).
const OBJECTS_PER_SEAT: usize = 100;
const SEATS_MAX: usize = 10;

pub(crate) struct FlowControl<H> {
    pub(super) server: Arc<Parts>,
    pub(super) next: H,
}

impl<H: Handler> Handler for FlowControl<H> {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        if exchange.info.is_long_running() {
            return self.next.handle(exchange).await;
        }
        let server = &self.server;
        let _work = server.in_flight.work(&exchange.info);
        if !server.limits.fairness {
            let entered = server.in_flight.enter(&exchange.user, &exchange.info).await;
            let _place = entered.inspect_err(|_| self.dropped(&exchange))?;
            return self.next.handle(exchange).await;
        }
        let Exchange { user, info, flow, .. } = &*exchange;
        let entered = server.flow_control.enter(user, info, || seats(server, info)).await;
        let _place = match entered {
            Ok(place) => {
                flow.get_or_init(|| place.names.clone());
                place
            }
            Err(refused) => {
                flow.get_or_init(|| refused.names.clone());
                self.dropped(&exchange);
                return Err(too_many());
            }
        };
        self.next.handle(exchange).await
    }
}

impl<H> FlowControl<H> {
    fn dropped(&self, exchange: &Exchange) {
        let Exchange { info, query, request, .. } = exchange;
        self.server.metrics.dropped(&Labels::of(info, query, request.method(), ""));
    }
}

/// How much work a request is: a list as much as its collection is long.
fn seats(server: &Parts, info: &RequestInfo) -> u32 {
    if info.verb != "list" || !info.is_resource {
        return 1;
    }
    let path = (info.group.as_str(), info.version.as_str(), info.resource.as_str());
    let row = server.resources.find(path, &info.subresource).map(|(row, _)| row);
    let collection = row.and_then(|row| server.resources.store.collection(&row.prefix));
    let length = collection.map_or(0, |collection| collection.len());
    u32::try_from(length.div_ceil(OBJECTS_PER_SEAT).clamp(1, SEATS_MAX)).unwrap_or(1)
}

/// Tells the client which flow its request was given to.
pub(crate) fn name(response: &mut Response<Body>, names: Option<&flowcontrol::Names>) {
    let Some(names) = names else { return };
    for (header, uid) in [
        ("x-kubernetes-pf-flowschema-uid", &names.schema_uid),
        ("x-kubernetes-pf-prioritylevel-uid", &names.level_uid),
    ] {
        if let Ok(uid) = HeaderValue::from_str(uid) {
            response.headers_mut().insert(header, uid);
        }
    }
}
