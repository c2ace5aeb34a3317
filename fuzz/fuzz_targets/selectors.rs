//! Label and field selectors.
#![no_main]

use api::Object;
use api::selector::{FieldSelector, LabelSelector};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|text: &str| {
    let object = json!({"metadata": {"name": "a", "labels": {"app": "x", "tier": ""}}, "spec": {"nodeName": "n"}});
    let selectable = &["spec.nodeName"];
    let object = Object::new(&object, 1, selectable);
    if let Ok(labels) = LabelSelector::parse(text) {
        labels.matches(object.meta());
    }
    if let Ok(fields) = FieldSelector::parse(text) {
        fields.matches(object.meta(), selectable);
        fields.name();
    }
});
