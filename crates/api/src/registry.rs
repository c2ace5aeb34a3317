//! The registry: one row per resource, from which routing, discovery, storage and checks follow.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use crate::schema::{Schema, TypeId};

const RESOURCES: &str = include_str!("../schema/resources.tsv");
const STORAGE: &str = include_str!("../schema/storage.txt");
const LEGACY: &str = include_str!("../schema/legacy.txt");

/// One resource or subresource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    /// Plural.
    pub name: &'static str,
    /// Empty for the resource itself.
    pub subresource: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
    /// Kind of its lists.
    pub list_kind: &'static str,
    /// `group/version` of the kind, where it differs from the resource's (scale, eviction).
    pub kind_version: Option<(&'static str, &'static str)>,
    pub namespaced: bool,
    pub short_names: Vec<&'static str>,
    pub categories: Vec<&'static str>,
    pub verbs: Vec<&'static str>,
    /// The body's type; `None` for those that have no JSON body (proxy, log).
    pub ty: Option<TypeId>,
    /// Key prefix with slashes at both ends; empty for what is not stored.
    pub prefix: String,
    pub selectable: &'static [&'static str],
    /// The selectable field by whose values objects are found without looking at all.
    pub indexed: Option<&'static str>,
    /// `metadata.generation` counts changes of everything but metadata and status.
    pub generation: bool,
    /// Of a version that Kubernetes served once.
    pub legacy: Option<Legacy>,
}

/// A version of the past.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Legacy {
    /// The row that took its place.
    pub current: &'static Resource,
    /// The releases from which it was deprecated, and gone: `1.9`, `1.16`.
    pub deprecated: &'static str,
    pub removed: &'static str,
}

impl Resource {
    /// The row whose rules hold: of a version of the past, the one that took its place.
    pub fn current(&self) -> &Resource {
        self.legacy.as_ref().map_or(self, |legacy| legacy.current)
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        join_version(self.group, self.version)
    }

    /// The kind's own `apiVersion`.
    pub fn kind_api_version(&self) -> String {
        let (group, version) = self.kind_version.unwrap_or((self.group, self.version));
        join_version(group, version)
    }

    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// `deployments.apps`, as messages name it.
    pub fn qualified(&self) -> String {
        crate::status::qualified(self.group, self.name)
    }

    /// The key of an object below the prefix.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
    }
}

/// `group/version`, or the version alone in the core group.
pub fn join_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// All resources of the built-in API.
#[derive(Debug)]
pub struct Registry {
    rows: Vec<Resource>,
    /// Where the rows of the versions of the past begin.
    legacy: usize,
    by_path: HashMap<(&'static str, &'static str, &'static str, &'static str), usize>,
}

static BUILT_IN: LazyLock<Registry> = LazyLock::new(Registry::parse);

impl Registry {
    pub fn built_in() -> &'static Registry {
        &BUILT_IN
    }

    /// The rows of v1.36.
    pub fn rows(&self) -> &[Resource] {
        &self.rows[..self.legacy]
    }

    /// The rows of versions that Kubernetes served once.
    pub fn legacy(&self) -> &[Resource] {
        &self.rows[self.legacy..]
    }

    pub fn find(
        &self,
        group: &str,
        version: &str,
        name: &str,
        subresource: &str,
    ) -> Option<&Resource> {
        self.by_path.get(&(group, version, name, subresource)).map(|at| &self.rows[*at])
    }

    /// The row whose objects are of this kind.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Resource> {
        self.rows.iter().find(|r| {
            r.subresource.is_empty() && r.group == group && r.version == version && r.kind == kind
        })
    }

    fn parse() -> Registry {
        let storage = Storage::parse();
        let mut rows: Vec<Resource> =
            RESOURCES.lines().skip(1).map(|line| parse_row(line, &storage)).collect();
        let legacy = rows.len();
        let lines = LEGACY.lines().filter(|line| !line.starts_with('#'));
        let former: Vec<Resource> = lines.flat_map(|line| parse_legacy(line, &rows)).collect();
        rows.extend(former);
        let path = |r: &Resource| (r.group, r.version, r.name, r.subresource);
        let by_path = rows.iter().enumerate().map(|(at, r)| (path(r), at)).collect();
        Registry { rows, legacy, by_path }
    }
}

