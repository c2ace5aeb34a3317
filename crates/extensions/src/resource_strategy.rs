//! A served version of a definition as the strategy of its objects.

use std::sync::Arc;

use api::apply::{Filter, Versions};
use api::limits::EXPANSION_MAX;
use api::registry::Resource;
use api::status::{Cause, cause};
use api::{Draft, Object, Status};
use bytes::Bytes;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::elsewhere::ViewsOf;
use super::{Conversion, Served, body, convert};
use strategy::columns;
use strategy::decode::{Found, Input, typed, untyped};
use strategy::{
    BoxFuture, DEFAULT, Hooks, ResourceStrategy, ScalePaths, Types, Views, plain_reset_fields,
};

const PATCHES: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, application/apply-patch+cbor";
static HOOKS: Hooks = Hooks { unconditional: false, status_keeps_metadata: true, ..DEFAULT };

impl ResourceStrategy for Served {
    fn resource(&self) -> &'static Resource {
        self.row
    }

    fn types(&self) -> Types {
        Types::Compiled(self.compiled())
    }

    fn hooks(&self) -> &Hooks {
        &HOOKS
    }

    fn check_served(&self) -> Result<(), Status> {
        match self.conversion {
            Conversion::Broken => Err(Status::internal("error resolving resource")),
            _ => Ok(()),
        }
    }

    fn deprecation(&self, _: &Resource) -> Option<String> {
        self.version().warning.as_deref().map(str::to_owned)
    }

    fn retired(&self) -> CancellationToken {
        self.retired.clone()
    }

    fn decode(&self, row: &'static Resource, input: Input<'_>) -> Result<Found, Status> {
        // Scales are of a built-in type.
        match row.ty {
            Some(_) => typed(row, input),
            None => {
                let compiled = self.compiled();
                if let Some(fault) = &compiled.fault {
                    return Err(Status::internal(format!("the schema cannot be used: {fault}")));
                }
                body::decode(row, &compiled.node, untyped(row, input)?)
            }
        }
    }

    fn patch_types(&self) -> &'static str {
        PATCHES
    }

    fn takes_strategic_merge(&self) -> bool {
        false
    }

    fn default(&self, _: &Resource, object: &mut Value) -> Result<(), Status> {
        custom::default(&self.compiled().node, object).map_err(|_| Status::too_large(EXPANSION_MAX))
    }

    /// Objects are stored without telling a fraction of zero from none.
    fn canonicalize(&self, object: &mut Value) {
        whole_numbers(object);
    }

    fn has_status(&self) -> bool {
        self.version().has_status
    }

    /// A status without a path of its own is a part of the object like any other.
    fn skips_status(&self) -> bool {
        self.has_status()
    }

    fn reset_fields(&self, row: &Resource) -> Filter {
        plain_reset_fields(row, self.has_status(), false)
    }

    fn validate(&self, row: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = match old {
            Some(old) => validation::validate_update(row, object, old),
            None => validation::validate_create(row, object),
        };
        let (compiled, check) = (self.compiled(), validation::Check::default());
        custom::validate(self.version(), &compiled, &check.root(object, old));
        causes.extend(check.into_causes());
        // A scale is decoded as one.
        causes
            .extend(compiled.fault.iter().map(|fault| cause("InternalError", "", fault.as_str())));
        causes
    }

    fn warnings(&self, row: &Resource, object: &Value, old: Option<&Value>) -> Vec<String> {
        match row.subresource {
            "" => validation::custom_warnings(object, old),
            _ => Vec::new(),
        }
    }

    fn scale_paths(&self) -> ScalePaths {
        let scale = self.version().scale.as_ref();
        let text = |path: Option<&str>| path.unwrap_or("").to_owned();
        ScalePaths {
            spec_replicas: text(scale.map(|s| &*s.spec_replicas)),
            status_replicas: text(scale.map(|s| &*s.status_replicas)),
            selector: Some(text(scale.and_then(|s| s.selector.as_deref()))),
        }
    }

    fn serves(&self, api_version: &str) -> bool {
        self.definition.versions.iter().any(|v| {
            let name = format!("{}/{}", self.definition.group, v.name);
            v.served && name == api_version
        })
    }

    fn versions<'v>(&'v self, views: &'v Views) -> Option<Box<dyn Versions + 'v>> {
        let differs = matches!(self.conversion, Conversion::Webhook(_));
        differs.then(|| Box::new(ViewsOf::new(views, self)) as Box<dyn Versions + 'v>)
    }

    fn fetch<'v>(&'v self, views: &'v Views) -> BoxFuture<'v, bool> {
        Box::pin(views.fetch(async |version, object| {
            let converted = self.convert(vec![object], &version, None).await?;
            converted.into_iter().next().ok_or_else(String::new)
        }))
    }

    fn read<'s>(&'s self, object: &'s Object) -> BoxFuture<'s, Result<Value, Status>> {
        Box::pin(self.shown(object))
    }

    fn draft<'s>(&'s self, object: &'s Value) -> BoxFuture<'s, Result<Draft, Status>> {
        Box::pin(self.stored(object))
    }

    fn selects_in_version(&self) -> bool {
        self.rebuilt
    }

    fn read_all<'s>(
        &'s self,
        objects: Vec<Arc<Object>>,
        list_kind: Option<&'s str>,
    ) -> BoxFuture<'s, Result<Vec<Arc<Object>>, Status>> {
        Box::pin(async move { self.objects(&objects, list_kind).await.map_err(convert::failure) })
    }

    fn read_watched<'s>(
        &'s self,
        objects: Vec<Arc<Object>>,
    ) -> BoxFuture<'s, Result<Vec<Arc<Object>>, Status>> {
        Box::pin(async move { self.watched(&objects).await.map_err(convert::failure) })
    }

    fn is_converted(&self) -> bool {
        false
    }

    fn json(&self, object: &Object) -> Bytes {
        self.stored_json(object)
    }

    fn show(&self, object: &mut Value) {
        self.retype(object);
    }

    fn has_typed_items(&self) -> bool {
        true
    }

    fn unknown_field(&self, field: &str) -> Status {
        Status::bad_request(format!("field label not supported: {field}"))
    }

    fn columns(&self, row: &Resource) -> Vec<Value> {
        match row.subresource {
            "scale" => columns::scale_columns(),
            _ => columns::custom_columns(&self.version().columns),
        }
    }

    fn cells(&self, row: &Resource, object: &Value) -> (Vec<Value>, Option<Value>) {
        let cells = match row.subresource {
            "scale" => (printers::printer(row).cells)(object),
            _ => columns::custom_cells(&self.version().columns, object),
        };
        (cells, None)
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
