//! Namespaces.

use serde_json::{Value, json};

use crate::value::text;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind { name: api::names::dns_label, default, ..PLAIN };

/// Every namespace carries its name as a label, for selectors.
fn default(object: &mut Value) {
    let name = text(&object["metadata"]["name"]).to_owned();
    if !name.is_empty() {
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
    }
}
