//! What a policy sees of a request that it matches: the objects in the version of its rule, and the namespace.

use api::Status;
use api::registry::Resource;
use serde_json::Value;

use crate::attributes::Attributes;
use crate::expressions::namespace_object;
use crate::matching::{self, Constraints};

/// Reviews are answered rather than stored; a policy on them could stop every component.
const NOT_STORED: [(&str, &str); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// Whether no policy sees requests for this resource.
pub(super) fn is_exempt(request: &Attributes<'_>) -> bool {
    let row = request.row;
    matching::is_exempt(row) || NOT_STORED.contains(&(row.group, row.name))
}

/// The row in whose version the policy or binding sees the request, if it matches.
pub(super) fn matches<'a>(
    constraints: &Constraints,
    request: &Attributes<'a>,
    object: &Value,
) -> Result<Option<&'a Resource>, String> {
    constraints.matches(request, object).map_err(|status| status.message)
}

/// The objects of a request in one version. What needs no conversion is not copied.
pub(super) enum Versioned<'a> {
    Sent { object: &'a Value, old: Option<&'a Value> },
    Converted { object: Value, old: Option<Value> },
}

impl<'a> Versioned<'a> {
    pub(super) async fn of(
        request: &Attributes<'a>,
        object: &'a Value,
        row: &Resource,
    ) -> Result<Versioned<'a>, String> {
        if (row.group, row.version) == (request.row.group, request.row.version) {
            return Ok(Versioned::Sent { object, old: request.old });
        }
        let convert = async |object: &Value| {
            let converted = request.versions.convert(object.clone(), request.row, row).await;
            converted.map_err(|status| status.message)
        };
        let old = match request.old {
            Some(old) => Some(convert(old).await?),
            None => None,
        };
        Ok(Versioned::Converted { object: convert(object).await?, old })
    }

    pub(super) fn object(&self) -> Option<&Value> {
        match self {
            Versioned::Sent { object, .. } => Some(object),
            Versioned::Converted { object, .. } => Some(object),
        }
    }

    pub(super) fn old(&self) -> Option<&Value> {
        match self {
            Versioned::Sent { old, .. } => *old,
            Versioned::Converted { old, .. } => old.as_ref(),
        }
    }
}

/// The namespace that a request is in, as expressions see it; none for what is cluster-scoped, and for
/// namespaces themselves.
pub(super) struct Namespace(Option<Value>);

impl Namespace {
    pub(super) fn of(request: &Attributes<'_>) -> Result<Namespace, Status> {
        let name = request.namespace();
        let is_namespace = (request.row.group, request.row.kind) == ("", "Namespace");
        if name.is_empty() || is_namespace {
            return Ok(Namespace(None));
        }
        let found = request.read(("", "v1", "namespaces"), name);
        let found = found.ok_or_else(|| Status::not_found("", "namespaces", name))?;
        Ok(Namespace(Some(namespace_object(&found))))
    }

    pub(super) fn object(&self) -> Option<&Value> {
        self.0.as_ref()
    }
}
