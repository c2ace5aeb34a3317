//! Objects of a request in other versions, for field management.
//!
//! Field management is plain computation, while a webhook takes its time. So a computation that
//! needs an object in another version notes that and fails; what was noted is fetched, and the
//! computation done again. Each version is asked for once a request and state.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use api::apply::{Versions, View};
use serde_json::{Value, json};

use super::Served;

/// A version, and the JSON of an object that is wanted in it.
type Key = (String, String);

#[derive(Debug, Default)]
pub(crate) struct Views {
    known: Mutex<HashMap<Key, Result<Value, String>>>,
    wanted: Mutex<Vec<(Key, Value)>>,
}

impl Views {
    /// Fetches what was wanted; false when nothing was.
    pub(crate) async fn fetch(&self, custom: &Served) -> bool {
        let wanted =
            std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        let any = !wanted.is_empty();
        for (key, object) in wanted {
            let converted = custom.convert(vec![object], &key.0, None).await;
            let converted = converted.and_then(|mut all| all.pop().ok_or_else(String::new));
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, converted);
        }
        any
    }

    pub(crate) fn is_wanting(&self) -> bool {
        !self.wanted.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn converted(&self, version: &str, object: &Value) -> Result<Value, String> {
        let key = (version.to_owned(), object.to_string());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&key) {
            return known.clone();
        }
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if !wanted.iter().any(|(other, _)| *other == key) {
            wanted.push((key, object.clone()));
        }
        Err("an object is being converted".into())
    }

    pub(crate) fn of<'c>(&'c self, custom: &'c Served) -> ViewsOf<'c> {
        ViewsOf { views: self, custom }
    }
}

/// The same of a definition's objects.
pub(crate) struct ViewsOf<'c> {
    views: &'c Views,
    custom: &'c Served,
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
