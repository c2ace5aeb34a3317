//! Ingresses of `extensions/v1beta1` and `networking.k8s.io/v1beta1`: a back end was a name and a port.

use serde_json::{Value, json};

pub(super) fn to_current(object: &mut Value) {
    each_backend(object, ("backend", "defaultBackend"), |backend| {
        let (name, port) = (backend.remove("serviceName"), backend.remove("servicePort"));
        if name.is_none() && port.is_none() {
            return;
        }
        let port = match port {
            Some(Value::String(name)) => json!({ "name": name }),
            Some(number) if number != 0 => json!({ "number": number }),
            _ => json!({}),
        };
        let service = json!({"name": name.unwrap_or_else(|| "".into()), "port": port});
        backend.insert("service".into(), service);
    });
}

pub(super) fn to_legacy(object: &mut Value) {
    each_backend(object, ("defaultBackend", "backend"), |backend| {
        let Some(service) = backend.remove("service") else { return };
        backend.insert("serviceName".into(), service["name"].clone());
        let port = &service["port"];
        let port = if port["name"].is_string() { &port["name"] } else { &port["number"] };
        if !port.is_null() {
            backend.insert("servicePort".into(), port.clone());
        }
    });
}

type Backend = serde_json::Map<String, Value>;

/// Changes the back ends, and renames the default one.
fn each_backend(object: &mut Value, (from, to): (&str, &str), change: impl Fn(&mut Backend)) {
    let Some(spec) = object["spec"].as_object_mut() else { return };
    if let Some(mut backend) = spec.remove(from) {
        backend.as_object_mut().into_iter().for_each(&change);
        spec.insert(to.into(), backend);
    }
    let rules = spec.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten();
    for rule in rules {
        let paths = rule.pointer_mut("/http/paths").and_then(Value::as_array_mut);
        let paths = paths.into_iter().flatten();
        let backends = paths.filter_map(|path| path.get_mut("backend")?.as_object_mut());
        backends.for_each(&change);
    }
}
