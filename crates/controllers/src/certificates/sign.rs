//! Signs approved requests to the built-in signers.

use std::sync::Arc;
use std::time::Duration;

use client::{Action, Client, Error, Informer, Queue};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use pki::{Authority, SigningRequest};

use super::rules::check;
use super::{WORKERS, certificate, condition};
use crate::Context;
use crate::harness::Reconciler;
use crate::meta::{name, now};

/// Shorter lives are not given.
const LIFE_MIN: Duration = Duration::from_secs(600);

pub(crate) fn start(context: &Context) {
    let Some(authority) = context.config.authority.clone() else {
        tracing::info!("certificates are not signed: no signing certificate and key are given");
        return;
    };
    let this = Signing {
        client: context.client.clone(),
        requests: context.informers.of(),
        authority,
        life: context.config.signing_life,
    };
    let queue = Queue::new();
    let keys = queue.clone();
    this.requests.on_change(move |change| keys.add(name(&change.object().metadata).to_owned()));
    let own = "certificatesigningrequest-signing-controller";
    crate::harness::start(context, own, WORKERS, queue, this);
}

#[derive(Clone)]
struct Signing {
    client: Client,
    requests: Informer<CertificateSigningRequest>,
    authority: Arc<Authority>,
    /// The longest life.
    life: Duration,
}

/// The life that a request gets: what it asks for, within limits.
pub(super) fn life(asked: Option<i32>, longest: Duration) -> Duration {
    let Some(seconds) = asked else { return longest };
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    seconds.max(LIFE_MIN).min(longest)
}

impl Reconciler for Signing {
    type Key = String;

    async fn synced(&self) {
        self.requests.synced().await;
    }

    async fn reconcile(&self, own: String) -> Result<Action, Error> {
        let Some(request) = self.requests.get("", &own) else { return Ok(Action::Done) };
        let wanted = condition(&request, "Approved").is_some()
            && condition(&request, "Denied").is_none()
            && condition(&request, "Failed").is_none()
            && certificate(&request).is_none();
        if !wanted {
            return Ok(Action::Done);
        }
        let Some(signed) = self.signed(&request) else { return Ok(Action::Done) };
        match self.client.update_status(&signed).await {
            Err(error) if error.is_not_found() => Ok(Action::Done),
            other => other.map(|_| Action::Done),
        }
    }
}

impl Signing {
    /// The request with a certificate, or with the reason why it gets none; `None` if it is another
    /// signer's.
    fn signed(&self, request: &CertificateSigningRequest) -> Option<CertificateSigningRequest> {
        let spec = &request.spec;
        let usages = spec.usages.as_deref().unwrap_or_default();
        let mut new = request.clone();
        let status = new.status.get_or_insert_default();
        let outcome = match SigningRequest::parse(&spec.request.0) {
            Err(error) => Err(("SignerValidationFailure", error.to_string())),
            Ok(parsed) => match check(&spec.signer_name, &parsed, usages)? {
                Err(fault) => Err(("SignerValidationFailure", fault)),
                Ok(()) => {
                    let life = life(spec.expiration_seconds, self.life);
                    let signed = self.authority.certify(&parsed, usages, life);
                    signed.map_err(|error| ("SigningError", error.to_string()))
                }
            },
        };
        match outcome {
            Ok(pem) => status.certificate = Some(ByteString(pem.into_bytes())),
            Err((reason, message)) => {
                status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
                    type_: "Failed".into(),
                    status: "True".into(),
                    reason: Some(reason.into()),
                    message: Some(message),
                    last_update_time: Some(now()),
                    last_transition_time: Some(now()),
                })
            }
        }
        Some(new)
    }
}
