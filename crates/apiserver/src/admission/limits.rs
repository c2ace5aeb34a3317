//! LimitRanger, with the namespace's limit ranges.

use ::admission::limits;
use api::Status;
use serde_json::Value;

use crate::call::Call;
use crate::meta;

fn ranges(call: &Call<'_>) -> Vec<Value> {
    let ranges = call.server.collection_of("", "v1", "limitranges");
    let prefix = format!("{}/", call.info.namespace);
    let page = ranges.list(&prefix, None, 0, usize::MAX, &|_| true);
    page.map(|page| page.objects.iter().map(|o| o.to_value()).collect()).unwrap_or_default()
}

pub(super) fn default_pod(call: &Call<'_>, pod: &mut Value) {
    let ranges = ranges(call);
    if !ranges.is_empty() {
        limits::default_pod(pod, &ranges);
    }
}

pub(super) fn check(call: &Call<'_>, object: &Value) -> Result<(), Status> {
    let faults = match call.row.name {
        "pods" => limits::check_pod(object, &ranges(call)),
        _ => limits::check_claim(object, &ranges(call)),
    };
    let why = match faults.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Err(Status::forbidden(call.row.group, call.row.name, meta::text(object, "name"), &why))
}
