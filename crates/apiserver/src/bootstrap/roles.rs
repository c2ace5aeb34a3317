//! Roles and bindings of upstream's bootstrap policy, kept as data in `roles.txt`.

use client::{Client, Error};
use http::Method;
use serde_json::{Value, json};

use super::{call, collection};

const TEXT: &str = include_str!("roles.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Objects that earlier versions made and that are none of Kubernetes': they go, unless somebody keeps
/// them on purpose.
const RETIRED: [(&str, &str); 2] = [
    ("clusterrolebindings", "system:openshift:public-info-viewer"),
    ("clusterroles", "system:openshift:public-info-viewer"),
];

async fn retire(client: &Client) -> Result<(), Error> {
    for (plural, name) in RETIRED {
        let path = format!("{}/{name}", collection(VERSION, plural, ""));
        let found = match call(client, Method::GET, path.clone(), &json!({})).await {
            Ok(found) => found,
            Err(e) if e.is_not_found() => continue,
            Err(e) => return Err(e),
        };
        let found: Value = serde_json::from_slice(&found.body).unwrap_or_default();
        if found["metadata"]["annotations"][AUTOUPDATE] != "true" {
            continue;
        }
        match call(client, Method::DELETE, path, &json!({})).await {
            Err(e) if !e.is_not_found() => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Creates what is missing and brings changed objects back, aggregated roles included.
pub(super) async fn reconcile(client: &Client) -> Result<(), Error> {
    retire(client).await?;
    let mut objects = parse(TEXT);
    aggregate(&mut objects);
    for object in &objects {
        let plural = format!("{}s", object["kind"].as_str().unwrap_or("").to_lowercase());
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("");
        let target = collection(VERSION, &plural, namespace);
        let name = object["metadata"]["name"].as_str().unwrap_or("");
        let path = format!("{target}/{name}");
        match call(client, Method::GET, path.clone(), &json!({})).await {
            Ok(found) => {
                let found: Value = serde_json::from_slice(&found.body).unwrap_or_default();
                if found["metadata"]["annotations"][AUTOUPDATE] != "false"
                    && differs(&found, object)
                {
                    call(client, Method::PUT, path, object).await?;
                }
            }
            Err(e) if e.is_not_found() => drop(call(client, Method::POST, target, object).await?),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn differs(found: &Value, wanted: &Value) -> bool {
    ["rules", "subjects", "aggregationRule"].iter().any(|key| {
        let empty = |v: &Value| v.is_null() || v.as_array().is_some_and(Vec::is_empty);
        found[*key] != wanted[*key] && !(empty(&found[*key]) && empty(&wanted[*key]))
    })
}

fn words(text: &str) -> Vec<&str> {
    text.trim().split(',').map(|w| if w == "-" { "" } else { w }).collect()
}

fn parse(text: &str) -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(rule) => {
                if let Some(role) = objects.last_mut() {
                    add_rule(role, rule);
                }
            }
            None => objects.push(parse_head(line)),
        }
    }
    objects
}

fn add_rule(role: &mut Value, line: &str) {
    if let Some(label) = line.strip_prefix("aggregate ") {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        let selector = json!({"matchLabels": {key: value}});
        match role["aggregationRule"]["clusterRoleSelectors"].as_array_mut() {
            Some(list) => list.push(selector),
            None => role["aggregationRule"] = json!({"clusterRoleSelectors": [selector]}),
        }
        return;
    }
    let rule = if let Some((verbs, paths)) = line.split_once(" @ ") {
        json!({"verbs": words(verbs), "nonResourceURLs": words(paths)})
    } else {
        let parts: Vec<&str> = line.split(" | ").collect();
        let part = |at: usize| words(parts.get(at).copied().unwrap_or(""));
        let mut rule = json!({"verbs": part(0), "apiGroups": part(1), "resources": part(2)});
        if parts.len() > 3 {
            rule["resourceNames"] = json!(part(3));
        }
        rule
    };
    if let Some(rules) = role["rules"].as_array_mut() {
        rules.push(rule);
    }
}

fn parse_head(line: &str) -> Value {
    let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut meta = json!({
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}, "annotations": {AUTOUPDATE: "true"},
    });
    match what {
        "clusterrole" => {
            let mut parts = rest.split(' ');
            meta["name"] = parts.next().unwrap_or("").into();
            for (key, value) in parts.filter_map(|label| label.split_once('=')) {
                meta["labels"][key] = value.into();
            }
            json!({"apiVersion": VERSION, "kind": "ClusterRole", "metadata": meta, "rules": []})
        }
        "role" => {
            set_name(&mut meta, rest);
            json!({"apiVersion": VERSION, "kind": "Role", "metadata": meta, "rules": []})
        }
        _ => parse_binding(what, rest, meta),
    }
}

fn set_name(meta: &mut Value, text: &str) {
    match text.split_once('/') {
        Some((namespace, name)) => {
            meta["namespace"] = namespace.into();
            meta["name"] = name.into();
        }
        None => meta["name"] = text.into(),
    }
}

fn parse_binding(what: &str, rest: &str, mut meta: Value) -> Value {
    let (name, rest) = rest.split_once(" = ").unwrap_or((rest, ""));
    let (role, subjects) = rest.split_once(" :").unwrap_or((rest, ""));
    let subjects: Vec<Value> = subjects.split_whitespace().filter_map(subject).collect();
    let (kind, role_kind, role) = if what == "clusterbind" {
        meta["name"] = name.into();
        ("ClusterRoleBinding", "ClusterRole", role)
    } else {
        set_name(&mut meta, name);
        let (role_kind, role) = role.split_once('/').unwrap_or(("Role", role));
        ("RoleBinding", role_kind, role)
    };
    json!({
        "apiVersion": VERSION, "kind": kind, "metadata": meta, "subjects": subjects,
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
    })
}

fn subject(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once(':')?;
    Some(match kind {
        "user" => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
        "group" => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        _ => {
            let (namespace, name) = name.split_once('/')?;
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
    })
}

/// Fills aggregated roles from the roles that their labels select, until nothing changes.
fn aggregate(objects: &mut [Value]) {
    // admin takes edit's parts, edit takes view's: three rounds reach the end of the chain.
    for _ in 0..3 {
        let snapshot = objects.to_vec();
        for role in objects.iter_mut() {
            let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array().cloned();
            let mut rules: Vec<Value> = Vec::new();
            for selector in selectors.iter().flatten() {
                let selector = api::selector::LabelSelector::from_json(selector);
                let chosen = snapshot.iter().filter(|r| {
                    r["kind"] == "ClusterRole"
                        && selector.matches_with(|k| r["metadata"]["labels"][k].as_str())
                });
                for rule in chosen.flat_map(|r| r["rules"].as_array().into_iter().flatten()) {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
            if selectors.is_some() {
                role["rules"] = rules.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregated_roles_hold_their_parts_rules() {
        let mut objects = parse(TEXT);
        aggregate(&mut objects);
        let find = |name: &str| {
            objects.iter().find(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == name)
        };
        let rules =
            |name: &str| find(name).map_or(0, |r| r["rules"].as_array().map_or(0, Vec::len));
        assert!(
            rules("view") > 5 && rules("edit") > rules("view") && rules("admin") > rules("edit")
        );
        assert!(find("cluster-admin").is_some() && find("system:node-proxier").is_some());
    }
}
