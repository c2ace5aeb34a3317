//! A definition's objects in other versions, for field management.

use std::borrow::Cow;

use api::apply::{Versions, View};
use serde_json::{Value, json};

use super::Served;
use crate::strategy::Views;

/// The views of one request.
pub(super) struct ViewsOf<'c> {
    pub(super) views: &'c Views,
    pub(super) custom: &'c Served,
}

impl Versions for ViewsOf<'_> {
    fn view<'v>(
        &'v self,
        api_version: &str,
        object: &'v Value,
    ) -> Result<Option<View<'v>>, String> {
        let Some(version) = self.custom.version_of(api_version).filter(|v| v.served) else {
            return Ok(None);
        };
        let object = if object["apiVersion"] == api_version {
            Cow::Borrowed(object)
        } else if object["metadata"]["name"].is_string() {
            Cow::Owned(self.views.converted(api_version, object)?)
        } else {
            // Nothing is nothing in every version.
            Cow::Owned(json!({"apiVersion": api_version, "kind": object["kind"]}))
        };
        Ok(Some(View { schema: &version.schema, shape: &version.root, object }))
    }
}
