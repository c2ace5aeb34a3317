//! GET of a collection: pages of one revision.

use std::sync::Arc;

use api::registry::Resource;
use api::{Object, Status};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::Answer;
use crate::call::Call;

/// A page, before it is rendered.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) row: &'static Resource,
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) revision: u64,
    pub(crate) continue_token: String,
    pub(crate) remaining: Option<usize>,
}

/// A continue token, in the original's layout.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: u64,
    start: String,
}

pub(crate) async fn list(call: &Call<'_>) -> Result<Answer, Status> {
    let collection = call.server.collection(call.row);
    let filter = Filter::of(call)?;
    let limit = call.query.number("limit")?.filter(|n| *n > 0).map_or(usize::MAX, |n| n as usize);
    let (at, after) = match call.query.get("continue").filter(|t| !t.is_empty()) {
        Some(token) => continued(token)?,
        None => (exact_revision(call, collection.revision())?, None),
    };
    let prefix = filter.prefix(call);
    let page = collection
        .list(&prefix, after.as_deref(), at, limit, &|o| filter.matches(o))
        .map_err(|expired| gone(call, expired))?;
    let (continue_token, remaining) = match &page.last_key {
        Some(last) => {
            let token =
                Token { v: "meta.k8s.io/v1".into(), rv: page.revision, start: format!("{last}\0") };
            let json = serde_json::to_vec(&token).map_err(|e| Status::internal(e.to_string()))?;
            let counted = filter.is_plain().then_some(page.remaining);
            (URL_SAFE_NO_PAD.encode(json), counted)
        }
        None => (String::new(), None),
    };
    let mut objects = call.selectable(page.objects).await?;
    objects.retain(|object| filter.selects(object));
    Ok(Answer::List(Listing {
        row: call.row,
        objects,
        revision: page.revision,
        continue_token,
        remaining,
    }))
}

fn gone(call: &Call<'_>, expired: store::Expired) -> Status {
    if call.query.get("continue").is_some_and(|t| !t.is_empty()) {
        return Status::gone(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
        );
    }
    Status::gone(expired.to_string())
}

fn continued(token: &str) -> Result<(u64, Option<String>), Status> {
    let invalid = || Status::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    Ok((token.rv, Some(token.start.trim_end_matches('\0').to_owned())))
}

/// Revision to show: 0 for now. `resourceVersionMatch=Exact` asks for one; without it anything at
/// least as new will do, and now always is.
fn exact_revision(call: &Call<'_>, now: u64) -> Result<u64, Status> {
    let text = call.query.get("resourceVersion").unwrap_or("");
    let how = call.query.get("resourceVersionMatch").unwrap_or("");
    let forbidden = |detail: &str| {
        let cause = crate::meta::cause(
            "FieldValueForbidden",
            "resourceVersionMatch",
            format!("Forbidden: {detail}"),
        );
        Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
    };
    if !how.is_empty() && text.is_empty() {
        return Err(forbidden(
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    let revision = parse_revision(text)?;
    if revision > now {
        return Err(too_new(revision, now));
    }
    match how {
        "" if revision != 0 && call.query.number("limit")?.is_some_and(|n| n > 0) => Ok(revision),
        "" | "NotOlderThan" => Ok(0),
        "Exact" if revision == 0 => {
            Err(forbidden("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""))
        }
        "Exact" => Ok(revision),
        other => {
            let message = format!(
                "Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
            );
            let cause =
                crate::meta::cause("FieldValueNotSupported", "resourceVersionMatch", message);
            Err(Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause]))
        }
    }
}

pub(crate) fn parse_revision(text: &str) -> Result<u64, Status> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        let cause = crate::meta::invalid(
            "resourceVersion",
            &text.into(),
            "strconv.ParseUint: parsing: invalid syntax",
        );
        Status::invalid("", "", "", vec![cause])
    })
}

pub(crate) fn too_new(asked: u64, now: u64) -> Status {
    let message = format!("Timeout: Too large resource version: {asked}, current: {now}");
    let mut status = Status::timeout(message).with_retry_after(1);
    let cause = crate::meta::cause("ResourceVersionTooLarge", "", "Too large resource version");
    status = status.with_causes(vec![cause]);
    status
}

/// What a list or watch selects.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    labels: api::selector::LabelSelector,
    fields: api::selector::FieldSelector,
    selectable: &'static [&'static str],
    /// Stored objects are all let through: they are selected when they are in the request's form.
    later: bool,
}

impl Filter {
    pub(crate) fn of(call: &Call<'_>) -> Result<Filter, Status> {
        let mut fields = call.query.field_selector()?;
        kinds::convert::rename_fields(call.row, &mut fields).map_err(Status::bad_request)?;
        for requirement in &fields.requirements {
            let field = requirement.field.as_str();
            let known = matches!(field, "metadata.name" | "metadata.namespace")
                || call.row.selectable.contains(&field);
            if !known {
                return Err(Status::bad_request(
                    match call.row.selectable.is_empty() && call.custom.is_none() {
                        true => format!(
                            "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                        ),
                        false => format!("field label not supported: {field}"),
                    },
                ));
            }
        }
        Ok(Filter {
            labels: call.query.label_selector()?,
            fields,
            selectable: call.row.selectable,
            later: call.custom.as_ref().is_some_and(|custom| custom.rebuilt),
        })
    }

    pub(crate) fn parse(labels: &str, fields: &str, row: &Resource) -> Result<Filter, String> {
        let mut fields = api::selector::FieldSelector::parse(fields)?;
        kinds::convert::rename_fields(row, &mut fields)?;
        Ok(Filter {
            labels: api::selector::LabelSelector::parse(labels)?,
            fields,
            selectable: row.selectable,
            later: false,
        })
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether a stored object may be selected.
    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.later || self.selects(object)
    }

    /// Whether an object in the form of the request's version is selected.
    pub(crate) fn selects(&self, object: &Object) -> bool {
        let meta = object.meta();
        self.labels.matches(meta) && self.fields.matches(meta, self.selectable)
    }

    /// Key prefix of what can match.
    pub(crate) fn prefix(&self, call: &Call<'_>) -> String {
        if call.row.namespaced && !call.info.namespace.is_empty() {
            format!("{}/", call.info.namespace)
        } else {
            String::new()
        }
    }

    /// The one name that can match, if the selector says so.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.name()
    }
}
