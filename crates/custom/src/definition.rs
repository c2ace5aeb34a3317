//! A CustomResourceDefinition, read for serving: its names, its versions, and apart from them, because it may
//! be large, each version's schema in both the forms that are needed.

use std::cmp::Reverse;

use api::schema::{Schema, Shape};
use serde_json::Value;

use crate::apply;
use crate::columns::Column;
use crate::node::Node;
use crate::rules;

/// What is served of one definition.
#[derive(Debug)]
pub struct Definition {
    pub group: Box<str>,
    pub names: Names,
    pub namespaced: bool,
    pub versions: Vec<Version>,
    pub conversion: Conversion,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub plural: Box<str>,
    pub singular: Box<str>,
    pub kind: Box<str>,
    pub list_kind: Box<str>,
    pub short: Vec<Box<str>>,
    pub categories: Vec<Box<str>>,
}

#[derive(Debug)]
pub struct Version {
    pub name: Box<str>,
    pub served: bool,
    pub storage: bool,
    /// Told to clients of a deprecated version.
    pub warning: Option<String>,
    pub has_status: bool,
    pub scale: Option<ScalePaths>,
    pub columns: Vec<Column>,
    /// Dotted paths that field selectors may use.
    pub selectable: Vec<Box<str>>,
}

/// A version's schema, ready for use. It may be large: whoever holds one gives it back soon.
#[derive(Debug)]
pub struct Compiled {
    pub node: Node,
    /// What field management and merges read.
    pub schema: Schema,
    pub root: Shape,
    /// Why the schema cannot be used: no object may be written by it.
    pub fault: Option<String>,
}

impl Compiled {
    /// Reads the schema of a definition's version. Without `rules`, those in CEL are not made ready: enough to
    /// prune and to default.
    ///
    /// # Errors
    /// The part of the schema that cannot be served.
    pub fn parse(definition: &Value, version: &str, rules: bool) -> Result<Compiled, String> {
        let source = schema_of(definition, version);
        let mut node =
            Node::parse(source).map_err(|fault| format!("version {version}: {fault}"))?;
        node.embedded = true;
        node.preserve |= definition["spec"]["preserveUnknownFields"] == true;
        if rules {
            rules::compile(&mut node);
        }
        let (schema, root) = apply::schema(&node);
        Ok(Compiled { node, schema, root, fault: None })
    }
}

impl Compiled {
    /// In the place of a schema that cannot be used: keeps everything, so that what is stored can be read.
    pub fn unusable(fault: String) -> Compiled {
        let node = Node::open();
        let (schema, root) = apply::schema(&node);
        Compiled { node, schema, root, fault: Some(fault) }
    }
}

/// The schema of a version as it is written; null when it has none.
pub fn schema_of<'d>(definition: &'d Value, version: &str) -> &'d Value {
    let mut versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let version = versions.find(|v| v["name"] == version);
    version.map_or(&Value::Null, |version| &version["schema"]["openAPIV3Schema"])
}

/// Where a scale's parts are in the object: dotted paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: Box<str>,
    pub status_replicas: Box<str>,
    pub selector: Option<Box<str>>,
}

/// How objects get from one version to another.
#[derive(Debug, Clone, PartialEq)]
pub enum Conversion {
    /// Only `apiVersion` differs.
    None,
    /// `spec.conversion.webhook`, as it was written.
    Webhook(Value),
}

impl Definition {
    /// Reads a definition, all but its schemas ([`Compiled`]).
    pub fn parse(object: &Value) -> Definition {
        let spec = &object["spec"];
        let text = |value: &Value| -> Box<str> { value.as_str().unwrap_or("").into() };
        let versions = spec["versions"].as_array().into_iter().flatten();
        let conversion = &spec["conversion"];
        Definition {
            group: text(&spec["group"]),
            names: Names::parse(&spec["names"]),
            namespaced: spec["scope"] == "Namespaced",
            versions: versions.map(|v| Version::parse(object, v)).collect(),
            conversion: match conversion["strategy"].as_str() {
                Some("Webhook") => Conversion::Webhook(conversion["webhook"].clone()),
                _ => Conversion::None,
            },
        }
    }

    /// The version objects are stored in.
    pub fn storage(&self) -> Option<&Version> {
        self.versions.iter().find(|v| v.storage)
    }
}

