//! Who sends the request: by certificate, token, or nobody.

use std::sync::Arc;

use ::audit::{Auditor, Stage};
use api::Status;
use auth::{Sender, Sent, Unknown};
use http::Response;

use super::audit::{self, Stranger};
use crate::exchange::{Exchange, Handler};
use resources::audited_tokens;
use resources::identity::Identity;
use resources::metrics::Metrics;
use resources::respond::Body;

/// A client's certificate (DER) that an authority of front proxies vouches for.
#[derive(Debug, Clone)]
pub(crate) struct ProxyCertificate(pub(crate) Arc<[u8]>);

pub(crate) struct Authenticate<H> {
    pub(super) identity: Arc<Identity>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) auditor: Option<Arc<Auditor>>,
    pub(super) next: H,
}

impl<H: Handler> Handler for Authenticate<H> {
    async fn handle(&self, mut exchange: Box<Exchange>) -> Result<Response<Body>, Status> {
        let Identity { authenticator, objects, .. } = &*self.identity;
        let Exchange { certificate, info, request, .. } = &mut *exchange;
        let stranger = request.extensions().get::<Stranger>().cloned();
        let certificate = match &stranger {
            Some(Stranger(why)) => Some(Err(&**why)),
            None => certificate.as_deref().map(Ok),
        };
        let proxy = request.extensions().get::<ProxyCertificate>().cloned();
        let sent = Sent {
            certificate,
            front_proxy: proxy.as_ref().map(|ProxyCertificate(der)| &**der),
            path: &info.path,
        };
        let known = authenticator.request(&**objects, request.headers_mut(), &sent).await;
        self.metrics.authenticated(known.is_ok());
        let Sender { user, legacy } = match known {
            Ok(sender) => sender,
            Err(Unknown { status, invalidated }) => {
                let auditor = self.auditor.as_ref();
                let record = auditor.and_then(|all| audit::unknown_sender(all, &exchange, &status));
                if let Some(record) = record {
                    if let Some(used) = &invalidated {
                        audited_tokens::tell_invalidated(&record, used);
                    }
                    record.tell(Stage::ResponseStarted).await;
                }
                return Err(status);
            }
        };
        exchange.user = user;
        if let Some(legacy) = legacy {
            exchange.legacy_token.get_or_init(|| legacy);
        }
        self.next.handle(exchange).await
    }
}
