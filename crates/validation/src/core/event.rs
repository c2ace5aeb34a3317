//! Events, in the words of both groups that serve them.

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind { name: any, create, update, ..PLAIN };

/// The names of events are checked with the rest.
fn any(_: &str) -> Vec<String> {
    Vec::new()
}

/// The same field in the group `""` and in `events.k8s.io`; the latter knows the newer name.
fn field<'b>(event: &'b At<'_>, old: &'b str, new: &'b str) -> At<'b> {
    let key = if event.version().0 == "events.k8s.io" { new } else { old };
    event.get_as(key, old)
}

fn is_core(event: &At<'_>) -> bool {
    event.version().0.is_empty()
}

fn create(event: &At<'_>) {
    legacy(event);
    if is_core(event) {
        return;
    }
    let meta = event.get("metadata");
    // Every kind's rules of names have found that there is none.
    if !meta.get("name").is_empty() {
        crate::meta::create(&meta, true, true, names::dns_subdomain);
    }
    series(event);
    event.get("eventTime").need();
    let kind = event.get("type");
    let empty = Value::from("");
    if !matches!(kind.text(), "Normal" | "Warning") {
        kind.invalid_as(&empty, &format!("has invalid value: {}", kind.text()));
    }
    for (old, new) in [
        ("firstTimestamp", "deprecatedFirstTimestamp"),
        ("lastTimestamp", "deprecatedLastTimestamp"),
        ("count", "deprecatedCount"),
    ] {
        let at = field(event, old, new);
        if !at.is_empty() {
            at.invalid_as(&empty, "needs to be unset");
        }
    }
    let source = field(event, "source", "deprecatedSource");
    if !source.get("component").is_empty() || !source.get("host").is_empty() {
        source.invalid_as(&empty, "needs to be unset");
    }
}

fn update(event: &At<'_>) {
    legacy(event);
    if is_core(event) {
        return;
    }
    if !event.get("series").unchanged() {
        series(event);
    }
    let stays = |old: &str, new: &str, layout: &str| {
        let at = field(event, old, new);
        if at.old().is_none() || same(at.old(), at.value()) {
            return;
        }
        match (layout, at.value().as_i64(), old) {
            ("", _, "count") => at.invalid_number("field is immutable"),
            ("", None, _) if !at.is_absent() || old.ends_with("Timestamp") || old == "related" => {
                at.invalid("field is immutable");
            }
            ("", ..) => at.invalid_text("field is immutable"),
            _ if at.is_absent() => at.invalid("field is immutable"),
            (ty, ..) => at.invalid_struct(ty, "field is immutable"),
        }
    };
    stays("involvedObject", "regarding", "core.ObjectReference");
    stays("reason", "reason", "");
    stays("message", "note", "");
    stays("source", "deprecatedSource", "core.EventSource");
    stays("firstTimestamp", "deprecatedFirstTimestamp", "");
    stays("lastTimestamp", "deprecatedLastTimestamp", "");
    stays("count", "deprecatedCount", "");
    stays("reason", "reason", "");
    stays("type", "type", "");
    stays("eventTime", "eventTime", "");
    stays("action", "action", "");
    stays("related", "related", "core.ObjectReference");
    stays("reportingController", "reportingController", "");
    stays("reportingInstance", "reportingInstance", "");
}

/// Equal, where unset and empty are one.
fn same(old: Option<&Value>, new: &Value) -> bool {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Object(m) => m.is_empty(),
        Value::Number(n) => n.as_i64() == Some(0),
        _ => false,
    };
    old.is_none_or(|old| old == new || (empty(old) && empty(new)))
}

fn series(event: &At<'_>) {
    let series = event.get("series");
    if series.is_absent() {
        return;
    }
    if series.get("count").number() < 2 {
        let message = "Invalid value: \"\": should be at least 2";
        event.report_at("series.count", "FieldValueInvalid", message);
    }
    if series.get("lastObservedTime").is_empty() {
        event.report_at("series.lastObservedTime", "FieldValueRequired", "Required value");
    }
}

/// What events had to be before they had a group of their own.
fn legacy(event: &At<'_>) {
    const NAMESPACE: &str = "does not match event.namespace";
    let meta = event.get("metadata");
    let namespace = meta.get("namespace");
    let object = field(event, "involvedObject", "regarding");
    let of = object.get("namespace");
    let time = event.get("eventTime");
    if time.is_absent() {
        let here = namespace.text();
        let fits = if of.is_empty() { matches!(here, "" | "default") } else { here == of.text() };
        if !fits {
            of.invalid_text(NAMESPACE);
        }
    } else {
        if of.is_empty() && !matches!(namespace.text(), "default" | "kube-system") {
            of.invalid_text(NAMESPACE);
        }
        modern(event);
    }
    for fault in names::dns_subdomain(namespace.text()) {
        event.get("namespace").invalid_as(&namespace.text().into(), &fault);
    }
}

/// An event with a time of its own tells who reports it and why.
fn modern(event: &At<'_>) {
    let core = if is_core(event) { "reportingComponent" } else { "reportingController" };
    let controller = event.get(core);
    if controller.need() {
        controller.named(names::qualified_name);
    }
    // Upstream does not show texts that are too long.
    let hidden = Value::from("");
    for (key, most) in [("reportingInstance", 128), ("action", 128)] {
        let at = event.get(key);
        at.need();
        if at.text().len() > most {
            at.invalid_as(&hidden, &format!("can have at most {most} characters"));
        }
    }
    let (reason, note) = (event.get("reason"), field(event, "message", "note"));
    reason.need();
    if reason.text().len() > 128 {
        reason.invalid_as(&hidden, "can have at most 128 characters");
    }
    if note.text().len() > 1024 {
        note.invalid_as(&hidden, "can have at most 1024 characters");
    }
}
