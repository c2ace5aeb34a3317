//! Extensions in discovery: what they told last, marked as stale where they are not available.

use serde_json::{Value, json};

use std::sync::Arc;

use super::{Aggregator, Present};

/// API versions of extension API servers, and the local one, for the discovery documents.
pub(crate) struct Served(Vec<Version>);

/// A version of a group.
struct Version {
    group: Box<str>,
    version: Box<str>,
    /// `groupPriorityMinimum`, `versionPriority`.
    priorities: (i64, i64),
    is_available: bool,
    /// In the aggregated form; none as long as it is not known.
    resources: Option<Arc<Value>>,
    /// A number that changes with the OpenAPI document, where there is one.
    document: Option<i64>,
}

impl Aggregator {
    pub(crate) fn served(&self) -> Served {
        let mut all: Vec<Version> = self.current().all.iter().map(Version::of).collect();
        all.extend(self.local().map(|local| Version {
            group: local.group.into(),
            version: local.version.into(),
            priorities: local.priorities,
            is_available: true,
            resources: Some(Arc::new(converted(&local.resources, (local.group, local.version)))),
            document: None,
        }));
        all.sort_by(|a, b| a.order().cmp(&b.order()));
        Served(all)
    }
}

impl Version {
    fn of(present: &Present) -> Version {
        let extension = &present.extension;
        Version {
            group: extension.group.clone(),
            version: extension.version.clone(),
            priorities: extension.priorities,
            is_available: present.is_available,
            resources: extension.served(),
            document: present.is_available.then_some(extension.state.1),
        }
    }

    /// Groups by priority, then by name; versions by priority, then the newest.
    fn order(&self) -> (i64, &str, i64, std::cmp::Reverse<&str>) {
        let (group, version) = self.priorities;
        (-group, &self.group, -version, std::cmp::Reverse(&self.version))
    }
}

impl Served {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The groups, each with its versions.
    fn groups(&self) -> Vec<(&str, Vec<&Version>)> {
        let mut groups: Vec<(&str, Vec<&Version>)> = Vec::new();
        for version in &self.0 {
            match groups.iter_mut().find(|(group, _)| *group == &*version.group) {
                Some((_, versions)) => versions.push(version),
                None => groups.push((&version.group, vec![version])),
            }
        }
        groups
    }

    /// Adds the groups to an `APIGroupList`.
    pub(crate) fn add_groups(&self, list: &mut Value) {
        let Some(groups) = list["groups"].as_array_mut() else { return };
        for (name, versions) in self.groups() {
            match groups.iter_mut().find(|group| group["name"] == name) {
                Some(group) => add_versions(group, &versions),
                None => groups.push(group(name, &versions)),
            }
        }
    }

    /// The group of `GET /apis/<group>`, from what the server itself has of it.
    pub(crate) fn with_group(&self, own: Option<Value>, name: &str) -> Option<Value> {
        let groups = self.groups();
        let Some((_, versions)) = groups.iter().find(|(group, _)| *group == name) else {
            return own;
        };
        match own {
            Some(mut own) => {
                add_versions(&mut own, versions);
                Some(own)
            }
            None => {
                let mut made = group(name, versions);
                made["kind"] = "APIGroup".into();
                made["apiVersion"] = "v1".into();
                Some(made)
            }
        }
    }

    /// Adds the groups to an `APIGroupDiscoveryList`.
    pub(crate) fn add_aggregated(&self, list: &mut Value) {
        let Some(items) = list["items"].as_array_mut() else { return };
        for (name, versions) in self.groups() {
            let versions: Vec<Value> = versions.iter().map(|version| aggregated(version)).collect();
            match items.iter_mut().find(|item| item["metadata"]["name"] == name) {
                Some(item) => item["versions"]
                    .as_array_mut()
                    .into_iter()
                    .for_each(|list| list.extend(versions.clone())),
                None => items.push(json!({"metadata": {"name": name}, "versions": versions})),
            }
        }
    }

    /// Adds where extensions' OpenAPI documents are to the index of version 3.
    pub(crate) fn add_open_api(&self, index: &mut Value) {
        for version in &self.0 {
            let Some(state) = version.document else { continue };
            let path = format!("/apis/{}/{}", version.group, version.version);
            let hash: String =
                state.to_be_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
            let url = format!("/openapi/v3{path}?hash={hash}");
            index["paths"][path.trim_start_matches('/')] = json!({"serverRelativeURL": url});
        }
    }
}

fn group_version(of: &Version) -> Value {
    let (group, version) = (&of.group, &of.version);
    json!({"groupVersion": format!("{group}/{version}"), "version": version})
}

fn group(name: &str, versions: &[&Version]) -> Value {
    let versions: Vec<Value> = versions.iter().map(|version| group_version(version)).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

fn add_versions(group: &mut Value, versions: &[&Version]) {
    if let Some(list) = group["versions"].as_array_mut() {
        list.extend(versions.iter().map(|version| group_version(version)));
    }
}

fn aggregated(of: &Version) -> Value {
    let freshness = if of.is_available { "Current" } else { "Stale" };
    let resources = of.resources.as_deref().map_or_else(|| json!([]), Value::clone);
    json!({"version": of.version, "freshness": freshness, "resources": resources})
}

/// The resources of an `APIResourceList` in the aggregated form (upstream's
/// `ConvertGroupVersionIntoToDiscovery`).
pub(super) fn converted(list: &Value, (group, version): (&str, &str)) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for resource in validation::items(list, "resources") {
        let name = resource["name"].as_str().unwrap_or("");
        let (name, subresource) = name.split_once('/').unwrap_or((name, ""));
        let or = |key: &str, usual: &str| match resource[key].as_str().unwrap_or("") {
            "" => usual.to_owned(),
            own => own.to_owned(),
        };
        let kind = json!({"group": or("group", group), "version": or("version", version),
            "kind": resource["kind"]});
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let place = all.iter().position(|known| known["resource"] == name);
        let at = place.unwrap_or_else(|| {
            all.push(
                json!({"resource": name, "responseKind": null, "scope": scope, "verbs": null}),
            );
            all.len() - 1
        });
        if subresource.is_empty() {
            let entry = &mut all[at];
            (entry["responseKind"], entry["scope"]) = (kind, scope.into());
            entry["verbs"] = resource["verbs"].clone();
            entry["singularResource"] = or("singularName", "").into();
            for key in ["shortNames", "categories"] {
                if resource[key].is_array() {
                    entry[key] = resource[key].clone();
                }
            }
            continue;
        }
        let entry =
            json!({"subresource": subresource, "responseKind": kind, "verbs": resource["verbs"]});
        match all[at]["subresources"].as_array_mut() {
            Some(list) => list.push(entry),
            None => all[at]["subresources"] = json!([entry]),
        }
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_get_the_aggregated_form() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "namespaced": true, "kind": "Flunder", "verbs": ["patch"]},
            {"name": "fischers/scale", "namespaced": false, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
        ]});
        let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
        assert_eq!(
            converted(&list, ("g", "v1")),
            json!([
                {"resource": "flunders", "responseKind": kind("g", "v1", "Flunder"), "scope": "Namespaced",
                    "singularResource": "flunder", "verbs": ["get"], "shortNames": ["fl"],
                    "subresources": [{"subresource": "status", "responseKind": kind("g", "v1", "Flunder"), "verbs": ["patch"]}]},
                {"resource": "fischers", "responseKind": null, "scope": "Cluster", "verbs": null,
                    "subresources": [{"subresource": "scale", "responseKind": kind("autoscaling", "v1", "Scale"), "verbs": ["get"]}]},
            ])
        );
    }
}
