//! `spec.conversion`: how objects get from one version to another.

use std::collections::HashSet;

use api::names;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::is_established;
use crate::admission::webhook::{service, url};
use crate::check::At;
use crate::value::text;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The conversion of a definition, whose spec is given.
pub(super) fn check(definition: &At<'_>) {
    let spec = definition.get("spec");
    let conversion = spec.get("conversion");
    if conversion.is_absent() {
        return;
    }
    let strategy = conversion.get("strategy");
    if strategy.text() != "None" && spec.value()["preserveUnknownFields"] == true {
        strategy.invalid_text("must be None if spec.preserveUnknownFields is true");
    }
    strategy.need_one_of(&["None", "Webhook"]);
    let webhook = conversion.get("webhook");
    // Upstream's form has the webhook's parts beside the strategy.
    let client = conversion.get("webhookClientConfig");
    let client = client.with(&webhook.value()["clientConfig"]);
    let versions = conversion.get("conversionReviewVersions");
    let versions = versions.with(&webhook.value()["conversionReviewVersions"]);
    if strategy.text() != "Webhook" {
        if !client.is_absent() {
            client.forbidden("should not be set when strategy is not set to Webhook");
        }
        if !versions.is_empty() {
            versions.forbidden("should not be set when strategy is not set to Webhook");
        }
        return;
    }
    let former = definition.old().map(|old| &old["spec"]["conversion"]);
    if client.is_absent() {
        client.required("required when strategy is set to Webhook");
    } else {
        self::client(&client, may_be_unusable(definition.old()));
    }
    review_versions(&versions, former.is_none_or(knows_a_review));
}

fn client(client: &At<'_>, any_bundle: bool) {
    let (address, backend) = (client.get("url"), client.get("service"));
    match (address.is_absent(), backend.is_absent()) {
        (false, true) => url(&address),
        (true, false) => service(&backend),
        _ => client.required("exactly one of url or service is required"),
    }
    let bundle = client.get("caBundle");
    if let Some(fault) = bundle_fault(bundle.text()).filter(|_| !any_bundle && !bundle.is_empty()) {
        bundle.invalid(&format!("unable to load root certificates: {fault}"));
    }
}

/// A bundle that nothing can be done with is kept where it is, or where nothing depends on it yet.
fn may_be_unusable(old: Option<&Value>) -> bool {
    let Some(old) = old else { return false };
    if !is_established(Some(old)) {
        return true;
    }
    let bundle = &old["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"];
    !text(bundle).is_empty() && bundle_fault(text(bundle)).is_some()
}

/// Why no certificate can be read of a bundle (base64 of PEM); one is enough.
fn bundle_fault(bundle: &str) -> Option<&'static str> {
    let pem = STANDARD.decode(bundle).unwrap_or_default();
    let pem = String::from_utf8_lossy(&pem);
    let mut blocks = pem.split(BEGIN).skip(1).filter_map(|rest| Some(rest.split_once(END)?.0));
    let is_certificate = |block: &str| {
        let plain: String = block.split_whitespace().collect();
        // A sequence with a length of two bytes: shorter certificates there are none.
        STANDARD
            .decode(plain)
            .is_ok_and(|der| der.starts_with(&[0x30, 0x82]) || der.starts_with(&[0x30, 0x81]))
    };
    if blocks.clone().next().is_none() {
        return Some("unable to parse bytes as PEM block");
    }
    (!blocks.any(is_certificate))
        .then_some("failed to parse certificate: x509: malformed certificate")
}

/// Whether the former reviews were in order, so that the new ones must be.
fn knows_a_review(conversion: &Value) -> bool {
    let versions = conversion["webhook"]["conversionReviewVersions"].as_array();
    versions.is_none_or(|all| all.is_empty() || all.iter().any(|v| is_known(text(v))))
}

fn is_known(version: &str) -> bool {
    matches!(version, "v1" | "v1beta1")
}

fn review_versions(versions: &At<'_>, need_known: bool) {
    if versions.is_empty() {
        return versions.required("");
    }
    let mut seen: HashSet<&str> = HashSet::new();
    for version in versions.items() {
        let name = text(version.value());
        if seen.contains(&name) {
            version.invalid_text("duplicate version");
            continue;
        }
        seen.insert(name);
        for fault in names::dns1035_label(version.text()) {
            version.invalid_text(&fault);
        }
    }
    if need_known && !seen.iter().any(|v| is_known(v)) {
        versions.invalid("must include at least one of v1, v1beta1");
    }
}
