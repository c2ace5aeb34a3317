//! In whose name the request goes on: the requester's, or that of the user its headers name.

use std::sync::Arc;

use api::Status;
use auth::{Attributes, Authorizer, Inquiry, User, impersonation};
use http::Response;

use crate::exchange::{Exchange, Handler};
use resources::respond::Body;

pub(crate) struct Impersonate<H> {
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) next: H,
}

impl<H: Handler> Handler for Impersonate<H> {
    async fn handle(&self, mut exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        if let Some(wanted) = impersonation::take(exchange.request.headers_mut())? {
            let fields = exchange.query.field_selector().unwrap_or_default();
            let request = Attributes::of(&exchange.info).selecting(&fields);
            let inquiry = Inquiry::new(&self.authorizer);
            let become_user = |inquiry: &Inquiry<'_>| {
                let check = |user: &User, asked: &Attributes<'_>| inquiry.require(user, asked);
                impersonation::become_user(&exchange.user, &wanted, &request, &check)
            };
            exchange.user = inquiry.settle(become_user).await?;
            exchange.audit.iter().for_each(|audit| audit.impersonate(&exchange.user));
        }
        self.next.handle(exchange).await
    }
}
