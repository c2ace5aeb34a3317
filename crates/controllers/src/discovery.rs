//! What resources the server has, for the controllers that work on all of them.

use std::collections::{BTreeMap, HashSet};

use api::registry::Registry;
use bytes::Bytes;
use client::{Client, Error};
use http::Method;
use serde::Deserialize;

/// A resource in one of its versions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ApiResource {
    pub(crate) group: String,
    pub(crate) version: String,
    /// Plural.
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
}

impl ApiResource {
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// The path of a collection (`name` empty) or an object.
    pub(crate) fn path(&self, namespace: &str, name: &str) -> String {
        let mut path = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        if self.namespaced && !namespace.is_empty() {
            path += &format!("/namespaces/{namespace}");
        }
        path += &format!("/{}", self.name);
        if !name.is_empty() {
            path += &format!("/{name}");
        }
        path
    }
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    versions: Vec<Version>,
    preferred_version: Option<Version>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

/// The resources of all groups that answer.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    pub(crate) resources: Vec<ApiResource>,
    /// Why, by `group/version`: one broken aggregated API must not hide all others.
    pub(crate) failed: BTreeMap<String, String>,
}

impl Discovery {
    /// Whether a version of the group did not answer.
    pub(crate) fn misses(&self, group: &str) -> bool {
        self.failed.keys().any(|key| key.split_once('/').is_some_and(|(g, _)| g == group))
    }
}

/// Every resource once, in its group's preferred version if it is there.
pub(crate) async fn discover(client: &Client) -> Result<Discovery, Error> {
    let mut places = vec![(String::new(), "v1".to_owned())];
    let groups: Groups = get(client, "/apis").await?;
    for group in groups.groups {
        let preferred = group.preferred_version.map(|v| v.version);
        let rest = group.versions.into_iter().map(|v| v.version);
        let rest = rest.filter(|v| Some(v) != preferred.as_ref()).collect::<Vec<_>>();
        for version in preferred.iter().chain(&rest) {
            places.push((group.name.clone(), version.clone()));
        }
    }
    let (mut seen, mut discovery) = (HashSet::new(), Discovery::default());
    for (group, version) in places {
        let path = match group.as_str() {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        let list: Resources = match get(client, &path).await {
            Ok(list) => list,
            // The core group is the server's own: without it nothing is known.
            Err(error) if group.is_empty() => return Err(error),
            Err(error) => {
                discovery.failed.insert(format!("{group}/{version}"), error.to_string());
                continue;
            }
        };
        // Objects are known by the version that took the place of one of the past.
        let is_of_the_past = |name: &str| {
            let row = Registry::built_in().find(&group, &version, name, "");
            row.is_some_and(|row| row.legacy.is_some())
        };
        let main = list.resources.into_iter().filter(|r| !r.name.contains('/'));
        for resource in main.filter(|r| !is_of_the_past(&r.name)) {
            if seen.insert((group.clone(), resource.name.clone())) {
                discovery.resources.push(ApiResource {
                    group: group.clone(),
                    version: version.clone(),
                    name: resource.name,
                    kind: resource.kind,
                    namespaced: resource.namespaced,
                    verbs: resource.verbs,
                });
            }
        }
    }
    Ok(discovery)
}

async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> Result<T, Error> {
    client.send(Method::GET, path.to_owned(), None, Bytes::new()).await
}
