//! The fields that a write to a path may own: not the status through the resource, nor the rest through the
//! status (upstream's `GetResetFields`, one strategy at a time).

use api::apply::{FieldSet, Filter};
use api::registry::Resource;

fn except(paths: &[&str]) -> Filter {
    Filter::Except(FieldSet::of_fields(paths))
}

/// The filter of a built-in path.
pub(super) fn of(row: &Resource, has_status: bool, status_keeps_metadata: bool) -> Filter {
    let row = row.current();
    match (row.group, row.name, row.subresource) {
        ("certificates.k8s.io", "certificatesigningrequests", sub) => match sub {
            "" => except(&["spec", "status"]),
            "status" => except(&["spec", "status.conditions"]),
            _ => except(&["spec", "status.certificate"]),
        },
        ("", "pods", "ephemeralcontainers") => Filter::Only(&[&["spec", "ephemeralContainers"]]),
        ("", "pods", "resize") => Filter::Only(&[
            &["spec", "containers", "*", "resources"],
            &["spec", "containers", "*", "resizePolicy"],
            &["spec", "initContainers", "*", "resources"],
            &["spec", "initContainers", "*", "resizePolicy"],
        ]),
        ("", "pods", "status") => {
            except(&["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"])
        }
        ("apps", "deployments", "status") => except(&["spec", "metadata.labels"]),
        ("", "namespaces", "finalize") => except(&["status"]),
        (_, "podcertificaterequests", "") => Filter::none(),
        _ => plain(row, has_status, status_keeps_metadata),
    }
}

/// The filter of a path without rules of its own.
pub fn plain(row: &Resource, has_status: bool, status_keeps_metadata: bool) -> Filter {
    match row.subresource {
        "status" if status_keeps_metadata => except(&["spec", "metadata"]),
        "status" => except(&["spec"]),
        "" if has_status => except(&["status"]),
        _ => Filter::none(),
    }
}
