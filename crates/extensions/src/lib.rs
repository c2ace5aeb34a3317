//! Custom resources: the definitions that are served right now, in the same pipeline as all others.

mod body;
mod convert;
mod elsewhere;
pub mod names;
mod resource_strategy;
pub mod rows;
mod schemas;
mod seen;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use api::Object;
use api::registry::Resource;
use bytes::Bytes;
use custom::{Compiled, Definition, Version};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use convert::Conversion;
use schemas::Depth;

pub use schemas::Schemas;
use strategy::offload;

/// One served version of one definition.
#[derive(Debug)]
pub struct Served {
    definition: Arc<Definition>,
    pub schemas: Arc<Schemas>,
    at: usize,
    pub row: &'static Resource,
    subresources: Vec<&'static Resource>,
    /// `apiVersion` of stored objects.
    pub storage: String,
    /// Index fields of stored objects: those of the version they are stored in.
    pub stored_fields: &'static [&'static str],
    pub conversion: Conversion,
    /// Some version's schema gives defaults, which objects stored before it may lack.
    defaults: bool,
    /// All versions have the same schema: objects differ by their type alone.
    alike: bool,
    /// Objects are selected, and indexed, in the form of this version rather than as stored.
    pub rebuilt: bool,
    seen: seen::Seen,
    source: Arc<Source>,
    /// Cancelled when the definition goes or is served otherwise: its watches end.
    pub retired: CancellationToken,
}

/// What of a definition decides how it is served.
#[derive(Debug, PartialEq)]
pub struct Source {
    uid: Value,
    /// Counts changes of the spec.
    generation: Value,
    names: Value,
}

impl Source {
    pub fn of(definition: &Value) -> Source {
        Source {
            uid: definition["metadata"]["uid"].clone(),
            generation: definition["metadata"]["generation"].clone(),
            names: definition["status"]["acceptedNames"].clone(),
        }
    }
}

/// What serving needs to know of all of a definition's schemas.
#[derive(Debug, Clone, Copy)]
pub struct SchemaTraits {
    /// Some version's schema gives defaults.
    defaults: bool,
    /// All versions have the same schema.
    alike: bool,
}

impl SchemaTraits {
    pub fn of(definition: &Value) -> SchemaTraits {
        let versions = definition["spec"]["versions"].as_array();
        let schemas = || {
            let all = versions.into_iter().flatten();
            all.map(|version| &version["schema"]["openAPIV3Schema"])
        };
        let first = schemas().next();
        SchemaTraits {
            defaults: schemas().any(gives_defaults),
            alike: schemas().all(|schema| Some(schema) == first),
        }
    }
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
    pub fn version(&self) -> &Version {
        &self.definition.versions[self.at]
    }

    /// The schema of this version as it is written.
    pub fn schema_source(&self) -> Value {
        self.schemas.source(self.at)
    }

    /// What tells the schemas of two definitions, or of two states of one, apart.
    pub fn schema_tag(&self) -> String {
        format!("{} {}", self.source.uid, self.source.generation)
    }

    /// This version's schema with its rules.
    fn compiled(&self) -> Arc<Compiled> {
        self.schemas.get(self.at, Depth::Rules)
    }

    /// A stored object's JSON where that needs no webhook; the stored bytes where nothing but the
    /// type can differ.
    fn stored_json(&self, object: &Object) -> Bytes {
        let own = || {
            let head = format!(r#"{{"apiVersion":"{}","#, self.row.api_version());
            object.json().starts_with(head.as_bytes())
        };
        if !self.defaults && (self.alike || own()) {
            return object.retyped(&self.row.api_version(), self.row.kind);
        }
        let mut tree = object.to_value();
        self.retype(&mut tree);
        tree.to_string().into()
    }

    fn find(&self, subresource: &str) -> Option<&'static Resource> {
        match subresource {
            "" => Some(self.row),
            sub => self.subresources.iter().copied().find(|r| r.subresource == sub),
        }
    }

    pub fn rows(&self) -> impl Iterator<Item = &'static Resource> + '_ {
        std::iter::once(self.row).chain(self.subresources.iter().copied())
    }
}

/// Group, version, plural.
type Path = (String, String, String);

/// What is served, replaced as a whole when a definition changes.
#[derive(Debug, Default)]
pub struct Installed {
    all: Vec<Arc<Served>>,
    by_path: HashMap<Path, usize>,
}

