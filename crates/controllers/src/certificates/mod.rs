//! Certificate signing requests: kubelets' are approved, approved ones are signed, old ones go.
//!
//! Watches CertificateSigningRequests. Three controllers, as upstream; the signers need the cluster's
//! authority and do not run without it.

mod approve;
mod clean;
mod rules;
mod sign;
#[cfg(test)]
mod tests;

pub(crate) use approve::start as start_approving;
pub(crate) use clean::start as start_cleaning;
pub(crate) use sign::start as start_signing;

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};

/// Requests looked at together (upstream's --concurrent-csr-syncs).
const WORKERS: usize = 5;

fn condition<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    let conditions = request.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == kind && c.status == "True")
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(&certificate.0[..]).filter(|bytes| !bytes.is_empty())
}
