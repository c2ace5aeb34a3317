//! Certificate signing requests: who may approve and sign for a signer, and which subjects no
//! client certificate may have.

use api::Status;
use api::tree::metadata_text;
use auth::Inquiry;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use x509_parser::prelude::{
    AttributeTypeAndValue, FromDer, Pem, X509CertificationRequest, X509Name,
};

use crate::attributes::{Attributes, Operation};
use crate::plugin::{Decision, Plugin, Verdict};

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";
/// Its certificates are believed by the API server, groups included.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

/// `approval` is written by those who may approve for the signer.
pub(super) struct CertificateApproval;

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation == Operation::Update && request.path() == (GROUP, RESOURCE, "approval")
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, new: &'a Value) -> Decision<'a> {
        Decision::asking(request, move |asked| check_right(request, asked, "approve", new))
    }
}

/// Certificates and conditions are written by those who may sign for the signer.
pub(super) struct CertificateSigning;

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation == Operation::Update && request.path() == (GROUP, RESOURCE, "status")
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, new: &'a Value) -> Decision<'a> {
        match request.old.is_some_and(|old| signs(old, new)) {
            true => {
                Decision::asking(request, move |asked| check_right(request, asked, "sign", new))
            }
            false => Decision::ALLOWED,
        }
    }
}

/// Trust bundles of a signer are written by those who may attest for it.
pub(super) struct ClusterTrustBundleAttest;

impl Plugin for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        writes && request.path() == (GROUP, "clustertrustbundles", "")
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, new: &'a Value) -> Decision<'a> {
        let signer = new["spec"]["signerName"].as_str().unwrap_or("");
        let collected =
            request.old.is_some_and(|old| super::rbac_escalation::only_collected(old, new));
        if signer.is_empty() || collected {
            return Decision::ALLOWED;
        }
        Decision::asking(request, move |asked| {
            let why = format!("user not permitted to attest for signerName {signer:?}");
            match may(request, asked, "attest", signer) {
                true => Ok(()),
                false => Err(request.forbid(new, &why)),
            }
        })
    }
}

/// Nobody becomes an administrator by certificate.
pub(super) struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        request.operation == Operation::Create && request.path() == (GROUP, RESOURCE, "")
    }

    fn validate<'a>(&'a self, _: &'a Attributes<'a>, new: &'a Value) -> Decision<'a> {
        check_subject(new).into()
    }
}

/// The right on the signer that is stored, not the one sent.
fn check_right(request: &Attributes<'_>, asked: &Inquiry<'_>, verb: &str, new: &Value) -> Verdict {
    let signer = request.old.and_then(|old| old["spec"]["signerName"].as_str()).unwrap_or("");
    match may(request, asked, verb, signer) {
        true => Ok(()),
        false => {
            let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
            Err(request.forbid(new, &why))
        }
    }
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
fn may(request: &Attributes<'_>, asked: &Inquiry<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or("");
    let all = format!("{domain}/*");
    [signer, all.as_str()].into_iter().any(|name| {
        let right = auth::Attributes {
            verb,
            group: GROUP,
            resource: "signers",
            name,
            ..auth::Attributes::default()
        };
        asked.ask(request.user, &right).is_allowed()
    })
}

fn check_subject(request: &Value) -> Verdict {
    if request["spec"]["signerName"] != CLIENT_SIGNER {
        return Ok(());
    }
    let refuse =
        |why: String| Err(Status::forbidden(GROUP, RESOURCE, metadata_text(request, "name"), &why));
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
