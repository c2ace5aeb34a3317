//! Roles and their bindings.

use serde_json::Value;

use crate::value::{items_mut, set_default};
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind { name: api::names::path_segment, default, ..PLAIN };

/// Subjects name their API group.
fn default(object: &mut Value) {
    for subject in items_mut(object, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set_default(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
    if object["roleRef"].is_object() {
        set_default(&mut object["roleRef"], "apiGroup", "rbac.authorization.k8s.io");
    }
}