impl Names {
    pub fn parse(names: &Value) -> Names {
        let text = |key: &str| -> Box<str> { names[key].as_str().unwrap_or("").into() };
        let list = |key: &str| -> Vec<Box<str>> {
            let words = names[key].as_array().into_iter().flatten();
            words.filter_map(|w| Some(w.as_str()?.into())).collect()
        };
        let or = |text: Box<str>, default: String| match text.is_empty() {
            true => default.into(),
            false => text,
        };
        let kind = text("kind");
        Names {
            plural: text("plural"),
            singular: or(text("singular"), kind.to_lowercase()),
            list_kind: or(text("listKind"), format!("{kind}List")),
            kind,
            short: list("shortNames"),
            categories: list("categories"),
        }
    }
}

impl Version {
    fn parse(object: &Value, version: &Value) -> Version {
        let name = version["name"].as_str().unwrap_or("");
        let sub = &version["subresources"];
        let paths = version["selectableFields"].as_array().into_iter().flatten();
        Version {
            name: name.into(),
            served: version["served"] == true,
            storage: version["storage"] == true,
            warning: (version["deprecated"] == true).then(|| deprecation(object, version)),
            has_status: sub["status"].is_object(),
            scale: sub["scale"].is_object().then(|| ScalePaths::parse(&sub["scale"])),
            columns: Column::all(&version["additionalPrinterColumns"]),
            selectable: paths.filter_map(|f| Some(dotted(f["jsonPath"].as_str()?))).collect(),
        }
    }
}

/// What clients of a deprecated version are told; by default with the newest version to go on with.
fn deprecation(object: &Value, version: &Value) -> String {
    if let Some(warning) = version["deprecationWarning"].as_str() {
        return warning.to_owned();
    }
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let spec = &object["spec"];
    let (group, kind) = (text(&spec["group"]), text(&spec["names"]["kind"]));
    let own = text(&version["name"]);
    let all = spec["versions"].as_array().into_iter().flatten();
    let good = all.filter(|v| v["served"] == true && v["deprecated"] != true);
    let newer = good.map(|v| text(&v["name"])).filter(|name| priority(name) > priority(&own));
    let told = format!("{group}/{own} {kind} is deprecated");
    match newer.max_by_key(|name| priority(name)) {
        Some(name) => format!("{told}; use {group}/{name} {kind}"),
        None => told,
    }
}

/// Kubernetes' order of versions, higher is preferred: `v2`, `v1`, `v1beta2`, `v1beta1`,
/// `v1alpha1`, then others by name.
pub fn priority(version: &str) -> impl Ord + use<> {
    let other = (0, 0, 0, Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..end].parse::<u32>() else { return other };
    let same = Reverse(String::new());
    let level = |name: &str| rest[end..].strip_prefix(name).and_then(|n| n.parse::<u32>().ok());
    match (rest[end..].is_empty(), level("beta"), level("alpha")) {
        (true, _, _) => (3, major, 0, same),
        (_, Some(minor), _) => (2, major, minor, same),
        (_, _, Some(minor)) => (1, major, minor, same),
        _ => other,
    }
}

/// `.spec.size` without its leading point.
fn dotted(path: &str) -> Box<str> {
    path.trim_start_matches('.').into()
}

impl ScalePaths {
    fn parse(scale: &Value) -> ScalePaths {
        let path = |key: &str| dotted(scale[key].as_str().unwrap_or(""));
        ScalePaths {
            spec_replicas: path("specReplicasPath"),
            status_replicas: path("statusReplicasPath"),
            selector: scale["labelSelectorPath"].as_str().filter(|p| !p.is_empty()).map(dotted),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_preferred_as_kubernetes_does() {
        let mut versions = ["v1alpha1", "foo", "v1", "v1beta2", "v2beta1", "v10", "v2", "bar"];
        versions.sort_by_key(|v| Reverse(priority(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "bar", "foo"]);
    }

    #[test]
    fn a_deprecated_version_names_a_newer_one() {
        let version = |name: &str, deprecated: bool| json!({"name": name, "served": true, "deprecated": deprecated});
        let object = json!({"spec": {"group": "e.com", "names": {"kind": "A"}, "versions": [
            version("v1alpha1", false), version("v1beta1", true), version("v1", false), version("v2", false)]}});
        let told = deprecation(&object, &object["spec"]["versions"][1]);
        assert_eq!(told, "e.com/v1beta1 A is deprecated; use e.com/v2 A");
        let alone = json!({"spec": {"group": "e.com", "names": {"kind": "A"}, "versions": [version("v1", true)]}});
        assert_eq!(deprecation(&alone, &alone["spec"]["versions"][0]), "e.com/v1 A is deprecated");
    }
}
