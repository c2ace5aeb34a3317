//! One request's context, as every handler and hook sees it.

use std::sync::{Arc, Mutex, PoisonError};

use api::limits::EXPANSION_MAX;
use api::registry::Resource;
use api::schema::{Schema, Shape};
use api::status::Cause;
use api::{Draft, Object, Status};
use auth::{RequestInfo, User};
use jiff::Timestamp;
use serde_json::Value;
use store::{Write, WriteError};

use crate::allocate::{Claim, Claims, Unbooked};
use crate::custom::{Served, Views};
use crate::query::{FieldValidation, Query};
use crate::server::Inner;

pub(crate) struct Call<'a> {
    pub(crate) server: &'a Inner,
    pub(crate) user: &'a User,
    pub(crate) info: &'a RequestInfo,
    pub(crate) query: &'a Query,
    /// The row of the path: a resource or a subresource.
    pub(crate) row: &'static Resource,
    /// The definition behind it, when the resource is not built in.
    pub(crate) custom: Option<Arc<Served>>,
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
    /// Who manages the fields this request sets.
    pub(crate) manager: String,
    pub(crate) now: Timestamp,
    /// The object in other versions, as field management needs it.
    pub(crate) views: Views,
    warnings: Mutex<Vec<String>>,
    /// What was allocated for an object that is not stored yet.
    claims: Mutex<Claims>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        server: &'a Inner,
        user: &'a User,
        (info, query): (&'a RequestInfo, &'a Query),
        (row, custom): (&'static Resource, Option<Arc<Served>>),
        user_agent: &str,
    ) -> Result<Call<'a>, Status> {
        let manager = match query.get("fieldManager") {
            Some(manager) if !manager.is_empty() => manager.to_owned(),
            _ => manager_of(user_agent),
        };
        let options = match info.verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" => "PatchOptions",
            _ => "DeleteOptions",
        };
        Ok(Call {
            server,
            user,
            info,
            query,
            row,
            custom,
            dry_run: query.dry_run(options)?,
            validation: query.field_validation(options)?,
            manager,
            now: Timestamp::now(),
            views: Views::default(),
            warnings: Mutex::default(),
            claims: Mutex::default(),
        })
    }

    /// A request about something else in the course of this one.
    pub(crate) fn about<'b>(
        &'b self,
        info: &'b RequestInfo,
        row: &'static Resource,
    ) -> Result<Call<'b>, Status> {
        Call::new(self.server, self.user, (info, self.query), (row, None), &self.manager)
    }

    pub(crate) fn pods_row(&self) -> &'static Resource {
        self.server.registry.find("", "v1", "pods", "").expect("pods are built in")
    }

    /// The resource itself, when the path names a subresource.
    pub(crate) fn main_row(&self) -> &'static Resource {
        let row = self.row;
        if let Some(custom) = &self.custom {
            return custom.row;
        }
        let found = self.server.registry.find(row.group, row.version, row.name, "");
        found.expect("a subresource has a resource")
    }

    /// The stored object that the request is about.
    pub(crate) fn stored(&self) -> Option<Arc<Object>> {
        let row = self.main_row();
        if self.info.name.is_empty() || row.prefix.is_empty() {
            return None;
        }
        self.server.collection(row).get(&self.key())
    }

    /// Shape of the resource's objects, in [`Call::schema`].
    pub(crate) fn shape(&self) -> Shape {
        match &self.custom {
            Some(custom) => custom.version().root.clone(),
            None => self.server.shape(self.main_row()),
        }
    }

    /// The types of the resource's objects.
    pub(crate) fn schema(&self) -> &Schema {
        self.custom.as_ref().map_or(self.server.schema, |custom| &custom.version().schema)
    }

    /// Fills in the defaults of the schema, and those that depend on other fields. Refuses an object
    /// to which a definition's defaults would add more than a body may have.
    pub(crate) fn apply_defaults(&self, object: &mut Value) -> Result<(), Status> {
        match &self.custom {
            Some(custom) => custom::default(&custom.version().node, object)
                .map_err(|_| Status::too_large(EXPANSION_MAX)),
            None => {
                self.server.schema.apply_defaults(&self.shape(), object);
                (validation::of(self.row).default)(object);
                Ok(())
            }
        }
    }

    /// Built-in objects are stored without telling empty lists from none, custom ones without
    /// telling a fraction of zero from none.
    pub(crate) fn settle(&self, object: &mut Value) {
        let as_json = ["apiextensions.k8s.io", "apiregistration.k8s.io"].contains(&self.row.group);
        if self.custom.is_some() {
            whole_numbers(object);
        } else if !as_json {
            self.server.schema.settle(&self.shape(), object);
        }
    }

    /// Is the status written through a path of its own?
    pub(crate) fn has_status(&self) -> bool {
        match &self.custom {
            Some(custom) => custom.version().has_status,
            None => crate::hooks::has_status(self.row),
        }
    }

    /// Faults of an object that is about to be stored in place of `old`. A valid object is warned about.
    pub(crate) fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = match old {
            Some(old) => validation::validate_update(self.row, object, old),
            None => validation::validate_create(self.row, object),
        };
        if let Some(custom) = &self.custom {
            let check = validation::Check::default();
            custom::validate(custom.version(), &check.root(object, old));
            causes.extend(check.into_causes());
        }
        let check = validation::Check::default();
        (crate::hooks::of(self.row).validate)(&check.root(object, old));
        causes.extend(check.into_causes());
        if causes.is_empty() {
            let warnings = match &self.custom {
                None => validation::warnings(self.row, object, old),
                Some(_) if !self.row.subresource.is_empty() => Vec::new(),
                Some(_) => validation::custom_warnings(object, old),
            };
            warnings.into_iter().for_each(|warning| self.warn(warning));
        }
        causes
    }

    /// A stored object as this path's version shows it.
    pub(crate) async fn shown(&self, object: &Object) -> Result<Value, Status> {
        if let Some(custom) = &self.custom {
            return custom.shown(object).await;
        }
        let mut tree = object.to_value();
        validation::convert::to_shown(self.row, &mut tree);
        Ok(tree)
    }

    /// An object as it is stored.
    pub(crate) async fn draft(&self, object: &Value) -> Result<Draft, Status> {
        let row = self.main_row();
        if let Some(custom) = &self.custom {
            return custom.draft(object).await;
        }
        if !validation::convert::is_converted(row) {
            return Ok(Draft::new(object, row.selectable));
        }
        let mut object = object.clone();
        validation::convert::to_stored(row, &mut object);
        Ok(Draft::new(&object, row.selectable))
    }

    /// Stored objects in the form in which this path's selectors select them.
    pub(crate) async fn selectable(
        &self,
        objects: Vec<Arc<Object>>,
    ) -> Result<Vec<Arc<Object>>, Status> {
        match self.custom.as_ref().filter(|custom| custom.rebuilt) {
            None => Ok(objects),
            Some(custom) => {
                let shown = custom.objects(&objects, Some(self.row.list_kind)).await;
                shown.map_err(crate::custom::conversion_failure)
            }
        }
    }

    /// Fetches what field management found missing; false when it was nothing.
    pub(crate) async fn fetch_views(&self) -> bool {
        match &self.custom {
            Some(custom) => self.views.fetch(custom).await,
            None => false,
        }
    }

    /// Key of the object that the path names.
    pub(crate) fn key(&self) -> String {
        self.row.key(&self.info.namespace, &self.info.name)
    }

    /// The group of the kind that refusals name: events are the core group's.
    pub(crate) fn group(&self) -> &'static str {
        if self.row.group == "events.k8s.io" { "" } else { self.row.group }
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(self.row.group, self.row.name, &self.info.name)
    }

    /// Tells the client something, once.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        let (text, mut all) =
            (text.into(), self.warnings.lock().unwrap_or_else(PoisonError::into_inner));
        if !all.contains(&text) {
            all.push(text);
        }
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an allocation, to be given back unless the object that holds it is stored.
    pub(crate) fn claim(&self, claim: Claim) {
        self.claims().all.push(claim);
    }

    /// Books what was allocated for `object`.
    pub(crate) async fn book(&self, object: &mut Value) -> Result<(), Unbooked> {
        let text = |key| crate::meta::text(object, key).to_owned();
        let parent = (text("namespace"), text("name"));
        let mut claims = Booked { call: self, claims: std::mem::take(&mut *self.claims()) };
        self.server.allocators.book(&mut claims.claims, &parent, object).await
    }

    /// Writes an object. Whoever stops waiting does not stop the write, so what was allocated for it
    /// is in doubt meanwhile, and remains so when the store cannot tell.
    pub(crate) async fn write(
        &self,
        row: &Resource,
        write: Write,
    ) -> Result<Arc<Object>, WriteError> {
        self.claims().in_doubt = true;
        let written = self.server.write(row, write).await;
        self.claims().in_doubt = matches!(written, Err(WriteError::Unknown(_)));
        written
    }

    /// The object is stored: what was allocated for it is its own.
    pub(crate) fn keep_claims(&self) {
        let claims = std::mem::take(&mut *self.claims());
        self.server.allocators.settle(claims);
    }

    /// Takes back what was booked, which then is to be booked for another name.
    pub(crate) async fn unbook(&self) {
        let booked = self.claims().unbooked();
        self.server.allocators.return_booked(&booked).await;
    }

    /// Gives back what no stored object holds, before another try.
    pub(crate) async fn drop_claims(&self) {
        let claims = std::mem::take(&mut *self.claims());
        self.server.allocators.give_back(claims).await;
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

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let claims = std::mem::take(&mut *self.claims());
        self.server.allocators.give_back_later(claims);
    }
}

/// Claims that are being booked; back in their call when that ends, however it does.
struct Booked<'c, 'a> {
    call: &'c Call<'a>,
    claims: Claims,
}

impl Drop for Booked<'_, '_> {
    fn drop(&mut self) {
        *self.call.claims() = std::mem::take(&mut self.claims);
    }
}

/// Go writes 1.0 as 1.
fn whole_numbers(value: &mut Value) {
    /// Up to here every whole number is a float of its own.
    const EXACT: f64 = (1_u64 << 53) as f64;
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= EXACT);
            if let Some(whole) = whole {
                *value = (whole as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// The default field manager: the user agent's first word (apiserver `managerOrUserAgent`).
fn manager_of(user_agent: &str) -> String {
    let word = user_agent.split('/').next().unwrap_or("");
    let plain: String = word.chars().filter(|c| !c.is_control()).take(128).collect();
    if plain.is_empty() { "unknown".into() } else { plain }
}
