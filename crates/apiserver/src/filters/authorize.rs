//! Whether the user may do what the request asks.

use std::sync::Arc;

use api::Status;
use auth::{Attributes, Authorizer};
use http::Response;

use crate::exchange::{Exchange, Handler};
use resources::respond::Body;

/// Audit annotations.
const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";

/// The reason when an authorizer could not be asked.
const FAILED: &str = "internal error";

pub(crate) struct Authorize<H> {
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) next: H,
}

/// As upstream's `responsewriters.InternalError` says it.
fn internal(path: &str, why: &str) -> Status {
    Status::failure(500, "InternalError", format!("Internal Server Error: {path:?}: {why}"))
}

impl<H: Handler> Handler for Authorize<H> {
    async fn handle(&self, exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        let Exchange { user, info, query, audit, .. } = &*exchange;
        // A selector that does not parse is refused later.
        let fields = query.field_selector().unwrap_or_default();
        let labels = query.label_selector().unwrap_or_default();
        let asked = Attributes::of(info).selecting(&fields).labelled(&labels);
        let mut answer = self.authorizer.authorize(user, &asked).await;
        let failed = !answer.is_allowed() && !answer.error.is_empty();
        if let Some(audit) = audit {
            answer = self.authorizer.explain(user, &asked, answer);
            audit.annotate(DECISION, if answer.is_allowed() { "allow" } else { "forbid" }.into());
            audit.annotate(REASON, if failed { FAILED.into() } else { answer.reason.clone() });
        }
        if failed {
            return Err(internal(&info.path, &answer.error));
        }
        answer
            .sentence(user, &asked)
            .map_err(|why| Status::forbidden(&info.group, &info.resource, &info.name, &why))?;
        self.next.handle(exchange).await
    }
}
