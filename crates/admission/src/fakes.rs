//! A cluster of a few objects, for the tests of this crate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use api::registry::{Registry, Resource};
use api::selector::LabelSelector;
use api::{Object, Status};
use auth::{AuthorizationModes, Authorizer, Mode};
use serde_json::Value;

use crate::attributes::{BoxFuture, Cluster, Gvr};

struct Nothing;

impl auth::Objects for Nothing {
    fn of(&self, _: &str, _: &str) -> Option<Arc<dyn auth::Collection>> {
        Some(Arc::new(Nothing))
    }
}

impl auth::Collection for Nothing {
    fn get(&self, _: &str) -> Option<Arc<Object>> {
        None
    }

    fn list(&self, _: &str, _: &dyn Fn(&Object) -> bool) -> Vec<Arc<Object>> {
        Vec::new()
    }

    fn list_by(&self, _: (&str, &str), _: &str) -> Vec<Arc<Object>> {
        Vec::new()
    }

    fn last_change(&self) -> u64 {
        0
    }
}

/// Objects by plural and key.
pub(crate) struct Fake {
    pub(crate) objects: Mutex<HashMap<(String, String), Value>>,
    authorizer: Authorizer,
}

impl Fake {
    pub(crate) fn with(objects: &[(&str, Value)]) -> Fake {
        let keyed = objects.iter().map(|(plural, object)| {
            let meta = &object["metadata"];
            let name = meta["name"].as_str().expect("a name");
            let key =
                meta["namespace"].as_str().map_or(name.to_owned(), |ns| format!("{ns}/{name}"));
            (((*plural).to_owned(), key), object.clone())
        });
        let modes = AuthorizationModes(vec![Mode::Rbac]);
        Fake {
            objects: Mutex::new(keyed.collect()),
            authorizer: Authorizer::new(Arc::new(Nothing), modes),
        }
    }
}

fn stored(tree: &Value) -> Arc<Object> {
    Arc::new(Object::new(tree, 1, &[]))
}

impl Cluster for Fake {
    fn get(&self, resource: Gvr, key: &str) -> Option<Arc<Object>> {
        let objects = self.objects.lock().expect("unpoisoned");
        objects.get(&(resource.2.to_owned(), key.to_owned())).map(stored)
    }

    fn list(&self, resource: Gvr, prefix: &str) -> Vec<Arc<Object>> {
        let objects = self.objects.lock().expect("unpoisoned");
        let of = |((plural, key), _): &(&(String, String), &Value)| {
            *plural == resource.2 && key.starts_with(prefix)
        };
        objects.iter().filter(of).map(|(_, tree)| stored(tree)).collect()
    }

    fn row_of_kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
        Registry::built_in().by_kind(group, version, kind)
    }

    fn read<'a>(
        &'a self,
        row: &'static Resource,
        key: &'a str,
    ) -> BoxFuture<'a, Result<Option<Value>, Status>> {
        let objects = self.objects.lock().expect("unpoisoned");
        let found = objects.get(&(row.name.to_owned(), key.to_owned())).cloned();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn read_all<'a>(
        &'a self,
        row: &'static Resource,
        prefix: &'a str,
        labels: &'a LabelSelector,
    ) -> BoxFuture<'a, Result<Vec<Value>, Status>> {
        let all = self.list((row.group, row.version, row.name), prefix);
        let mut all: Vec<_> =
            all.iter().filter(|o| labels.matches(o.meta())).map(|o| o.to_value()).collect();
        all.sort_by_key(|object| object["metadata"]["name"].to_string());
        Box::pin(std::future::ready(Ok(all)))
    }

    fn exists(&self, row: &Resource, key: &str) -> bool {
        let objects = self.objects.lock().expect("unpoisoned");
        objects.contains_key(&(row.name.to_owned(), key.to_owned()))
    }

    fn create_namespace<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Status>> {
        let mut objects = self.objects.lock().expect("unpoisoned");
        let namespace = serde_json::json!({"metadata": {"name": name}});
        objects.insert(("namespaces".into(), name.to_owned()), namespace);
        Box::pin(std::future::ready(Ok(())))
    }

    fn report(&self, _: (&'static str, &str), _: &'static str, _: &str) {}

    fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    fn replace<'a>(
        &'a self,
        resource: Gvr,
        stored: &'a Object,
        tree: Value,
    ) -> BoxFuture<'a, Result<bool, Status>> {
        let key = format!("{}/{}", stored.meta().namespace, stored.meta().name);
        let mut objects = self.objects.lock().expect("unpoisoned");
        objects.insert((resource.2.to_owned(), key), tree);
        Box::pin(std::future::ready(Ok(true)))
    }
}
