//! Approves kubelets' client certificates, for those whom RBAC lets ask for them.

use client::{Action, Client, Error, Informer, Queue};
use http::Method;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use pki::SigningRequest;

use super::rules::{KUBELET_CLIENT, kubelet_client};
use super::{WORKERS, certificate, condition};
use crate::Context;
use crate::harness::Reconciler;
use crate::meta::{name, now};

pub(crate) fn start(context: &Context) {
    let this = Approving { client: context.client.clone(), requests: context.informers.of() };
    let queue = Queue::new();
    let keys = queue.clone();
    this.requests.on_change(move |change| keys.add(name(&change.object().metadata).to_owned()));
    let own = "certificatesigningrequest-approving-controller";
    crate::harness::start(context, own, WORKERS, queue, this);
}

#[derive(Clone)]
struct Approving {
    client: Client,
    requests: Informer<CertificateSigningRequest>,
}

/// The rights that let a requester have its certificate approved, the stronger claim first.
pub(super) fn rights(
    request: &CertificateSigningRequest,
    parsed: &SigningRequest,
) -> Vec<(&'static str, &'static str)> {
    let spec = &request.spec;
    let of_kubelet = spec.signer_name == KUBELET_CLIENT
        && kubelet_client(parsed, spec.usages.as_deref().unwrap_or_default()).is_ok();
    if !of_kubelet {
        return Vec::new();
    }
    let own = (
        "selfnodeclient",
        "Auto approving self kubelet client certificate after SubjectAccessReview.",
    );
    let any =
        ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
    match spec.username.as_deref() == Some(&parsed.common_name) {
        true => vec![own, any],
        false => vec![any],
    }
}

impl Reconciler for Approving {
    type Key = String;

    async fn synced(&self) {
        self.requests.synced().await;
    }

    async fn reconcile(&self, own: String) -> Result<Action, Error> {
        let Some(request) = self.requests.get("", &own) else { return Ok(Action::Done) };
        let decided = ["Approved", "Denied"].iter().any(|k| condition(&request, k).is_some());
        if decided || certificate(&request).is_some() {
            return Ok(Action::Done);
        }
        // What cannot be read is nobody's to approve; the API refuses it anyway.
        let Ok(parsed) = SigningRequest::parse(&request.spec.request.0) else {
            return Ok(Action::Done);
        };
        for (right, message) in rights(&request, &parsed) {
            if self.may(&request, right).await? {
                return self.approve(&request, message).await.map(|()| Action::Done);
            }
        }
        Ok(Action::Done)
    }
}

impl Approving {
    async fn may(&self, request: &CertificateSigningRequest, right: &str) -> Result<bool, Error> {
        let spec = &request.spec;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".into()),
                    resource: Some("certificatesigningrequests".into()),
                    subresource: Some(right.into()),
                    verb: Some("create".into()),
                    version: Some("*".into()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.client.create("", &review).await?;
        Ok(answer.status.is_some_and(|s| s.allowed))
    }

    async fn approve(
        &self,
        request: &CertificateSigningRequest,
        message: &str,
    ) -> Result<(), Error> {
        let mut approved = request.clone();
        let conditions = approved.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.push(CertificateSigningRequestCondition {
            type_: "Approved".into(),
            status: "True".into(),
            reason: Some("AutoApproved".into()),
            message: Some(message.into()),
            last_update_time: Some(now()),
            last_transition_time: Some(now()),
        });
        let own = name(&request.metadata);
        let target =
            format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{own}/approval");
        let body = serde_json::to_vec(&approved).expect("a request always encodes");
        let sent: Result<CertificateSigningRequest, Error> =
            self.client.send(Method::PUT, target, None, body.into()).await;
        match sent {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}
