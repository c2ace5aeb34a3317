//! Checks that many kinds share: selectors, conditions, numbers with percents, signers, addresses.

pub(crate) mod quantity;
mod selector;

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::formats;

pub(crate) use selector::{
    LabelRules, label_selector, node_selector, node_selector_term, selector_matches,
};

/// A port's number or its name.
pub(crate) fn port_or_name(port: &At<'_>) {
    match port.value() {
        Value::String(name) => formats::port_name(name).iter().for_each(|f| port.invalid(f)),
        _ => port_number(port),
    }
}

pub(crate) fn port_number(port: &At<'_>) {
    if let Some(fault) = formats::port_number(port.number()) {
        port.invalid_number(fault);
    }
}

/// An address in a field that older objects may hold in any form: as before, or strictly written.
pub(crate) fn legacy_ip(at: &At<'_>, before: &[&str]) {
    if !before.contains(&at.text()) {
        at.named(formats::ip);
    }
}

pub(crate) fn legacy_cidr(at: &At<'_>, before: &[&str]) {
    if !before.contains(&at.text()) {
        at.named(formats::cidr);
    }
}

/// Texts of a list (or of a field of each item).
pub(crate) fn texts<'a>(list: Option<&'a Value>, field: Option<&str>) -> Vec<&'a str> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| field.map_or(item, |f| &item[f]).as_str()).collect()
}

/// Where endpoints may not be: nobody else reaches them there.
pub(crate) fn endpoint_ip(at: &At<'_>) {
    let Some(ip) = formats::sloppy_ip(at.text()) else {
        return at.invalid_text("must be a valid IP address");
    };
    // An IPv4 address written as an IPv6 one is the same place.
    let ip = ip.to_canonical();
    let (link_local, multicast) = match ip {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            (first & 0xffc0 == 0xfe80, first & 0xff0f == 0xff02)
        }
    };
    if ip.is_unspecified() {
        at.invalid(&format!("may not be unspecified ({})", at.text()));
    }
    if ip.is_loopback() {
        at.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        at.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        at.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// A whole number of zero or more, or a percentage.
pub(crate) fn number_or_percent(at: &At<'_>) {
    match at.value() {
        Value::String(_) => {
            for fault in formats::percent(at.text()) {
                at.invalid(&fault);
            }
        }
        _ => at.non_negative(),
    }
}

/// A percentage above one hundred is too much.
pub(crate) fn at_most_hundred_percent(at: &At<'_>) {
    let over = at.value().as_str().and_then(formats::percent_of).is_some_and(|p| p > 100);
    if over {
        at.invalid("must not be greater than 100%");
    }
}

/// The number of a number-or-percent; a percentage counts as its number.
pub(crate) fn number_of(value: &Value) -> i64 {
    value.as_i64().or_else(|| formats::percent_of(value.as_str()?)).unwrap_or(0)
}

/// `metav1.Condition` lists.
pub(crate) fn conditions(list: &At<'_>) {
    let all = list.value().as_array().map_or(&[][..], Vec::as_slice);
    for (at, condition) in list.items().enumerate() {
        let kind = condition.get("type");
        if all[..at].iter().any(|before| before["type"] == *kind.value()) {
            kind.duplicate();
        }
        kind.named(names::qualified_name);
        condition.get("status").one_of(&["False", "True", "Unknown"]);
        let generation = condition.get("observedGeneration");
        if generation.number() < 0 {
            generation.invalid("must be greater than or equal to zero");
        }
        condition.get("lastTransitionTime").need();
        condition_reason(&condition.get("reason"));
        let message = condition.get("message");
        if message.text().len() > 32 * 1024 {
            message.too_long(32 * 1024);
        }
    }
}

fn condition_reason(reason: &At<'_>) {
    if !reason.need() {
        return;
    }
    let text = reason.text().as_bytes();
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let shaped = text[0].is_ascii_alphabetic()
        && text.last().is_some_and(|c| word(*c))
        && text.iter().all(|c| word(*c) || matches!(c, b',' | b':'));
    if !shaped {
        reason.invalid("a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')");
    }
    if text.len() > 1024 {
        reason.too_long(1024);
    }
}

/// `domain/path` names of certificate signers.
pub(crate) fn signer_name(at: &At<'_>) {
    if !at.need() {
        return;
    }
    let Some((domain, path)) = at.text().split_once('/').filter(|(_, p)| !p.contains('/')) else {
        return at.invalid(
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
    };
    if domain.len() > 253 {
        at.too_long(253);
    }
    segment(at, domain, names::dns_label);
    if !domain.contains('.') {
        at.invalid_as(
            &domain.into(),
            "should be a domain with at least two segments separated by dots",
        );
    }
    segment(at, path, names::dns_subdomain);
    if at.text().len() > 571 {
        at.too_long(571);
    }
}

/// Faults of the first label of a segment that has any.
fn segment(at: &At<'_>, segment: &str, rule: fn(&str) -> Vec<String>) {
    for label in segment.split('.') {
        let faults = rule(label);
        for fault in &faults {
            at.invalid_as(&segment.into(), &format!("validating label {label:?}: {fault}"));
        }
        if !faults.is_empty() {
            break;
        }
    }
}

/// Domain-prefixed path, as `example.com/foo` for owners of resources.
pub(crate) fn domain_prefixed_path(at: &At<'_>) {
    if !at.need() {
        return;
    }
    let parts =
        at.text().split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty());
    let Some((host, path)) = parts else {
        return at.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    for fault in names::dns_subdomain(host) {
        at.invalid_as(&host.into(), &fault);
    }
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c);
    if !path.bytes().all(allowed) {
        at.invalid_as(
            &path.into(),
            "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
        );
    }
}

/// A domain name of at least three labels.
pub(crate) fn fully_qualified_name(at: &At<'_>) {
    if !at.need() {
        return;
    }
    let faults = names::dns_subdomain(at.text());
    if !faults.is_empty() {
        at.invalid(&faults.join(","));
    } else if at.text().split('.').count() < 3 {
        at.invalid("should be a domain with at least three segments separated by dots");
    }
}

/// The name of a CSI driver.
pub(crate) fn csi_driver_name(at: &At<'_>) {
    if !at.need() {
        return;
    }
    if at.text().len() > 63 {
        at.too_long(63);
    }
    for fault in names::dns_subdomain(&at.text().to_lowercase()) {
        at.invalid(&fault);
    }
}
