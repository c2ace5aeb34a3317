//! What upstream's signers ask of a request. The error is the sentence that the requester reads.

use pki::SigningRequest;

pub(crate) const SERVING: &str = "kubernetes.io/kubelet-serving";
pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// Whether the signer of this name signs the request; `None` if it is none of ours.
pub(crate) fn check(
    signer: &str,
    request: &SigningRequest,
    usages: &[String],
) -> Option<Result<(), String>> {
    match signer {
        SERVING => Some(kubelet_serving(request, usages)),
        KUBELET_CLIENT => Some(kubelet_client(request, usages)),
        API_CLIENT => Some(api_client(usages)),
        LEGACY => Some(Ok(())),
        _ => None,
    }
}

/// The usages, with or without the one that only RSA keys need.
fn has_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let wanted = ["digital signature", "key encipherment", purpose];
    let known = usages.iter().all(|u| wanted.contains(&u.as_str()));
    let has = |usage: &str| usages.iter().any(|u| u == usage);
    match known && has(wanted[0]) && has(purpose) {
        true => Ok(()),
        false => {
            let mut sorted = wanted;
            sorted.sort_unstable();
            Err(format!("usages did not match [{}]", sorted.join(" ")))
        }
    }
}

fn refuse(when: bool, why: &str) -> Result<(), String> {
    if when { Err(why.to_owned()) } else { Ok(()) }
}

fn is_node(request: &SigningRequest) -> Result<(), String> {
    let stranger = !request.common_name.starts_with("system:node:");
    refuse(stranger, "subject common name does not begin with system:node:")
}

fn of_nodes(request: &SigningRequest) -> Result<(), String> {
    let stranger = request.organizations != ["system:nodes"];
    refuse(stranger, "subject organization is not system:nodes")
}

fn kubelet_serving(request: &SigningRequest, usages: &[String]) -> Result<(), String> {
    of_nodes(request)?;
    let nameless = request.dns_names.is_empty() && request.addresses.is_empty();
    refuse(nameless, "DNS or IP subjectAltName is required")?;
    refuse(!request.emails.is_empty(), "Email subjectAltNames are not allowed")?;
    refuse(!request.uris.is_empty(), "URI subjectAltNames are not allowed")?;
    has_usages(usages, "server auth")?;
    is_node(request)
}

pub(crate) fn kubelet_client(request: &SigningRequest, usages: &[String]) -> Result<(), String> {
    of_nodes(request)?;
    refuse(!request.dns_names.is_empty(), "DNS subjectAltNames are not allowed")?;
    refuse(!request.emails.is_empty(), "Email subjectAltNames are not allowed")?;
    refuse(!request.addresses.is_empty(), "IP subjectAltNames are not allowed")?;
    refuse(!request.uris.is_empty(), "URI subjectAltNames are not allowed")?;
    has_usages(usages, "client auth")?;
    is_node(request)
}

fn api_client(usages: &[String]) -> Result<(), String> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(usage) = usages.iter().find(|u| !allowed.contains(&u.as_str())) {
        return Err(format!("invalid usage for client certificate: {usage}"));
    }
    let missing = !usages.iter().any(|u| u == "client auth");
    refuse(missing, "missing required usage for client certificate: client auth")
}
