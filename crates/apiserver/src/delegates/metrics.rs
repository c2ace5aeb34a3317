//! `GET /metrics`: what the server counts, and what it stores.

use std::collections::BTreeMap;

use http::Response;
use telemetry::family;

use crate::parts::Parts;
use resources::respond::{self, Body};

/// `GET /metrics`.
pub(super) fn answer(server: &Parts) -> Response<Body> {
    let text = server.metrics.text() + &stored(server);
    respond::with_type(200, telemetry::CONTENT_TYPE, text)
}

/// Objects by resource.
fn stored(server: &Parts) -> String {
    let resources = &server.resources;
    let (mut counts, mut received) = (BTreeMap::new(), BTreeMap::new());
    for row in resources.rows().into_iter().filter(|row| row.subresource.is_empty()) {
        if let Some(collection) = resources.store.collection(&row.prefix) {
            counts.insert((row.group, row.name), collection.len() as f64);
            received.insert((row.group, row.name), collection.received() as f64);
        }
    }
    let about = ("apiserver_resource_objects", "gauge", "Stored objects of a resource.");
    let figures =
        counts.iter().map(|((group, name), n)| ([("group", *group), ("resource", *name)], *n));
    let text = family(about, figures);
    let about = (
        "apiserver_storage_events_received_total",
        "counter",
        "Changes that the store told, by resource.",
    );
    let figures =
        received.iter().map(|((group, name), n)| ([("group", *group), ("resource", *name)], *n));
    let text = text + &family(about, figures);
    let about =
        ("apiserver_storage_objects", "gauge", "Stored objects of a resource, by its full name.");
    let named = counts.iter().map(|((group, name), n)| {
        (if group.is_empty() { (*name).to_owned() } else { format!("{name}.{group}") }, *n)
    });
    let named: Vec<(String, f64)> = named.collect();
    let text =
        text + &family(about, named.iter().map(|(name, n)| ([("resource", name.as_str())], *n)));
    let about = (
        "apiserver_storage_size_bytes",
        "gauge",
        "Size of the storage database file physically allocated in bytes.",
    );
    let size = resources.store.size();
    text + &family(about, size.map(|bytes| ([("storage_cluster_id", "embedded")], bytes as f64)))
}