impl Installed {
    pub fn new(all: Vec<Arc<Served>>) -> Installed {
        let path = |r: &Resource| (r.group.to_owned(), r.version.to_owned(), r.name.to_owned());
        let by_path = all.iter().enumerate().map(|(at, s)| (path(s.row), at)).collect();
        Installed { all, by_path }
    }

    pub fn all(&self) -> &[Arc<Served>] {
        &self.all
    }

    /// What is served of a definition already, and goes on being served as it is.
    pub fn same(&self, source: &Source) -> Vec<Arc<Served>> {
        self.all.iter().filter(|served| *served.source == *source).cloned().collect()
    }

    /// How the definition of a group's resource converts.
    pub fn conversion(&self, group: &str, plural: &str) -> Option<&Conversion> {
        let same = |s: &&Arc<Served>| s.row.group == group && s.row.name == plural;
        self.all.iter().find(same).map(|served| &served.conversion)
    }
}

/// The present set, shared.
#[derive(Debug, Default)]
pub struct Customs {
    installed: RwLock<Arc<Installed>>,
    /// Told when a schema was made ready.
    pub readied: Arc<Notify>,
}

impl Customs {
    /// Drops schemas that were not used lately, for ever.
    pub async fn expire(&self) {
        loop {
            self.readied.notified().await;
            while let Some(next) = self.drop_unused() {
                tokio::time::sleep_until(next).await;
            }
            offload::give_back();
        }
    }

    fn drop_unused(&self) -> Option<tokio::time::Instant> {
        self.installed().all().iter().filter_map(|served| served.schemas.expire()).min()
    }

    pub fn installed(&self) -> Arc<Installed> {
        self.installed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn replace(&self, installed: Installed) {
        let new = Arc::new(installed);
        let mut present = self.installed.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *present, new.clone());
        drop(present);
        for gone in old.all.iter().filter(|o| !new.all.iter().any(|n| Arc::ptr_eq(n, o))) {
            gone.retired.cancel();
        }
    }

    /// What a path names.
    pub fn find(
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use strategy::ResourceStrategy;
    use strategy::decode::Input;

    fn customs(schema: &Value) -> Customs {
        let definition = json!({
            "metadata": {"name": "gizmos.e.com", "uid": "u", "generation": 1},
            "spec": {"group": "e.com", "scope": "Namespaced", "names": {"plural": "gizmos", "kind": "Gizmo"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
        });
        let customs = Customs::default();
        let object = Arc::new(Object::new(&definition, 1, &[]));
        let schemas = Schemas::new(object, vec!["v1".into()], customs.readied.clone());
        let of = (schemas, SchemaTraits::of(&definition));
        let parsed = Definition::parse(&definition);
        let served = rows::served(parsed, &Conversion::None, Source::of(&definition), of);
        customs.replace(Installed::new(served));
        customs
    }

    fn gizmo() -> Value {
        json!({"apiVersion": "e.com/v1", "kind": "Gizmo", "metadata": {"name": "g"}})
    }

    #[tokio::test(start_paused = true)]
    async fn a_schema_is_dropped_whenever_nobody_uses_it_any_more() {
        let customs = customs(&json!({"type": "object"}));
        let served = customs.installed().all()[0].clone();
        let idle = Duration::from_secs(600);
        // Twice: also long after the definition was installed.
        for _ in 0..2 {
            served.decode(served.row, Input::Tree(gizmo())).expect("an object");
            assert!(customs.drop_unused().is_some(), "ready");
            assert!(tokio::time::timeout(idle, customs.expire()).await.is_err());
            assert!(customs.drop_unused().is_none(), "dropped");
        }
    }

    #[tokio::test]
    async fn objects_of_a_schema_that_cannot_be_used_are_refused() {
        let customs = customs(&json!({"type": "object", "properties": {"a": {"type": "strange"}}}));
        let served = customs.installed().all()[0].clone();
        let refused = served.decode(served.row, Input::Tree(gizmo())).expect_err("refused");
        assert_eq!(refused.code, 500);
        assert!(refused.message.contains("unknown type \"strange\""), "{}", refused.message);
        let faults = served.validate(served.row, &gizmo(), None);
        assert!(faults.iter().any(|f| f.message.contains("strange")), "{faults:?}");
        let stored = Object::new(&gizmo(), 1, &[]);
        assert_eq!(served.read(&stored).await.expect("readable")["metadata"]["name"], "g");
    }
}
