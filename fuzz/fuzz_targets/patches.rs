//! Patches of all four kinds: the object, a zero byte, the patch.
#![no_main]

use api::apply::{Filter, Manage, Managers};
use api::patch;
use api::schema::{Decoder, Schema};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

mod shapes;

fuzz_target!(|data: &[u8]| {
    let Some((shape, rest)) = shapes::choose(data) else { return };
    let Some(cut) = rest.iter().position(|byte| *byte == 0) else { return };
    let read = |text: &[u8]| serde_json::from_slice::<Value>(text).ok();
    let (Some(object), Some(change)) = (read(&rest[..cut]), read(&rest[cut + 1..])) else { return };
    let schema = Schema::built_in();
    let decoder = Decoder { schema, shape: &shape };
    for kind in 0..3 {
        let mut target = object.clone();
        match kind {
            0 => drop(patch::apply_json_patch(&mut target, &change)),
            1 => patch::apply_merge_patch(&mut target, &change),
            _ => drop(patch::apply_strategic_patch(schema, &shape, &mut target, &change)),
        }
        let _ = decoder.decode_value(target);
    }
    let Ok(live) = decoder.decode_value(object) else { return };
    let (filter, is_served) = (Filter::none(), |_: &str| true);
    let manage = Manage {
        schema,
        shape: &shape,
        api_version: "v1",
        subresource: "",
        filter: &filter,
        is_served: &is_served,
        elsewhere: None,
        now: Some("2026-01-02T03:04:05Z"),
    };
    let managers = Managers::stored(&live.value["metadata"]["managedFields"]).unwrap_or_default();
    let applied = manage.apply(&live.value, &change, managers, "fuzz", true);
    if let Ok((Some(new), managers)) = applied {
        let _ = manage.update(&live.value, &new, managers, "other");
    }
});
