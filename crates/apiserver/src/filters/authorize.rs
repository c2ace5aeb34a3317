//! Whether the user may do what the request asks.

use std::sync::Arc;

use api::Status;
use auth::{Attributes, Authorizer};
use http::Response;

use crate::exchange::{Exchange, Handler};
use crate::respond::Body;

/// Audit annotations.
const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";

pub(crate) struct Authorize<H> {
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) next: H,
}

impl<H: Handler> Handler for Authorize<H> {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        let Exchange { user, info, query, audit, .. } = &*exchange;
        // A selector that does not parse is refused later.
        let fields = query.field_selector().unwrap_or_default();
        let asked = Attributes::of(info).selecting(&fields);
        let checked = self.authorizer.check(user, &asked);
        if let Some(audit) = audit {
            let (allowed, reason) = self.authorizer.review(user, &asked);
            audit.annotate(DECISION, if allowed { "allow" } else { "forbid" }.into());
            audit.annotate(REASON, reason);
        }
        checked.map_err(|why| Status::forbidden(&info.group, &info.resource, &info.name, &why))?;
        self.next.handle(exchange).await
    }
}
