//! Discovery: which groups, versions and resources there are, in both forms (KEP-3352); and their OpenAPI documents.
//!
//! All of it is computed from rows and schemas. How a request asks for it is not known here.

pub mod documents;
pub mod openapi;

use api::registry::{Registry, Resource};
use api::version;
use serde_json::{Value, json};

/// Groups, and their versions, in the order upstream prefers them.
fn groups(rows: &[&'static Resource]) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in rows {
        match groups.iter_mut().find(|(group, _)| *group == row.group) {
            Some((_, versions)) if !versions.contains(&row.version) => versions.push(row.version),
            Some(_) => {}
            None => groups.push((row.group, vec![row.version])),
        }
    }
    // Built-in groups come in the registry's order, those of definitions by name after them.
    let built_in = Registry::built_in().rows();
    let rank = |group: &str| built_in.iter().position(|row| row.group == group);
    groups.sort_by_key(|(group, _)| {
        let rank = rank(group);
        (rank.is_none(), rank, *group)
    });
    groups.iter_mut().for_each(|(_, versions)| versions.sort_by(|a, b| version::compare(a, b)));
    groups
}

/// `GET /api`.
pub fn versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

fn group_value(group: &str, versions: &[&str]) -> Value {
    let all: Vec<Value> = versions
        .iter()
        .map(|v| json!({"groupVersion": format!("{group}/{v}"), "version": v}))
        .collect();
    json!({"name": group, "versions": all, "preferredVersion": all[0]})
}

/// `GET /apis`.
pub fn group_list(rows: &[&'static Resource]) -> Value {
    let named = groups(rows).into_iter().filter(|(group, _)| !group.is_empty());
    let all: Vec<Value> = named.map(|(group, versions)| group_value(group, &versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": all})
}

/// `GET /apis/<group>`.
pub fn group(rows: &[&'static Resource], name: &str) -> Option<Value> {
    let (group, versions) = groups(rows).into_iter().find(|(g, _)| *g == name && !g.is_empty())?;
    let mut value = group_value(group, &versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

/// `GET /api/v1` and `/apis/<group>/<version>`.
pub fn resource_list(rows: &[&'static Resource], group: &str, version: &str) -> Option<Value> {
    let rows: Vec<&Resource> =
        rows.iter().copied().filter(|r| r.group == group && r.version == version).collect();
    if rows.is_empty() {
        return None;
    }
    let resources: Vec<Value> = rows.into_iter().map(legacy_resource).collect();
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": api::registry::join_version(group, version), "resources": resources,
    }))
}

fn legacy_resource(row: &Resource) -> Value {
    let name = match row.subresource {
        "" => row.name.to_owned(),
        sub => format!("{}/{sub}", row.name),
    };
    let mut value = json!({
        "name": name, "singularName": row.singular, "namespaced": row.namespaced,
        "kind": row.kind, "verbs": row.verbs,
    });
    if let Some((group, version)) = row.kind_version {
        value["group"] = group.into();
        value["version"] = version.into();
    }
    add_shorthands(&mut value, row);
    if !row.prefix.is_empty() && row.subresource.is_empty() {
        value["storageVersionHash"] = storage_hash(row).into();
    }
    value
}

/// Short names and categories. Versions of the past have none: clients take a short name of two groups for
/// ambiguous, and would list the objects of a category twice.
fn add_shorthands(value: &mut Value, row: &Resource) {
    for (key, words) in [("shortNames", &row.short_names), ("categories", &row.categories)] {
        if !words.is_empty() && row.legacy.is_none() {
            value[key] = json!(words);
        }
    }
}

/// base64 of the first eight bytes of SHA-256 of `group/version/kind`, as clients compare it.
fn storage_hash(row: &Resource) -> String {
    use base64::Engine as _;
    let text = format!("{}/{}/{}", row.group, row.version, row.kind);
    let digest = pki::sha256(text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

/// Aggregated discovery of `/api` or `/apis`; `version` is `v2` or `v2beta1`.
pub fn aggregated(rows: &[&'static Resource], core: bool, version: &str) -> Value {
    let chosen = groups(rows).into_iter().filter(|(group, _)| group.is_empty() == core);
    let items: Vec<Value> = chosen
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions.iter().map(|v| json!({
            "version": v, "freshness": "Current", "resources": aggregated_resources(rows, group, v),
        })).collect();
            let meta = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": meta, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

fn aggregated_resources(rows: &[&'static Resource], group: &str, version: &str) -> Vec<Value> {
    let rows = || rows.iter().copied().filter(|r| r.group == group && r.version == version);
    let mut all: Vec<Value> = Vec::new();
    for row in rows() {
        if row.subresource.is_empty() {
            all.push(aggregated_resource(row));
            continue;
        }
        // A subresource may come before, or without, its resource.
        let position = all.iter().position(|r| r["resource"] == row.name);
        let at = position.unwrap_or_else(|| {
            all.push(json!({"resource": row.name, "scope": scope(row), "responseKind": null, "verbs": null}));
            all.len() - 1
        });
        let sub = json!({"subresource": row.subresource, "responseKind": kind_of(row), "verbs": row.verbs});
        match all[at]["subresources"].as_array_mut() {
            Some(list) => list.push(sub),
            None => all[at]["subresources"] = json!([sub]),
        }
    }
    all
}

fn scope(row: &Resource) -> &'static str {
    if row.namespaced { "Namespaced" } else { "Cluster" }
}

fn kind_of(row: &Resource) -> Value {
    let (group, version) = row.kind_version.unwrap_or(("", ""));
    json!({"group": group, "version": version, "kind": row.kind})
}

fn aggregated_resource(row: &Resource) -> Value {
    let mut value = json!({
        "resource": row.name, "responseKind": kind_of(row), "scope": scope(row),
        "singularResource": row.singular, "verbs": row.verbs,
    });
    add_shorthands(&mut value, row);
    value
}

/// The version of the binary, and of the API that it serves.
pub const VERSIONS: (&str, &str) = ("1.36.2", "1.36");

/// `GET /version`.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": format!("v1.36.2+trireme-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", arch()),
    })
}

/// Go's name of the architecture.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
