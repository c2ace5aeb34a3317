//! ConfigMaps and Secrets.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::check::At;
use crate::formats;
use crate::value::set_default;
use crate::{Kind, PLAIN};

/// Bytes of all values together.
const SIZE_MAX: usize = 1024 * 1024;

pub(crate) static CONFIG_MAP: Kind = Kind {
    create: config_map,
    update: |object| {
        immutable(object, &["data", "binaryData"]);
        config_map(object);
    },
    again: true,
    ..PLAIN
};
pub(crate) static SECRET: Kind = Kind {
    default,
    create: secret,
    update: |object| {
        let kind = object.get("type");
        kind.immutable();
        immutable(object, &["data"]);
        secret(object);
    },
    again: true,
    ..PLAIN
};

/// `stringData` is written into `data` and not kept.
fn default(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    if plain.is_empty() {
        return;
    }
    set_default(object, "data", json!({}));
    for (key, text) in plain {
        let bytes = text.as_str().unwrap_or("").as_bytes();
        object["data"][key] = base64::engine::general_purpose::STANDARD.encode(bytes).into();
    }
}

fn immutable(object: &At<'_>, fields: &[&str]) {
    const WHY: &str = "field is immutable when `immutable` is set";
    let flag = object.get("immutable");
    if flag.old() != Some(&Value::Bool(true)) {
        return;
    }
    if !flag.is_true() {
        flag.forbidden(WHY);
    }
    for field in fields {
        let at = object.get(field);
        let empty = |v: &Value| v.as_object().is_none_or(|m| m.is_empty());
        let both_empty = empty(at.value()) && at.old().is_none_or(empty);
        if !at.unchanged() && !both_empty {
            at.forbidden(WHY);
        }
    }
}

/// Faults of the keys of a map.
fn keys(map: &At<'_>) {
    for (key, at) in map.entries() {
        for fault in formats::config_key(key) {
            at.invalid_as(&key.into(), &fault);
        }
    }
}

/// Bytes behind base64 text.
fn decoded_length(text: &str) -> usize {
    text.len() / 4 * 3 - text.bytes().rev().take_while(|c| *c == b'=').count().min(2)
}

fn texts<'a>(map: &At<'a>) -> impl Iterator<Item = &'a str> {
    map.value().as_object().into_iter().flatten().filter_map(|(_, v)| v.as_str())
}

fn config_map(object: &At<'_>) {
    let (data, binary) = (object.get("data"), object.get("binaryData"));
    for (key, at) in data.entries() {
        for fault in formats::config_key(key) {
            at.invalid_as(&key.into(), &fault);
        }
        if binary.value().get(key).is_some() {
            at.invalid_as(&key.into(), "duplicate of key present in binaryData");
        }
    }
    keys(&binary);
    let size: usize = texts(&data).map(str::len).sum();
    let binary_size: usize = texts(&binary).map(decoded_length).sum();
    if size + binary_size > SIZE_MAX {
        let message = format!("Too long: may not be more than {SIZE_MAX} bytes");
        object.report_at("", "FieldValueTooLong", message);
    }
}

fn secret(object: &At<'_>) {
    let data = object.get("data");
    keys(&data);
    if texts(&data).map(decoded_length).sum::<usize>() > SIZE_MAX {
        data.too_long(SIZE_MAX);
    }
    let missing = |key: &str| data.value().get(key).is_none();
    match object.get("type").text() {
        "kubernetes.io/service-account-token" => {
            let meta = object.get("metadata");
            let annotations = meta.get("annotations");
            annotations.key("kubernetes.io/service-account.name").need();
        }
        "kubernetes.io/dockercfg" => docker(&data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => docker(&data, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if missing("username") && missing("password") => {
            data.key("username").required("");
            data.key("password").required("");
        }
        "kubernetes.io/ssh-auth" => drop(data.key("ssh-privatekey").need()),
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                data.key(key).need_present();
            }
        }
        _ => {}
    }
}

/// Credentials of registries are a JSON object.
fn docker(data: &At<'_>, key: &str) {
    let at = data.key(key);
    if data.value().get(key).is_none() {
        return at.required("");
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(at.text()).unwrap_or_default();
    if let Err(fault) = crate::gojson::object(&bytes) {
        at.invalid_as(&"<secret contents redacted>".into(), &fault);
    }
}
