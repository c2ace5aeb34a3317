//! Pod templates, as workloads hold them.

use super::{annotations, check_spec};
use crate::check::At;

/// A `PodTemplateSpec`.
pub(crate) fn template(template: &At<'_>) {
    let (meta, spec) = (template.get("metadata"), template.get("spec"));
    // Upstream names these fields without `metadata`.
    let annotations_at = template.get("annotations");
    let annotations_at = annotations_at.with(value_of(&meta, "annotations"));
    template_metadata(template);
    check_spec(&spec, None, false);
    annotations::agree_with_fields(&annotations_at, &spec);
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden("ephemeral containers not allowed in pod template");
    }
}

/// Labels and annotations of a template.
pub(crate) fn template_metadata(template: &At<'_>) {
    let (meta, spec) = (template.get("metadata"), template.get("spec"));
    let (labels, at) = (template.get("labels"), template.get("annotations"));
    labels.with(value_of(&meta, "labels")).labels();
    let at = at.with(value_of(&meta, "annotations"));
    crate::meta::annotations(&at);
    annotations::specific(&at, &spec);
}

fn value_of<'a>(at: &At<'a>, key: &str) -> &'a serde_json::Value {
    at.value().get(key).unwrap_or(&serde_json::Value::Null)
}
