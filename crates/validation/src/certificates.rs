//! Certificate signing requests.

use base64::Engine as _;
use serde_json::Value;

use crate::check::At;
use crate::shared::signer_name;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    name: |_| Vec::new(),
    create: request,
    update: change,
    status: change,
    again: true,
    ..PLAIN
};

/// Sorted as upstream tells them.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn request(object: &At<'_>) {
    let spec = object.get("spec");
    let body = spec.get("request");
    if let Err(fault) = parse_request(body.text()) {
        body.invalid_as(body.value(), &fault);
    }
    let usages = spec.get("usages");
    usages.need();
    for usage in usages.items() {
        usage.one_of(&USAGES);
    }
    let all = crate::shared::texts(Some(usages.value()), None);
    for (at, usage) in usages.items().enumerate() {
        if all[..at.min(all.len())].contains(&usage.text()) {
            usage.duplicate();
        }
    }
    let signer = spec.get("signerName");
    if signer.text() == "kubernetes.io/legacy-unknown" {
        signer.invalid("the legacy signerName is not allowed via this API version");
    } else {
        signer_name(&signer);
    }
    let expiration = spec.get("expirationSeconds");
    if expiration.int().is_some_and(|seconds| seconds < 600) {
        expiration.invalid("may not specify a duration less than 600 seconds (10 minutes)");
    }
    conditions(object);
    certificate(object);
}

/// A PEM block of a request. Its signature is checked by who signs.
fn parse_request(text: &str) -> Result<(), String> {
    const FAULT: &str = "PEM block type must be CERTIFICATE REQUEST";
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    let pem = String::from_utf8(bytes).map_err(|_| FAULT.to_owned())?;
    let body = pem_block(&pem, "CERTIFICATE REQUEST").ok_or(FAULT)?;
    let der =
        base64::engine::general_purpose::STANDARD.decode(body).map_err(|_| FAULT.to_owned())?;
    match der_length(&der) {
        None => Err("asn1: structure error: tags don't match".into()),
        Some(length) if length > der.len() => Err("asn1: syntax error: data truncated".into()),
        Some(length) if length < der.len() => Err("asn1: syntax error: trailing data".into()),
        Some(_) => Ok(()),
    }
}

/// Base64 lines of a PEM block of this type.
fn pem_block(text: &str, kind: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {kind}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {kind}-----"))?;
    Some(body.split_whitespace().collect())
}

/// Bytes of a DER sequence with its head.
fn der_length(der: &[u8]) -> Option<usize> {
    let (tag, first) = (*der.first()?, usize::from(*der.get(1)?));
    if tag != 0x30 {
        return None;
    }
    if first < 0x80 {
        return Some(first + 2);
    }
    let count = first & 0x7f;
    let bytes = der.get(2..2 + count).filter(|_| (1..=4).contains(&count))?;
    Some(bytes.iter().fold(0, |sum, b| sum << 8 | usize::from(*b)) + 2 + count)
}

fn conditions(object: &At<'_>) {
    let status = object.get("status");
    let list = status.get("conditions");
    let all = list.value().as_array().map_or(&[][..], Vec::as_slice);
    let had = |kind: &str| {
        list.old().and_then(Value::as_array).into_iter().flatten().any(|c| c["type"] == kind)
    };
    let both_before = had("Approved") && had("Denied");
    for (at, condition) in list.items().enumerate() {
        let (kind, value) = (condition.get("type"), condition.get("status"));
        kind.need();
        let only_true = matches!(kind.text(), "Approved" | "Denied" | "Failed");
        let allowed: &[&str] = if only_true { &["True"] } else { &["False", "True", "Unknown"] };
        value.need_one_of(allowed);
        let other = match kind.text() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        let before = |kind: &str| all[..at].iter().any(|c| c["type"] == kind);
        if !both_before && !other.is_empty() && before(other) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            list.invalid_as(kind.value(), detail);
        }
        if before(kind.text()) {
            kind.duplicate();
        }
    }
}

fn certificate(object: &At<'_>) {
    let status = object.get("status");
    let at = status.get("certificate");
    if at.is_empty() || at.unchanged() {
        return;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(at.text()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let other = text.split("-----BEGIN ").skip(1).find_map(|part| {
        part.split_once("-----").map(|(kind, _)| kind).filter(|kind| *kind != "CERTIFICATE")
    });
    let shown = Value::from("<certificate data>");
    if let Some(kind) = other {
        at.invalid_as(&shown, &format!("only CERTIFICATE PEM blocks are allowed, found {kind:?}"));
    } else if pem_block(&text, "CERTIFICATE").is_none() {
        at.invalid_as(&shown, "must contain at least one CERTIFICATE PEM block");
    }
}

fn change(object: &At<'_>) {
    request(object);
    let approval = object.subresource() == "approval";
    let status = object.get("status");
    let list = status.get("conditions");
    let of = |list: Option<&Value>, kind: &str| -> Vec<Value> {
        let all = list.and_then(Value::as_array).into_iter().flatten();
        all.filter(|c| c["type"] == kind).cloned().collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        if of(Some(list.value()), kind).len() < of(list.old(), kind).len() {
            list.forbidden(&format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    for kind in ["Approved", "Denied"].into_iter().filter(|_| !approval) {
        let (now, before) = (of(Some(list.value()), kind), of(list.old(), kind));
        if now.len() > before.len() {
            list.forbidden(&format!("updates may not add a condition of type {kind:?}"));
        } else if now.len() == before.len() && now != before {
            let diff = crate::golang::diff("certificates.Conditions", &before.into(), &now.into());
            list.forbidden(&format!("updates may not modify a condition of type {kind:?}\n{diff}"));
        }
    }
    let certificate = status.get("certificate");
    let before = certificate.old().and_then(Value::as_str).unwrap_or("");
    if certificate.text() != before {
        if object.subresource() != "status" {
            certificate.forbidden("updates may not set certificate content");
        } else if !before.is_empty() {
            certificate.forbidden("updates may not modify existing certificate content");
        }
    }
}
