//! `cargo xtask schema`: renews `crates/api/schema/*.schema` from the recorded schema of the
//! original and, for what OpenAPI does not say (pointers, `omitempty`), its Go type declarations.
//!
//! The text form is documented in `crates/api/src/schema/parse.rs`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::gotypes::GoTypes;

/// OpenAPI package prefixes and the short names the schema uses for them, longest first.
const PACKAGES: [(&str, &str); 8] = [
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.", "apiextensions."),
    ("io.k8s.kube-aggregator.pkg.apis.apiregistration.", "apiregistration."),
    ("io.k8s.apimachinery.pkg.apis.meta.", "meta."),
    ("io.k8s.apimachinery.pkg.api.resource.", ""),
    ("io.k8s.apimachinery.pkg.util.intstr.", ""),
    ("io.k8s.apimachinery.pkg.version.", "version."),
    ("io.k8s.apimachinery.pkg.runtime.", ""),
    ("io.k8s.api.", ""),
];

pub(crate) fn run(reference: &Path, go_source: &Path, out: &Path) -> Result<()> {
    let packed = std::fs::File::open(reference.join("schema-v1.36.json.gz"))
        .context("open the recorded schema")?;
    let schema: Value = serde_json::from_reader(flate2::read::GzDecoder::new(packed))?;
    let go = GoTypes::read(go_source)?;
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for (name, definition) in schema["types"].as_object().context("no types")? {
        let short = shorten(name);
        let Some((package, _)) = short.rsplit_once('.') else { continue };
        let file =
            files.entry(package.to_owned()).or_insert_with(|| format!("package {package}\n"));
        write_type(file, &short, package, definition, &go);
    }
    std::fs::create_dir_all(out)?;
    for (package, text) in files {
        std::fs::write(out.join(format!("{package}.schema")), text)?;
    }
    Ok(())
}

fn shorten(name: &str) -> String {
    let found = PACKAGES.iter().find_map(|(long, short)| Some((name.strip_prefix(long)?, short)));
    found.map_or_else(|| name.to_owned(), |(rest, short)| format!("{short}{rest}"))
}

fn write_type(out: &mut String, short: &str, package: &str, definition: &Value, go: &GoTypes) {
    let name = short.rsplit('.').next().unwrap_or(short);
    write!(out, "\ntype {name}").expect("writing to a String");
    for gvk in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
        let (group, version) = (text(&gvk["group"]), text(&gvk["version"]));
        if definition["x-kubernetes-group-version-kind"].as_array().map_or(0, Vec::len) == 1 {
            write!(out, " kind={group}/{version}/{}", text(&gvk["kind"])).expect("String");
        }
    }
    if definition["x-kubernetes-map-type"] == "atomic" {
        out.push_str(" atomic");
    }
    if definition.get("fields").is_none() {
        out.push_str(" opaque");
    }
    out.push('\n');
    for (field, facts) in definition["fields"].as_object().into_iter().flatten() {
        write_field(out, (package, name, field), facts, go);
    }
}

fn write_field(out: &mut String, at: (&str, &str, &str), facts: &Value, go: &GoTypes) {
    let (package, name, field) = at;
    let go = go.field(package, name, field);
    let required = if facts["required"] == true { "!" } else { "" };
    let presence = match &go {
        Some((f, _)) => f.presence(),
        None => "",
    };
    write!(out, "  {field}{required} {presence}{}", short_type(text(&facts["type"]), package))
        .expect("String");
    let recorded = facts["tag"].as_u64().map(|tag| vec![tag as u32]);
    let path = recorded.or_else(|| go.map(|(_, path)| path)).filter(|path| !path.contains(&0));
    if let Some(path) = path {
        let path: Vec<String> = path.iter().map(u32::to_string).collect();
        write!(out, " #{}", path.join(".")).expect("String");
    }
    let zero = [Value::from(""), serde_json::json!({}), 0.into(), false.into()];
    if let Some(default) = facts.get("default") {
        let word = if zero.contains(default) { "zero".into() } else { default.to_string() };
        write!(out, " default={word}").expect("String");
    }
    if let Some(values) = facts["enum"].as_array() {
        let values: Vec<&str> = values.iter().map(text).collect();
        write!(out, " enum={}", values.join("|")).expect("String");
    }
    if let Some(list) = facts["x-kubernetes-list-type"].as_str() {
        let keys = joined(&facts["x-kubernetes-list-map-keys"]);
        let keys = if keys.is_empty() { keys } else { format!(":{keys}") };
        write!(out, " list={list}{keys}").expect("String");
    }
    if facts["x-kubernetes-map-type"] == "atomic" {
        out.push_str(" atomic");
    }
    if let Some(strategy) = facts["x-kubernetes-patch-strategy"].as_str() {
        let key = facts["x-kubernetes-patch-merge-key"].as_str().unwrap_or("");
        let key = if key.is_empty() { String::new() } else { format!(":{key}") };
        write!(out, " patch={strategy}{key}").expect("String");
    }
    out.push('\n');
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn joined(value: &Value) -> String {
    let all: Vec<&str> = value.as_array().into_iter().flatten().map(text).collect();
    all.join(",")
}

/// `[io.k8s.api.core.v1.EnvVar]` within `core.v1` becomes `[EnvVar]`.
fn short_type(ty: &str, package: &str) -> String {
    for (open, close) in [('[', ']'), ('{', '}')] {
        if let Some(inner) = ty.strip_prefix(open).and_then(|t| t.strip_suffix(close)) {
            return format!("{open}{}{close}", short_type(inner, package));
        }
    }
    if !ty.starts_with("io.k8s") {
        return match ty {
            "" => "any".into(),
            "integer:int32" => "int32".into(),
            "integer:int64" => "int64".into(),
            "number:double" => "double".into(),
            "string:byte" => "bytes".into(),
            "boolean" => "bool".into(),
            other => other.into(),
        };
    }
    let short = shorten(ty);
    match short.strip_prefix(package).and_then(|rest| rest.strip_prefix('.')) {
        Some(local) => local.into(),
        None => short,
    }
}