#[derive(Default)]
struct Storage {
    prefixes: HashMap<&'static str, &'static str>,
    fields: HashMap<&'static str, &'static [&'static str]>,
    indexed: HashMap<&'static str, &'static str>,
    generation: HashSet<&'static str>,
}

impl Storage {
    fn parse() -> Storage {
        let mut storage = Storage::default();
        for line in STORAGE.lines().filter(|l| !l.starts_with('#')) {
            if let Some(resources) = line.strip_prefix("generation ") {
                storage.generation.extend(resources.split(' '));
                continue;
            }
            let (what, value) =
                line.split_once(" = ").expect("storage.txt: `word resource = value`");
            match what.split_once(' ') {
                Some(("index", resource)) => drop(storage.indexed.insert(resource, value)),
                Some(("prefix", resource)) => drop(storage.prefixes.insert(resource, value)),
                Some(("fields", resource)) => {
                    let fields: Vec<&'static str> = value.split(' ').collect();
                    storage.fields.insert(resource, fields.leak());
                }
                _ => panic!("storage.txt: {line}"),
            }
        }
        storage
    }
}

fn words(text: &'static str) -> Vec<&'static str> {
    text.split(',').filter(|w| !w.is_empty()).collect()
}

fn parse_row(line: &'static str, storage: &Storage) -> Resource {
    let cells: Vec<&'static str> = line.split('\t').collect();
    let cell = |at: usize| cells.get(at).copied().unwrap_or("");
    let (group, version) = (cell(0), cell(1));
    let (name, subresource) = cell(2).split_once('/').unwrap_or((cell(2), ""));
    // "autoscaling/v1 Scale", "/ Deployment" (the same group and version), or just "Pod".
    let (kind_version, kind) = match cell(4).split_once(' ') {
        Some(("/", kind)) => (None, kind),
        Some((gv, kind)) => (gv.split_once('/'), kind),
        None => (None, cell(4)),
    };
    let qualified = crate::status::qualified(group, name);
    let below = storage.prefixes.get(qualified.as_str()).copied().unwrap_or(name);
    let stored = cell(8).contains("get") || cell(8).contains("create,delete");
    let (kind_group, kind_of) = kind_version.unwrap_or((group, version));
    Resource {
        group,
        version,
        name,
        subresource,
        singular: cell(3),
        kind,
        list_kind: format!("{kind}List").leak(),
        kind_version,
        namespaced: cell(5) == "Namespaced",
        short_names: words(cell(6)),
        categories: words(cell(7)),
        verbs: words(cell(8)),
        ty: Schema::built_in().find(&type_name(kind_group, kind_of, kind)),
        prefix: if stored && name != "componentstatuses" {
            format!("/registry/{below}/")
        } else {
            String::new()
        },
        selectable: storage.fields.get(qualified.as_str()).copied().unwrap_or(&[]),
        indexed: storage.indexed.get(qualified.as_str()).copied(),
        generation: storage.generation.contains(qualified.as_str()),
        legacy: None,
    }
}

/// The rows of a line: each resource with its subresources.
fn parse_legacy(line: &'static str, rows: &[Resource]) -> Vec<Resource> {
    let words: Vec<&'static str> = line.split(' ').collect();
    let [place, current, deprecated, removed, names @ ..] = words.as_slice() else {
        panic!("legacy.txt: {line}")
    };
    let split = |place: &'static str| place.split_once('/').expect("legacy.txt: group/version");
    let ((group, version), current) = (split(place), split(current));
    let same = rows.iter().filter(|row| (row.group, row.version) == current);
    let former = same.filter(|row| names.contains(&row.name)).map(|row| {
        let own = Schema::built_in().find(&type_name(group, version, row.kind));
        let own = own.filter(|_| row.kind_version.is_none());
        let current: &'static Resource = Box::leak(Box::new(row.clone()));
        let legacy = Some(Legacy { current, deprecated, removed });
        Resource { group, version, ty: own.or(row.ty), legacy, ..row.clone() }
    });
    former.collect()
}

/// The schema's name of a kind: `rbac.v1.Role` for `rbac.authorization.k8s.io/v1 Role`.
pub fn type_name(group: &str, version: &str, kind: &str) -> String {
    let package = match group {
        "" => "core",
        "events.k8s.io" => "events",
        _ => group.split('.').next().unwrap_or(group),
    };
    format!("{package}.{version}.{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_resource_has_a_type() {
        for row in Registry::built_in().rows() {
            let bodiless = [
                "nodes/proxy",
                "pods/proxy",
                "services/proxy",
                "pods/exec",
                "pods/attach",
                "pods/portforward",
            ];
            let path = format!("{}/{}", row.name, row.subresource);
            assert!(row.ty.is_some() || bodiless.contains(&path.as_str()), "{path} {}", row.kind);
        }
    }

    #[test]
    fn versions_of_the_past_are_stored_as_those_of_today() {
        let registry = Registry::built_in();
        let find = |g, v, r| registry.find(g, v, r, "").expect("a resource");
        let old = find("extensions", "v1beta1", "ingresses");
        assert_eq!(old.prefix, find("networking.k8s.io", "v1", "ingresses").prefix);
        assert_eq!(old.current().group, "networking.k8s.io");
        assert!(registry.find("apps", "v1beta1", "statefulsets", "scale").is_some());
        assert!(registry.rows().iter().all(|row| row.legacy.is_none()));
        assert!(registry.legacy().iter().all(|row| row.legacy.is_some()));
        let names: usize = LEGACY
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(' ').count() - 4)
            .sum();
        let main = registry.legacy().iter().filter(|row| row.subresource.is_empty()).count();
        assert_eq!(main, names, "every name is known");
    }

    #[test]
    fn storage_keys_are_the_originals() {
        let find =
            |g, v, r| Registry::built_in().find(g, v, r, "").expect("a resource").prefix.as_str();
        assert_eq!(find("", "v1", "services"), "/registry/services/specs/");
        assert_eq!(find("", "v1", "nodes"), "/registry/minions/");
        assert_eq!(find("apps", "v1", "deployments"), "/registry/deployments/");
        assert_eq!(
            find("apiregistration.k8s.io", "v1", "apiservices"),
            "/registry/apiregistration.k8s.io/apiservices/"
        );
    }
}
