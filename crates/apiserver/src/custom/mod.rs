//! Custom resources: the definitions that are served right now, in the same pipeline as all others.

mod body;
mod names;
mod rows;
mod upkeep;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use api::Object;
use api::registry::Resource;
use bytes::Bytes;
use custom::{Conversion, Definition, Version};
use serde_json::Value;

pub(crate) use body::decode;
pub(crate) use names::{condition, set as set_condition};

/// Keeps a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// One served version of one definition.
#[derive(Debug)]
pub(crate) struct Served {
    definition: Arc<Definition>,
    at: usize,
    pub(crate) row: &'static Resource,
    subresources: Vec<&'static Resource>,
    /// `apiVersion` of stored objects.
    storage: String,
    /// The schema gives defaults, which objects stored before it may lack.
    defaults: bool,
}

/// Whether the schema may give a default somewhere.
fn gives_defaults(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("default") || map.values().any(gives_defaults),
        Value::Array(items) => items.iter().any(gives_defaults),
        _ => false,
    }
}

impl Served {
    pub(crate) fn version(&self) -> &Version {
        &self.definition.versions[self.at]
    }

    /// Is this a version that objects, and so their managers' entries, may be in?
    pub(crate) fn serves(&self, api_version: &str) -> bool {
        self.definition.versions.iter().any(|v| {
            let name = format!("{}/{}", self.definition.group, v.name);
            v.served && name == api_version
        })
    }

    /// Whether a stored object can be shown in this version, and the other way round.
    pub(crate) fn converts(&self) -> bool {
        self.definition.conversion == Conversion::None || self.storage == self.row.api_version()
    }

    pub(crate) fn cannot_convert(&self) -> String {
        format!(
            "conversion webhooks are not supported: {} can be served as {} only",
            self.row.qualified(),
            self.storage
        )
    }

    /// Shows a stored object as one of this version, with the defaults of today.
    pub(crate) fn show(&self, object: &mut Value) {
        object["apiVersion"] = self.row.api_version().into();
        if self.defaults {
            custom::default(&self.version().node, object);
        }
    }

    /// The same as JSON; the stored bytes where nothing but the type can differ.
    pub(crate) fn json(&self, object: &Object) -> Bytes {
        if !self.defaults {
            return object.retyped(&self.row.api_version(), self.row.kind);
        }
        let mut tree = object.to_value();
        self.show(&mut tree);
        tree.to_string().into()
    }

    /// Gives an object that is about to be stored the stored version.
    pub(crate) fn store_as(&self, object: &mut Value) {
        object["apiVersion"] = self.storage.as_str().into();
    }

    fn find(&self, subresource: &str) -> Option<&'static Resource> {
        match subresource {
            "" => Some(self.row),
            sub => self.subresources.iter().copied().find(|r| r.subresource == sub),
        }
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &'static Resource> + '_ {
        std::iter::once(self.row).chain(self.subresources.iter().copied())
    }
}

/// Group, version, plural.
type Path = (String, String, String);

/// What is served, replaced as a whole when a definition changes.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    all: Vec<Arc<Served>>,
    by_path: HashMap<Path, usize>,
}

impl Installed {
    fn new(all: Vec<Arc<Served>>) -> Installed {
        let path = |r: &Resource| (r.group.to_owned(), r.version.to_owned(), r.name.to_owned());
        let by_path = all.iter().enumerate().map(|(at, s)| (path(s.row), at)).collect();
        Installed { all, by_path }
    }

    pub(crate) fn all(&self) -> &[Arc<Served>] {
        &self.all
    }
}

/// The present set, shared.
#[derive(Debug, Default)]
pub(crate) struct Customs {
    installed: RwLock<Arc<Installed>>,
}

impl Customs {
    pub(crate) fn installed(&self) -> Arc<Installed> {
        self.installed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, installed: Installed) {
        *self.installed.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(installed);
    }

    /// What a path names.
    pub(crate) fn find(
        &self,
        (group, version, name): (&str, &str, &str),
        subresource: &str,
    ) -> Option<(&'static Resource, Arc<Served>)> {
        let installed = self.installed();
        let path = (group.to_owned(), version.to_owned(), name.to_owned());
        let served = &installed.all[*installed.by_path.get(&path)?];
        Some((served.find(subresource)?, served.clone()))
    }
}
