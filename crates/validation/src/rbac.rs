//! Roles and their bindings.

use api::names;
use serde_json::Value;

use crate::check::At;
use crate::shared::{LabelRules, label_selector};
use crate::value::{items_mut, set_default};
use crate::{Kind, PLAIN};

pub(crate) static ROLE: Kind = Kind {
    name: names::path_segment,
    create: |role| rules(role, true),
    update: |role| rules(role, true),
    again: true,
    ..PLAIN
};
pub(crate) static CLUSTER_ROLE: Kind = Kind {
    name: names::path_segment,
    create: cluster_role,
    update: cluster_role,
    again: true,
    ..PLAIN
};
pub(crate) static BINDING: Kind = Kind {
    name: names::path_segment,
    default,
    create: |b| binding(b, true),
    update: |b| rebinding(b, true),
    again: true,
    ..PLAIN
};
pub(crate) static CLUSTER_BINDING: Kind = Kind {
    name: names::path_segment,
    default,
    create: |b| binding(b, false),
    update: |b| rebinding(b, false),
    again: true,
    ..PLAIN
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Subjects name their API group.
fn default(object: &mut Value) {
    for subject in items_mut(object, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set_default(subject, "apiGroup", GROUP);
        }
    }
    if object["roleRef"].is_object() {
        set_default(&mut object["roleRef"], "apiGroup", GROUP);
    }
}

fn rules(role: &At<'_>, namespaced: bool) {
    for rule in role.get("rules").items() {
        if rule.get("verbs").is_empty() {
            rule.get("verbs").required("verbs must contain at least one value");
        }
        let (urls, groups, resources) =
            (rule.get("nonResourceURLs"), rule.get("apiGroups"), rule.get("resources"));
        if !urls.is_empty() {
            if namespaced {
                urls.invalid("namespaced rules cannot apply to non-resource URLs");
            }
            if groups.len() + resources.len() + rule.get("resourceNames").len() > 0 {
                urls.invalid("rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        if groups.is_empty() {
            groups.required("resource rules must supply at least one api group");
        }
        if resources.is_empty() {
            resources.required("resource rules must supply at least one resource");
        }
    }
}

fn cluster_role(role: &At<'_>) {
    rules(role, false);
    let aggregation = role.get("aggregationRule");
    if aggregation.is_absent() {
        return;
    }
    let selectors = aggregation.get("clusterRoleSelectors");
    if selectors.is_empty() {
        selectors
            .required("at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for selector in selectors.items() {
        label_selector(&selector, LabelRules::default());
        if crate::shared::selector_matches(selector.value(), &Value::Null).is_none() {
            selector.invalid_as(&Value::Null, "invalid label selector.");
        }
    }
}

fn binding(binding: &At<'_>, namespaced: bool) {
    let role = binding.get("roleRef");
    let (group, name) = (role.get("apiGroup"), role.get("name"));
    group.one_of(&[GROUP]);
    match namespaced {
        true => role.get("kind").one_of(&["Role", "ClusterRole"]),
        false => role.get("kind").one_of(&["ClusterRole"]),
    };
    if name.need() {
        name.named(names::path_segment);
    }
    binding.get("subjects").items().for_each(|at| subject(&at, namespaced));
}

fn subject(subject: &At<'_>, namespaced: bool) {
    let (name, group, kind) = (subject.get("name"), subject.get("apiGroup"), subject.get("kind"));
    name.need();
    match kind.text() {
        "ServiceAccount" => {
            if !name.is_empty() {
                name.named(names::dns_subdomain);
            }
            if !group.is_empty() {
                group.not_supported(&[""]);
            }
            if !namespaced {
                subject.get("namespace").need();
            }
        }
        "User" | "Group" => drop(group.one_of(&[GROUP])),
        _ => kind.not_supported(&["ServiceAccount", "User", "Group"]),
    }
}

fn rebinding(at: &At<'_>, namespaced: bool) {
    binding(at, namespaced);
    let role = at.get("roleRef");
    let field =
        |v: Option<&Value>, key: &str| v.and_then(|v| v[key].as_str()).unwrap_or("").to_owned();
    let differs = |key: &&str| {
        role.old().is_some() && field(role.old(), key) != field(Some(role.value()), key)
    };
    if ["apiGroup", "kind", "name"].iter().any(differs) {
        role.invalid_struct("rbac.RoleRef", "cannot change roleRef");
    }
}
