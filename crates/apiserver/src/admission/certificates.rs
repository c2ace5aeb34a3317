//! Certificate signing requests: who may approve and sign for a signer, and which subjects no
//! client certificate may have.

use api::Status;
use auth::Attributes;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use x509_parser::prelude::{
    AttributeTypeAndValue, FromDer, Pem, X509CertificationRequest, X509Name,
};

use crate::call::Call;
use crate::meta;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";
/// Its certificates are believed by the API server, groups included.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

/// CertificateApproval and CertificateSigning. Rights are those on the signer stored, not the one
/// sent.
pub(super) fn check_rights(call: &Call<'_>, old: &Value, new: &Value) -> Result<(), Status> {
    let signer = old["spec"]["signerName"].as_str().unwrap_or("");
    let verb = match call.row.subresource {
        "approval" => "approve",
        "status" if signs(old, new) => "sign",
        _ => return Ok(()),
    };
    if may(call, verb, signer) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(Status::forbidden(GROUP, RESOURCE, meta::text(old, "name"), &why))
}

/// Whether the certificate or the conditions change.
fn signs(old: &Value, new: &Value) -> bool {
    let part = |object: &Value, key: &str| {
        let part = object["status"][key].clone();
        let empty = part.as_array().is_some_and(Vec::is_empty) || part == "";
        if empty { Value::Null } else { part }
    };
    ["certificate", "conditions"].iter().any(|key| part(old, key) != part(new, key))
}

/// For the signer itself, or for all of its domain.
fn may(call: &Call<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or("");
    let all = format!("{domain}/*");
    [signer, all.as_str()].into_iter().any(|name| {
        let attributes =
            Attributes { verb, group: GROUP, resource: "signers", name, ..Attributes::default() };
        call.server.authorizer.check(call.user, &attributes).is_ok()
    })
}

/// CertificateSubjectRestriction: nobody becomes an administrator by certificate.
pub(super) fn check_subject(request: &Value) -> Result<(), Status> {
    if request["spec"]["signerName"] != CLIENT_SIGNER {
        return Ok(());
    }
    let refuse =
        |why: String| Err(Status::forbidden(GROUP, RESOURCE, meta::text(request, "name"), &why));
    match organizations(request["spec"]["request"].as_str().unwrap_or("")) {
        Err(fault) => refuse(format!("failed to parse CSR: {fault}")),
        Ok(groups) if groups.iter().any(|group| group == MASTERS) => {
            refuse(format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"))
        }
        Ok(_) => Ok(()),
    }
}

/// The organisations of the subject. A name that is not text is nobody's group, and no certificate's
/// subject either.
fn organizations(text: &str) -> Result<Vec<String>, String> {
    subject(text, |subject| subject.iter_organization().map(value).collect())
}

/// The common name of the subject: of several, the last.
pub(super) fn common_name(text: &str) -> Result<String, String> {
    subject(text, |subject| subject.iter_common_name().last().map_or(Ok(String::new()), value))
}

fn value(attribute: &AttributeTypeAndValue<'_>) -> Result<String, String> {
    attribute.as_str().map(str::to_owned).map_err(|fault| fault.to_string())
}

/// Reads the subject of a request: base64 of PEM of PKCS#10.
fn subject<T>(
    text: &str,
    read: impl FnOnce(&X509Name<'_>) -> Result<T, String>,
) -> Result<T, String> {
    const NO_PEM: &str = "PEM block type must be CERTIFICATE REQUEST";
    let bytes = BASE64_STANDARD.decode(text).map_err(|fault| fault.to_string())?;
    let mut blocks = Pem::iter_from_buffer(&bytes);
    let block = blocks.next().and_then(Result::ok).ok_or(NO_PEM)?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(NO_PEM.into());
    }
    let (_, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|fault| fault.to_string())?;
    read(&request.certification_request_info.subject)
}
