//! The options of a connection as the object that admission sees (`core/v1` `PodExecOptions` and its kin).

use serde_json::{Value, json};

use resources::call::Call;

/// The options in the query; null for what is a read and not a connection (`log`).
pub(super) fn of(call: &Call<'_>) -> Value {
    let query = call.context.query;
    let flags = |names: &[&str]| -> Value {
        names.iter().filter(|name| query.flag(name)).map(|name| (*name, true)).collect()
    };
    let streams = ["stdin", "stdout", "stderr", "tty"];
    let mut options = match (call.row.name, call.row.subresource) {
        ("pods", "exec") => {
            let mut options = flags(&streams);
            options["command"] = query.all("command").collect();
            options
        }
        ("pods", "attach") => flags(&streams),
        ("pods", "portforward") => {
            let ports = query.all("ports").flat_map(|text| text.split(','));
            json!({"ports": ports.filter_map(|port| port.parse::<i32>().ok()).collect::<Value>()})
        }
        (_, "proxy") => json!({"path": call.context.info.rest}),
        _ => return Value::Null,
    };
    if let Some(container) = query.get("container").filter(|name| !name.is_empty()) {
        options["container"] = container.into();
    }
    options["apiVersion"] = "v1".into();
    options["kind"] = kind(call).into();
    options
}

fn kind(call: &Call<'_>) -> &'static str {
    match (call.row.name, call.row.subresource) {
        ("pods", "exec") => "PodExecOptions",
        ("pods", "attach") => "PodAttachOptions",
        ("pods", "portforward") => "PodPortForwardOptions",
        ("nodes", _) => "NodeProxyOptions",
        ("services", _) => "ServiceProxyOptions",
        _ => "PodProxyOptions",
    }
}
