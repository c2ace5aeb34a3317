//! APIServices of the built-in groups (upstream's autoregister controller): clients list them to learn
//! which groups the server has itself.

use api::registry::Registry;
use client::{Client, Error};
use serde_json::{Value, json};

use super::ensure;
use crate::aggregate::Local;

/// Priorities of the groups, and those of versions that are not the usual [`VERSION_PRIORITY`].
const GROUPS: [(&str, i64); 20] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
];
const VERSION_PRIORITY: i64 = 15;

fn version_priority(group: &str, version: &str) -> i64 {
    match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io" | "resource.k8s.io", _) => 21,
        _ => VERSION_PRIORITY,
    }
}

/// One object for each version of each group that has a priority.
fn built_in() -> Vec<Value> {
    let mut versions: Vec<(&str, &str)> =
        Registry::built_in().rows().iter().map(|row| (row.group, row.version)).collect();
    versions.sort_unstable();
    versions.dedup();
    let made = versions.into_iter().filter_map(|(group, version)| {
        let (_, priority) = GROUPS.into_iter().find(|(name, _)| *name == group)?;
        let mut spec = json!({
            "version": version, "groupPriorityMinimum": priority,
            "versionPriority": version_priority(group, version),
        });
        if !group.is_empty() {
            spec["group"] = group.into();
        }
        Some(json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("{version}.{group}"),
                "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"}},
            "spec": spec,
        }))
    });
    made.collect()
}

pub(super) async fn publish(client: &Client, local: Option<&Local>) -> Result<(), Error> {
    for service in built_in().into_iter().chain(local.map(of_local)) {
        ensure(client, "apiservices", &service).await?;
    }
    Ok(())
}

/// One that a manifest of a server for the same version takes over.
fn of_local(local: &Local) -> Value {
    let Local { group, version, priorities: (group_priority, version_priority), .. } = local;
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"),
            "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"}},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": group_priority,
            "versionPriority": version_priority},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_but_the_aggregators_own_is_published() {
        let names: Vec<String> = built_in()
            .iter()
            .filter_map(|service| service["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        assert!(
            ["v1.", "v1.apps", "v2.autoscaling"]
                .iter()
                .all(|name| names.contains(&(*name).to_owned()))
        );
        let groups = |row: &api::registry::Resource| format!("{}.{}", row.version, row.group);
        for row in
            Registry::built_in().rows().iter().filter(|row| row.group != "apiregistration.k8s.io")
        {
            assert!(names.contains(&groups(row)), "{}", groups(row));
        }
        assert!(!names.iter().any(|name| name.ends_with("apiregistration.k8s.io")));
    }
}
