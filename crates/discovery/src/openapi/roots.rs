//! Documents of what is no resource: the lists of groups and versions, the server's version, its
//! keys.

use serde_json::{Map, Value, json};

use super::operations::content;
use strategy::type_names::{camel, group_name};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const ENCODINGS: &[&str] =
    &["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];

/// One such path.
pub(super) struct Root {
    /// Where its document is, below `/openapi/v3/`.
    pub(super) document: String,
    tag: String,
    id: String,
    description: &'static str,
    forms: &'static [&'static str],
    /// Schema of the answer; none is text.
    pub(super) model: Option<String>,
}

/// Those of a server of these groups.
pub(super) fn all<'a>(groups: impl Iterator<Item = &'a str>) -> Vec<Root> {
    let meta = |kind: &str| Some(format!("{META}{kind}"));
    let root = |document: &str, tag: &str, id: &str, description, forms, model| Root {
        document: document.into(),
        tag: tag.into(),
        id: id.into(),
        description,
        forms,
        model,
    };
    let json = &["application/json"];
    let versions = "get available API versions";
    let info = Some("io.k8s.apimachinery.pkg.version.Info".to_owned());
    let keys = "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)";
    let mut roots = vec![
        root("api", "core", "getCoreAPIVersions", versions, ENCODINGS, meta("APIVersions")),
        root("apis", "apis", "getAPIVersions", versions, ENCODINGS, meta("APIGroupList")),
        root(
            "version",
            "version",
            "getCodeVersion",
            "get the version information for this server",
            json,
            info,
        ),
        root(
            "openid/v1/jwks",
            "openid",
            "getServiceAccountIssuerOpenIDKeyset",
            keys,
            &["application/jwk-set+json"],
            None,
        ),
        root(
            ".well-known/openid-configuration",
            "WellKnown",
            "getServiceAccountIssuerOpenIDConfiguration",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            json,
            None,
        ),
    ];
    roots.extend(groups.map(|group| {
        let name = group_name(group);
        let id = format!("get{}APIGroup", camel(&name));
        let what = "get information of a group";
        root(&format!("apis/{group}"), &name, &id, what, ENCODINGS, meta("APIGroup"))
    }));
    roots
}

/// The path that lists a group version's resources.
pub(super) fn of_version(document: &str, group: &str, version: &str) -> Root {
    let name = group_name(group);
    Root {
        document: document.into(),
        tag: format!("{name}_{version}"),
        id: format!("get{}{}APIResources", camel(&name), camel(version)),
        description: "get available resources",
        forms: ENCODINGS,
        model: Some(format!("{META}APIResourceList")),
    }
}

impl Root {
    pub(super) fn add(&self, paths: &mut Map<String, Value>) {
        let text = json!({"type": "string"});
        let reference = |model: &String| json!({"$ref": format!("#/components/schemas/{model}")});
        let schema = self.model.as_ref().map_or(text, reference);
        let operation = json!({
            "tags": [self.tag], "description": self.description, "operationId": self.id,
            "responses": {
                "200": {"description": "OK", "content": content(self.forms, &schema)},
                "401": {"description": "Unauthorized"},
            },
        });
        paths.insert(format!("/{}/", self.document), json!({"get": operation}));
    }
}
