//! One request's context, as every handler and hook sees it.

use std::sync::{Mutex, PoisonError};

use api::Status;
use api::registry::Resource;
use api::schema::Shape;
use jiff::Timestamp;
use serde_json::Value;

use crate::query::{FieldValidation, Query};
use crate::request::RequestInfo;
use crate::server::Inner;
use crate::user::User;

pub(crate) struct Call<'a> {
    pub(crate) server: &'a Inner,
    pub(crate) user: &'a User,
    pub(crate) info: &'a RequestInfo,
    pub(crate) query: &'a Query,
    /// The row of the path: a resource or a subresource.
    pub(crate) row: &'static Resource,
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
    /// Who manages the fields this request sets.
    pub(crate) manager: String,
    pub(crate) now: Timestamp,
    warnings: Mutex<Vec<String>>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        server: &'a Inner,
        user: &'a User,
        (info, query): (&'a RequestInfo, &'a Query),
        row: &'static Resource,
        user_agent: &str,
    ) -> Result<Call<'a>, Status> {
        let manager = match query.get("fieldManager") {
            Some(manager) if !manager.is_empty() => manager.to_owned(),
            _ => manager_of(user_agent),
        };
        Ok(Call {
            server,
            user,
            info,
            query,
            row,
            dry_run: query.dry_run()?,
            validation: query.field_validation()?,
            manager,
            now: Timestamp::now(),
            warnings: Mutex::default(),
        })
    }

    /// The resource itself, when the path names a subresource.
    pub(crate) fn main_row(&self) -> &'static Resource {
        let row = self.row;
        let found = self.server.registry.find(row.group, row.version, row.name, "");
        found.expect("a subresource has a resource")
    }

    pub(crate) fn shape(&self) -> Shape {
        self.server.shape(self.main_row())
    }

    /// Key of the object that the path names.
    pub(crate) fn key(&self) -> String {
        self.row.key(&self.info.namespace, &self.info.name)
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(self.row.group, self.row.name, &self.info.name)
    }

    pub(crate) fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text.into());
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `2006-01-02T15:04:05Z`.
    pub(crate) fn now_text(&self) -> String {
        self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// The stored object's present state as a tree, of any built-in resource.
    pub(crate) fn read(
        &self,
        (group, version, resource): (&str, &str, &str),
        key: &str,
    ) -> Option<Value> {
        self.server.collection_of(group, version, resource).get(key).map(|o| o.to_value())
    }
}

/// The default field manager: the user agent's first word (apiserver `managerOrUserAgent`).
fn manager_of(user_agent: &str) -> String {
    let word = user_agent.split('/').next().unwrap_or("");
    let plain: String = word.chars().filter(|c| !c.is_control()).take(128).collect();
    if plain.is_empty() { "unknown".into() } else { plain }
}
