//! Deletes requests that nobody needs any more.

use std::time::Duration;

use client::{Action, Client, DeleteParams, Error, Informer, Queue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{certificate, condition};
use crate::Context;
use crate::harness::Reconciler;
use crate::meta::name;

/// Issued, denied and failed requests stay so long.
const DECIDED_MAX: SignedDuration = SignedDuration::from_hours(1);
/// Requests that nobody decides on, or signs.
const PENDING_MAX: SignedDuration = SignedDuration::from_hours(24);

pub(crate) fn start(context: &Context) {
    let this = Cleaning { client: context.client.clone(), requests: context.informers.of() };
    let queue = Queue::new();
    let keys = queue.clone();
    this.requests.on_change(move |change| keys.add(name(&change.object().metadata).to_owned()));
    let own = "certificatesigningrequest-cleaner-controller";
    crate::harness::start(context, own, 1, queue, this);
}

#[derive(Clone)]
struct Cleaning {
    client: Client,
    requests: Informer<CertificateSigningRequest>,
}

/// When the request goes.
pub(super) fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let after = |at: Timestamp, longest| at.checked_add(longest).ok();
    let updated = |kind| condition(request, kind)?.last_update_time.as_ref().map(|t| t.0);
    let decided = ["Denied", "Failed"].into_iter().filter_map(updated);
    let mut ends: Vec<Timestamp> = decided.filter_map(|at| after(at, DECIDED_MAX)).collect();
    let issued = certificate(request);
    if let Some(approved) = updated("Approved") {
        ends.extend(after(approved, if issued.is_some() { DECIDED_MAX } else { PENDING_MAX }));
        let expires = issued.and_then(pki::expires);
        ends.extend(expires.and_then(|at| Timestamp::from_second(at).ok()));
    }
    let conditions = request.status.iter().flat_map(|s| s.conditions.iter().flatten());
    if conditions.count() == 0 {
        let created = request.metadata.creation_timestamp.as_ref().map(|t| t.0);
        ends.extend(created.and_then(|at| after(at, PENDING_MAX)));
    }
    ends.into_iter().min()
}

impl Reconciler for Cleaning {
    type Key = String;

    async fn synced(&self) {
        self.requests.synced().await;
    }

    async fn reconcile(&self, own: String) -> Result<Action, Error> {
        let Some(request) = self.requests.get("", &own) else { return Ok(Action::Done) };
        let Some(end) = end(&request) else { return Ok(Action::Done) };
        let left = Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default();
        if !left.is_zero() {
            return Ok(Action::After(left));
        }
        let uid = request.metadata.uid.clone();
        let params = DeleteParams { uid, ..DeleteParams::default() };
        match self.client.delete::<CertificateSigningRequest>("", &own, &params).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Action::Done),
            other => other.map(|()| Action::Done),
        }
    }
}
