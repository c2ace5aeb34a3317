//! Webhook configurations, validating and mutating.

use api::names;
use serde_json::Value;

use super::rules::{match_conditions, rule};
use crate::check::At;
use crate::shared::{LabelRules, fully_qualified_name, label_selector, texts};
use crate::value::{items_mut, set_default};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind { default, create: hooks, update: hooks, again: true, ..PLAIN };

fn default(object: &mut Value) {
    for hook in items_mut(object, "webhooks") {
        for rule in items_mut(hook, "rules") {
            set_default(rule, "scope", "*");
        }
        if let Some(service) = hook.pointer_mut("/clientConfig/service").filter(|s| s.is_object()) {
            set_default(service, "port", 443);
        }
    }
}

const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// What the former hooks did not keep, the new ones need not keep either.
struct Strict {
    side_effects: bool,
    reviews: bool,
    names: bool,
}

impl Strict {
    fn of(old: Option<&Value>) -> Strict {
        let old = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let quiet = |h: &Value| matches!(h["sideEffects"].as_str(), Some("None" | "NoneOnDryRun"));
        let known = |h: &Value| {
            let versions = texts(h.get("admissionReviewVersions"), None);
            versions.is_empty() || versions.iter().any(|v| REVIEWS.contains(v))
        };
        let unique =
            old.iter().enumerate().all(|(at, h)| old[..at].iter().all(|b| b["name"] != h["name"]));
        Strict {
            side_effects: old.iter().all(quiet),
            reviews: old.iter().all(known),
            names: unique,
        }
    }
}

fn hooks(object: &At<'_>) {
    let list = object.get("webhooks");
    let strict = Strict::of(list.old());
    let all = list.value().as_array().map_or(&[][..], Vec::as_slice);
    for (at, item) in list.items().enumerate() {
        hook(&item, &strict);
        versions(&item.get("admissionReviewVersions"), &strict);
        let name = item.get("name");
        let repeated = all[..at].iter().any(|before| before["name"] == *name.value());
        if strict.names && !name.is_empty() && repeated {
            name.duplicate();
        }
    }
}

fn hook(hook: &At<'_>, strict: &Strict) {
    fully_qualified_name(&hook.get("name"));
    hook.get("rules").items().for_each(|at| rule(&at));
    hook.get("failurePolicy").one_of_if_set(&["Fail", "Ignore"]);
    hook.get("matchPolicy").one_of_if_set(&["Equivalent", "Exact"]);
    let effects = hook.get("sideEffects");
    let allowed: &[&str] = match strict.side_effects {
        true => &["None", "NoneOnDryRun"],
        false => &["None", "NoneOnDryRun", "Some", "Unknown"],
    };
    if effects.is_absent() {
        effects.required(&format!("must specify one of {}", allowed.join(", ")));
    } else {
        effects.one_of(allowed);
    }
    let timeout = hook.get("timeoutSeconds");
    if timeout.int().is_some_and(|n| !(1..=30).contains(&n)) {
        timeout.invalid("the timeout value must be between 1 and 30 seconds");
    }
    label_selector(&hook.get("namespaceSelector"), LabelRules::default());
    label_selector(&hook.get("objectSelector"), LabelRules::default());
    hook.get("reinvocationPolicy").one_of_if_set(&["IfNeeded", "Never"]);
    client(&hook.get("clientConfig"));
    match_conditions(&hook.get("matchConditions"));
}

fn versions(list: &At<'_>, strict: &Strict) {
    let all = texts(Some(list.value()), None);
    if all.is_empty() {
        return list.required(&format!("must specify one of {}", REVIEWS.join(", ")));
    }
    for (at, version) in list.items().enumerate() {
        if all[..at].contains(&version.text()) {
            version.invalid("duplicate version");
            continue;
        }
        version.named(names::dns1035_label);
    }
    if strict.reviews && !all.iter().any(|v| REVIEWS.contains(v)) {
        list.invalid(&format!("must include at least one of {}", REVIEWS.join(", ")));
    }
}

fn client(config: &At<'_>) {
    let (url, service) = (config.get("url"), config.get("service"));
    if url.is_absent() == service.is_absent() {
        config.required("exactly one of url or service is required");
    } else if !url.is_absent() {
        self::url(&url);
    } else {
        self::service(&service);
    }
}

/// A webhook's address: https, without user, query or fragment.
pub(crate) fn url(at: &At<'_>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = at.text();
    let Some((scheme, rest)) = text.split_once("://") else {
        let fault = match text.split_once(':') {
            Some((s, _)) if !s.is_empty() && s.bytes().all(|c| c.is_ascii_alphanumeric()) => s,
            _ => "",
        };
        let shown = Value::from(fault);
        at.invalid_as(&shown, &format!("'https' is the only allowed URL scheme{FORM}"));
        return at.invalid_as(&"".into(), &format!("host must be specified{FORM}"));
    };
    if scheme != "https" {
        at.invalid_as(&scheme.into(), &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').map_or((rest, ""), |(r, f)| (r, f));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(r, q)| (r, q));
    let authority = rest.split('/').next().unwrap_or("");
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
    if host.is_empty() {
        at.invalid_as(&"".into(), &format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        at.invalid_as(&user.into(), "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        at.invalid_as(&fragment.into(), "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        at.invalid_as(&query.into(), "query parameters are not permitted in the URL");
    }
}

/// A webhook behind a service. Upstream's callers pass name and namespace in the wrong order, so that
/// each fault names the other field.
pub(crate) fn service(service: &At<'_>) {
    let (name, namespace, path, port) =
        (service.get("name"), service.get("namespace"), service.get("path"), service.get("port"));
    if namespace.is_empty() {
        name.required("");
    }
    if name.is_empty() {
        namespace.required("");
    }
    if let Some(fault) = crate::formats::port_number(port.number()) {
        port.invalid_number(&format!("port is not valid: {fault}"));
    }
    let Value::String(text) = path.value() else { return };
    if text == "/" || text.is_empty() {
        return;
    }
    if text == "//" {
        return path.invalid("segment[0] may not be empty");
    }
    if !text.starts_with('/') {
        path.invalid("must start with a '/'");
    }
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    let steps: Vec<&str> = trimmed.strip_prefix('/').unwrap_or(trimmed).split('/').collect();
    for (at, step) in steps.iter().enumerate() {
        if step.is_empty() {
            path.invalid(&format!("segment[{at}] may not be empty"));
            continue;
        }
        for fault in names::dns_subdomain(step) {
            path.invalid(&format!("segment[{at}]: {fault}"));
        }
    }
}
