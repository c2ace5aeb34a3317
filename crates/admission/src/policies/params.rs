//! Parameters: the objects that a binding names or selects for its policy.

use api::registry::Resource;
use api::selector::LabelSelector;
use serde_json::Value;

use crate::attributes::Attributes;

/// `paramKind`.
#[derive(Debug)]
pub(crate) struct ParamKind {
    group: Box<str>,
    version: Box<str>,
    kind: Box<str>,
}

impl ParamKind {
    pub(crate) fn read(value: &Value) -> Option<ParamKind> {
        let version = value.as_object()?.get("apiVersion").and_then(Value::as_str).unwrap_or("");
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        Some(ParamKind {
            group: group.into(),
            version: version.into(),
            kind: value["kind"].as_str().unwrap_or("").into(),
        })
    }

    /// The resource of the kind, if it is served.
    pub(crate) fn resolve(&self, request: &Attributes<'_>) -> Result<&'static Resource, String> {
        let Self { group, version, kind } = self;
        request.cluster.row_of_kind(group, version, kind).ok_or_else(|| {
            format!(
                "failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'"
            )
        })
    }
}

/// `paramRef`.
#[derive(Debug)]
pub(crate) struct ParamRef {
    name: Box<str>,
    namespace: Box<str>,
    /// `None` where the reference is by name.
    selector: Option<LabelSelector>,
    denies_missing: bool,
}

impl ParamRef {
    pub(crate) fn read(value: &Value) -> Option<ParamRef> {
        value.as_object()?;
        let text = |key: &str| value[key].as_str().unwrap_or("").into();
        let selector = &value["selector"];
        Some(ParamRef {
            name: text("name"),
            namespace: text("namespace"),
            selector: selector.is_object().then(|| LabelSelector::from_json(selector)),
            denies_missing: value["parameterNotFoundAction"] == "Deny",
        })
    }

    /// The parameters, of which there may be none; an error is one of the binding's configuration.
    pub(crate) async fn collect(
        &self,
        kind: &'static Resource,
        request: &Attributes<'_>,
    ) -> Result<Vec<Value>, String> {
        let namespace = self.namespace_of(kind, request)?;
        let found = match &self.selector {
            None if self.name.is_empty() => {
                return Err("one of name or selector must be provided".to_owned());
            }
            Some(_) if !self.name.is_empty() => {
                return Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned());
            }
            None => self.named(kind, namespace, request).await?.into_iter().collect(),
            Some(selector) => {
                let prefix = match kind.namespaced {
                    true => format!("{namespace}/"),
                    false => String::new(),
                };
                let all = request.cluster.read_all(kind, &prefix, selector);
                all.await.map_err(|status| status.message)?
            }
        };
        if found.is_empty() && self.denies_missing {
            return Err(
                "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned()
            );
        }
        Ok(found)
    }

    async fn named(
        &self,
        kind: &'static Resource,
        namespace: &str,
        request: &Attributes<'_>,
    ) -> Result<Option<Value>, String> {
        let key = kind.key(namespace, &self.name);
        request.cluster.read(kind, &key).await.map_err(|status| status.message)
    }

    fn namespace_of<'a>(
        &'a self,
        kind: &Resource,
        request: &'a Attributes<'_>,
    ) -> Result<&'a str, String> {
        if !kind.namespaced {
            return match self.namespace.is_empty() {
                true => Ok(""),
                false => {
                    Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                        .to_owned())
                }
            };
        }
        match (&*self.namespace, request.namespace()) {
            ("", "") => Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .to_owned(),
            ),
            ("", namespace) => Ok(namespace),
            (namespace, _) => Ok(namespace),
        }
    }
}
