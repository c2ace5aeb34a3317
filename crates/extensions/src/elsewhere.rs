//! A definition's objects in other versions, for field management.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use api::apply::{Versions, View};
use custom::Compiled;
use serde_json::{Value, json};

use super::{Depth, Served};
use strategy::Views;

/// The views of one request.
pub(super) struct ViewsOf<'c> {
    views: &'c Views,
    custom: &'c Served,
    /// The schemas that views are read by, by their versions' places.
    schemas: Vec<OnceLock<Arc<Compiled>>>,
}

impl<'c> ViewsOf<'c> {
    pub(super) fn new(views: &'c Views, custom: &'c Served) -> ViewsOf<'c> {
        let schemas = custom.definition.versions.iter().map(|_| OnceLock::new()).collect();
        ViewsOf { views, custom, schemas }
    }
}

impl Versions for ViewsOf<'_> {
    fn view<'v>(
        &'v self,
        api_version: &str,
        object: &'v Value,
    ) -> Result<Option<View<'v>>, String> {
        let Some(at) = self.custom.place_of(api_version) else { return Ok(None) };
        if !self.custom.definition.versions[at].served {
            return Ok(None);
        }
        let object = if object["apiVersion"] == api_version {
            Cow::Borrowed(object)
        } else if object["metadata"]["name"].is_string() {
            Cow::Owned(self.views.converted(api_version, object)?)
        } else {
            // Nothing is nothing in every version.
            Cow::Owned(json!({"apiVersion": api_version, "kind": object["kind"]}))
        };
        let schemas = &self.custom.schemas;
        let compiled = self.schemas[at].get_or_init(|| schemas.get(at, Depth::Structure));
        Ok(Some(View { schema: &compiled.schema, shape: &compiled.root, object }))
    }
}
