//! Names that documents derive from groups, versions and types.

/// Short schema names to the names documents use, by package prefix.
const PACKAGES: [(&str, &str); 4] = [
    ("apiextensions.", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions."),
    ("apiregistration.", "io.k8s.kube-aggregator.pkg.apis.apiregistration."),
    ("meta.", "io.k8s.apimachinery.pkg.apis.meta."),
    ("version.", "io.k8s.apimachinery.pkg.version."),
];

/// A type's name in documents.
pub fn full_name(short: &str) -> String {
    let found =
        PACKAGES.iter().find_map(|(s, full)| Some(format!("{full}{}", short.strip_prefix(s)?)));
    found.unwrap_or_else(|| format!("io.k8s.api.{short}"))
}

/// A document's name for a type as the schema's.
pub fn short_name(full: &str) -> Option<String> {
    let found = PACKAGES.iter().find_map(|(s, f)| Some(format!("{s}{}", full.strip_prefix(f)?)));
    found.or_else(|| full.strip_prefix("io.k8s.api.").map(str::to_owned))
}

/// The first letter as a capital.
pub fn camel(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// `core`, `apps`, `rbacAuthorization`: a group as part of an identifier.
pub fn group_name(group: &str) -> String {
    if group.is_empty() {
        return "core".into();
    }
    let mut parts = group.trim_end_matches(".k8s.io").split('.');
    let first = parts.next().unwrap_or("").to_owned();
    parts.fold(first, |name, part| name + &camel(part))
}

/// What operations of a group version are filed under.
pub fn tag(group: &str, version: &str) -> String {
    format!("{}_{version}", group_name(group))
}
