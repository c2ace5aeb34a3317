//! The Scale of an object, as `/scale` and admission show it.

use api::Status;
use serde_json::{Value, json};

use crate::call::Call;

/// The Scale view of an object.
pub fn view(call: &Call<'_>, object: &Value) -> Value {
    let meta = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale", "apiVersion": call.row.kind_api_version(),
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta["creationTimestamp"],
        },
        "spec": {},
    });
    let paths = call.strategy.scale_paths();
    let number = |path: &str| at(object, path).and_then(Value::as_i64).unwrap_or(0);
    scale["status"] = json!({"replicas": number(&paths.status_replicas)});
    if number(&paths.spec_replicas) != 0 {
        scale["spec"]["replicas"] = number(&paths.spec_replicas).into();
    }
    let selector = match paths.selector {
        None => selector_text(&object["spec"]["selector"]),
        Some(path) => at(object, &path).and_then(Value::as_str).unwrap_or("").to_owned(),
    };
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

pub fn at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(object, |value, key| value.get(key))
}

/// The selector as text; replication controllers select by a plain map.
fn selector_text(selector: &Value) -> String {
    let is_map = !selector["matchLabels"].is_object() && !selector["matchExpressions"].is_array();
    let whole = json!({"matchLabels": selector});
    printers::plain_selector(if is_map { &whole } else { selector }).unwrap_or_default()
}

pub fn check_replicas(call: &Call<'_>, replicas: i64) -> Result<(), Status> {
    if replicas >= 0 {
        return Ok(());
    }
    let detail = "must be greater than or equal to 0";
    let cause = strategy::meta::invalid("spec.replicas", &replicas.into(), detail);
    Err(Status::invalid("autoscaling", "Scale", &call.context.info.name, vec![cause]))
}

/// Sets the replicas that a Scale asks for.
pub fn set_replicas(call: &Call<'_>, object: &mut Value, scale: &Value) -> Result<(), Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    check_replicas(call, replicas)?;
    call.strategy.scale_paths().set_replicas(object, replicas);
    Ok(())
}
