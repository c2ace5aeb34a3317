//! GET of a collection: pages of one revision.

use std::sync::Arc;

use api::registry::Resource;
use api::{Object, Status};

use super::Answer;
use super::options::{Position, continue_token, list_expired};
use crate::call::Call;

/// A page, before it is rendered.
#[derive(Debug, Clone)]
pub struct Listing {
    pub row: &'static Resource,
    pub objects: Vec<Arc<Object>>,
    pub revision: u64,
    pub continue_token: String,
    pub remaining: Option<usize>,
}

pub async fn list(call: &Call<'_>) -> Result<Answer, Status> {
    let collection = call.resources.collection(call.row);
    let filter = Filter::of(call)?;
    let limit =
        call.context.query.number("limit")?.filter(|n| *n > 0).map_or(usize::MAX, |n| n as usize);
    let position = Position::of_list(call.context.query, collection.revision())?;
    let prefix = filter.prefix(call);
    let after = position.after.as_deref();
    let page = collection
        .list_by(filter.indexed(), (&prefix, after), position.revision, limit, &|o| {
            filter.matches(o)
        })
        .map_err(|_| list_expired(&position))?;
    let last = page.last_key.as_deref();
    let mut objects = call.selectable(page.objects).await?;
    objects.retain(|object| filter.selects(object));
    Ok(Answer::List(Listing {
        row: call.row,
        continue_token: last
            .map_or(String::new(), |last| continue_token(Some(page.revision), last)),
        // Counted before selection: with one, the number would mislead.
        remaining: last.filter(|_| filter.is_plain()).map(|_| page.remaining),
        objects,
        revision: page.revision,
    }))
}

/// What a list or watch selects.
#[derive(Debug, Clone)]
pub struct Filter {
    labels: api::selector::LabelSelector,
    fields: api::selector::FieldSelector,
    selectable: &'static [&'static str],
    indexed: Option<&'static str>,
    /// Stored objects are all let through: they are selected when they are in the request's form.
    later: bool,
}

impl Filter {
    pub fn of(call: &Call<'_>) -> Result<Filter, Status> {
        let mut fields = call.context.query.field_selector()?;
        validation::convert::rename_fields(call.row, &mut fields).map_err(Status::bad_request)?;
        for requirement in &fields.requirements {
            let field = requirement.field.as_str();
            let known = matches!(field, "metadata.name" | "metadata.namespace")
                || call.row.selectable.contains(&field);
            if !known {
                return Err(call.strategy.unknown_field(field));
            }
        }
        Ok(Filter {
            labels: call.context.query.label_selector()?,
            fields,
            selectable: call.row.selectable,
            indexed: call.row.indexed,
            later: call.strategy.selects_in_version(),
        })
    }

    pub fn parse(labels: &str, fields: &str, row: &Resource) -> Result<Filter, String> {
        let mut fields = api::selector::FieldSelector::parse(fields)?;
        validation::convert::rename_fields(row, &mut fields)?;
        Ok(Filter {
            labels: api::selector::LabelSelector::parse(labels)?,
            fields,
            selectable: row.selectable,
            indexed: row.indexed,
            later: false,
        })
    }

    pub fn is_plain(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The value of the indexed field that all selected objects have, if the selector asks for one.
    pub fn indexed(&self) -> Option<(&'static str, &str)> {
        let field = self.indexed.filter(|_| !self.later)?;
        Some((field, self.fields.value_of(field)?))
    }

    /// Whether a stored object may be selected.
    pub fn matches(&self, object: &Object) -> bool {
        self.later || self.selects(object)
    }

    /// Whether an object in the form of the request's version is selected.
    pub fn selects(&self, object: &Object) -> bool {
        let meta = object.meta();
        self.labels.matches(meta) && self.fields.matches(meta, self.selectable)
    }

    /// Key prefix of what can match.
    pub fn prefix(&self, call: &Call<'_>) -> String {
        if call.row.namespaced && !call.context.info.namespace.is_empty() {
            format!("{}/", call.context.info.namespace)
        } else {
            String::new()
        }
    }

    /// What is asked of fields.
    pub fn fields(&self) -> &api::selector::FieldSelector {
        &self.fields
    }
}
