//! Which resource a stored key belongs to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::OnceLock;

use api::registry::Registry;

/// A resource as configurations name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupResource {
    pub(crate) group: String,
    pub(crate) resource: String,
}

impl GroupResource {
    pub(crate) fn new(group: &str, resource: &str) -> GroupResource {
        GroupResource { group: group.into(), resource: resource.into() }
    }

    /// `resource.group`; in the core group the resource alone, or `*.`.
    pub(crate) fn parse(text: &str) -> GroupResource {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        GroupResource::new(group, resource)
    }

    pub(crate) fn everything() -> GroupResource {
        GroupResource::new("*", "*")
    }

    pub(crate) fn is_everything(&self) -> bool {
        *self == GroupResource::everything()
    }

    /// As configurations write it.
    pub(crate) fn written(&self) -> String {
        match (self.group.as_str(), self.resource.as_str()) {
            ("", "*") => "*.".into(),
            _ => self.to_string(),
        }
    }
}

impl std::fmt::Display for GroupResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.group.as_str() {
            "" => write!(f, "{}", self.resource),
            group => write!(f, "{}.{group}", self.resource),
        }
    }
}

/// The built-in resource of each key prefix. Where two groups share one (events), it belongs to the first.
fn prefixes() -> &'static BTreeMap<&'static str, GroupResource> {
    static PREFIXES: OnceLock<BTreeMap<&'static str, GroupResource>> = OnceLock::new();
    PREFIXES.get_or_init(|| {
        let mut prefixes = BTreeMap::new();
        for row in Registry::built_in().rows().iter().filter(|row| !row.prefix.is_empty()) {
            let resource = GroupResource::new(row.group, row.name);
            let known = prefixes.entry(row.prefix.as_str()).or_insert_with(|| resource.clone());
            if resource.group.is_empty() {
                *known = resource;
            }
        }
        prefixes
    })
}

/// The resource of a key below `/registry/`; none for what is no API object (allocated ranges, for example).
pub(crate) fn of_key(key: &str) -> Option<Cow<'static, GroupResource>> {
    let up_to = (Bound::Unbounded, Bound::Included(key));
    // Prefixes end with a slash and none is the beginning of another, so that the last one before the key decides.
    if let Some((_, resource)) =
        prefixes().range::<str, _>(up_to).next_back().filter(|(prefix, _)| key.starts_with(*prefix))
    {
        return Some(Cow::Borrowed(resource));
    }
    // Custom resources: /registry/<group>/<resource>/...; groups of definitions have a dot.
    let mut parts = key.strip_prefix("/registry/")?.split('/');
    let (group, resource) = (parts.next()?, parts.next()?);
    let is_object = group.contains('.') && parts.next().is_some();
    is_object.then(|| Cow::Owned(GroupResource::new(group, resource)))
}

#[cfg(test)]
mod tests {
    use super::{GroupResource, of_key, prefixes};

    #[test]
    fn names_are_those_of_configurations() {
        let parse = |text| GroupResource::parse(text);
        assert_eq!(parse("secrets"), GroupResource::new("", "secrets"));
        assert_eq!(parse("*."), GroupResource::new("", "*"));
        assert_eq!(parse("*.*"), GroupResource::everything());
        assert_eq!(parse("a.b.c"), GroupResource::new("b.c", "a"));
        for text in ["secrets", "*.", "*.*", "*.apps", "pandas.awesome.bears.example"] {
            assert_eq!(parse(text).written(), text);
        }
    }

    #[test]
    fn keys_belong_to_resources() {
        let of = |key| of_key(key).map(|r| r.to_string());
        let cases = [
            ("/registry/secrets/ns/name", "secrets"),
            ("/registry/services/specs/ns/name", "services"),
            ("/registry/minions/one", "nodes"),
            ("/registry/events/ns/name", "events"),
            ("/registry/deployments/ns/name", "deployments.apps"),
            (
                "/registry/apiregistration.k8s.io/apiservices/v1.",
                "apiservices.apiregistration.k8s.io",
            ),
            ("/registry/example.com/pandas/ns/name", "pandas.example.com"),
        ];
        for (key, expected) in cases {
            assert_eq!(of(key).as_deref(), Some(expected), "{key}");
        }
        for key in
            ["/registry/ranges/serviceips", "/registry/masterleases/10.0.0.1", "/other/a.b/c/d"]
        {
            assert_eq!(of(key), None, "{key}");
        }
    }

    #[test]
    fn no_prefix_begins_another() {
        let all: Vec<&str> = prefixes().keys().copied().collect();
        for pair in all.windows(2) {
            assert!(!pair[1].starts_with(pair[0]), "{pair:?}");
        }
    }
}
