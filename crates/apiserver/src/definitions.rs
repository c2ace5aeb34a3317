//! Following the definitions: names are given out, versions go in and out of service, and the objects
//! of a definition that is deleted are deleted before it goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::Object;
use client::{Client, Error, Request, Tasks};
use custom::{Definition, Names};
use http::Method;
use serde_json::{Value, json};
use store::{Collection, CollectionSpec};

use crate::local::Local;
use crate::parts::Parts;
use crate::server::Server;
use crate::service_network::ServiceNetwork;
use extensions::names::{self, Taken};
use extensions::{Conversion, Installed, SchemaTraits, Schemas, Served, Source, rows};
use strategy::conditions::{CLEANUP, condition, set_condition};
use strategy::offload::offload_large;

/// Pause before a failed step is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Where definitions are written.
const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

impl Server {
    /// Puts the present definitions into service, then follows their changes in `tasks`.
    pub(crate) fn follow_definitions(&self, client: Client, tasks: &Tasks) {
        let mut heads = Heads::default();
        install(&self.parts, heads.renew(&self.parts).iter().map(|head| (head, &head.slim)));
        let upkeep = Upkeep { server: self.clone(), client, heads };
        tasks.spawn("custom resource definitions", upkeep.run());
        let parts = self.parts.clone();
        tasks.spawn("schema expiry", async move { parts.resources.customs.expire().await });
    }
}

fn definitions(server: &Parts) -> Arc<Collection> {
    server.resources.collection_of("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

/// A definition apart from its schemas, which are large.
struct Head {
    object: Arc<Object>,
    /// The definition without its schemas.
    slim: Value,
    traits: SchemaTraits,
}

impl Head {
    fn of(object: &Arc<Object>) -> Head {
        let mut slim = offload_large(object.json().len(), || object.to_value());
        let traits = SchemaTraits::of(&slim);
        for version in validation::items_mut(&mut slim["spec"], "versions") {
            version.as_object_mut().map(|version| version.remove("schema"));
        }
        if let Some(meta) = slim["metadata"].as_object_mut() {
            meta.remove("managedFields");
        }
        Head { object: object.clone(), slim, traits }
    }
}

/// The heads of the definitions, each read once a change.
#[derive(Default)]
struct Heads(Vec<Arc<Head>>);

impl Heads {
    /// The heads of the present definitions.
    fn renew(&mut self, server: &Parts) -> &[Arc<Head>] {
        let page = definitions(server).list("", None, 0, usize::MAX, &|_| true);
        let present = page.map(|page| page.objects).unwrap_or_default();
        let mut known: HashMap<(Box<str>, u64), Arc<Head>> =
            self.0.drain(..).map(|head| (state_of(&head.object), head)).collect();
        let read = |object: &Arc<Object>| {
            known.remove(&state_of(object)).unwrap_or_else(|| Arc::new(Head::of(object)))
        };
        self.0 = present.iter().map(read).collect();
        &self.0
    }
}

/// A state of an object: its uid and revision.
fn state_of(object: &Object) -> (Box<str>, u64) {
    (object.meta().uid.clone(), object.revision())
}

/// Serves those of the definitions that are established, in the states given.
fn install<'d>(server: &Parts, definitions: impl Iterator<Item = (&'d Arc<Head>, &'d Value)>) {
    let mut served: Vec<Arc<Served>> = Vec::new();
    let dialer = server.nodes.dialer.clone();
    let store = server.resources.store.clone();
    let services: Arc<dyn webhook::Services> = Arc::new(ServiceNetwork { store, dialer });
    let former = server.resources.customs.installed();
    for (head, slim) in definitions.filter(|(_, slim)| names::is_true(slim, "Established")) {
        let source = Source::of(slim);
        let same = former.same(&source);
        if !same.is_empty() {
            same.iter().for_each(|served| served.schemas.renew(&head.object));
            served.extend(same);
            continue;
        }
        let mut definition = Definition::parse(slim);
        definition.names = Names::parse(&slim["status"]["acceptedNames"]);
        let known = former.conversion(&definition.group, &definition.names.plural);
        let conversion = Conversion::of(&definition, known, &services);
        let versions = definition.versions.iter().map(|version| version.name.clone()).collect();
        let readied = server.resources.customs.readied.clone();
        let schemas = Schemas::new(head.object.clone(), versions, readied);
        served.extend(rows::served(definition, &conversion, source, (schemas, head.traits)));
    }
    for one in served.iter().filter(|one| !former.all().iter().any(|old| Arc::ptr_eq(old, one))) {
        let spec = CollectionSpec {
            prefix: one.row.prefix.clone(),
            selectable: one.stored_fields,
            indexed: None,
        };
        if let Err(error) = server.resources.store.register(spec) {
            tracing::error!(resource = one.row.name, %error, "stored objects cannot be read");
        }
    }
    server.resources.customs.replace(Installed::new(served));
}

fn is_deleted(definition: &Value) -> bool {
    definition["metadata"]["deletionTimestamp"].is_string()
}

/// The status that says which names a definition has, and whether it is established.
fn settled_names(object: &Value, present: &[Arc<Head>]) -> Value {
    let mut taken = Taken::default();
    for other in present.iter().map(|head| &head.slim) {
        let apart = other["metadata"]["name"] != object["metadata"]["name"];
        if apart && other["spec"]["group"] == object["spec"]["group"] {
            taken.add(&Names::parse(&other["status"]["acceptedNames"]));
        }
    }
    names::settle(object, &taken, &now())
}

struct Upkeep {
    server: Server,
    client: Client,
    heads: Heads,
}

impl Upkeep {
    async fn run(mut self) {
        let collection = definitions(&self.server.parts);
        loop {
            let Ok(mut watcher) = collection.watch(collection.last_change()) else { continue };
            let mut settled = self.pass().await;
            loop {
                tokio::select! {
                    events = watcher.next() => if events.is_err() { break },
                    () = tokio::time::sleep(RETRY), if !settled => {}
                }
                settled = self.pass().await;
            }
        }
    }

    /// Brings every definition to where it should be; false when something has to be tried again.
    ///
    /// A definition is served before its status says so: clients go on as soon as they read that.
    async fn pass(&mut self) -> bool {
        let present = self.heads.renew(&self.server.parts).to_vec();
        let with_status = |head: &Arc<Head>| {
            let mut slim = head.slim.clone();
            if !is_deleted(&slim) {
                slim["status"] = settled_names(&slim, &present);
            }
            slim
        };
        let settled: Vec<Value> = present.iter().map(with_status).collect();
        install(&self.server.parts, present.iter().zip(&settled));
        let mut complete = true;
        for (head, settled) in present.iter().zip(settled) {
            let done = match is_deleted(&head.slim) {
                true => self.clean_up(head).await,
                false => self.write_status(head, settled["status"].clone()).await,
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a definition's step failed");
                complete = false;
            }
        }
        complete
    }

    async fn write_status(&self, head: &Head, status: Value) -> Result<(), Error> {
        if head.slim["status"] == status {
            return Ok(());
        }
        let mut new = head.object.to_value();
        new["status"] = status;
        self.write("/status", &new).await
    }

    async fn write(&self, subresource: &str, object: &Value) -> Result<(), Error> {
        let name = object["metadata"]["name"].as_str().unwrap_or("");
        let target = format!("{PATH}/{name}{subresource}");
        let body = Local::body(object);
        let request = Request { method: Method::PUT, target, content_type: None, body };
        match self.client.call(request).await {
            // Changed in the meantime: the change wakes us up again.
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Deletes the objects, and lets the definition go when none is left.
    async fn clean_up(&self, head: &Head) -> Result<(), Error> {
        let object = &head.slim;
        let finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.iter().any(|f| f == CLEANUP) {
            return Ok(());
        }
        let left = self.delete_objects(object).await?;
        if left > 0 {
            let detail = "CustomResource deletion is in progress";
            let condition = condition("Terminating", true, "InstanceDeletionInProgress", detail);
            let mut status = object["status"].clone();
            set_condition(&mut status, condition, &now());
            self.write_status(head, status).await?;
            return Err(Error::Api(Box::new(api::Status::unavailable(format!(
                "{left} objects left"
            )))));
        }
        let mut new = head.object.to_value();
        let kept: Vec<Value> = finalizers.into_iter().filter(|f| f != CLEANUP).collect();
        new["metadata"]["finalizers"] = json!(kept);
        self.write("", &new).await
    }

    /// How many are still there after all were asked to go.
    async fn delete_objects(&self, object: &Value) -> Result<usize, Error> {
        let inner = &self.server.parts;
        let Some(collection) = inner.resources.store.collection(&prefix(object)) else {
            return Ok(0);
        };
        let installed = inner.resources.customs.installed();
        let group = object["spec"]["group"].as_str().unwrap_or("");
        let plural = object["spec"]["names"]["plural"].as_str().unwrap_or("");
        let mut rows =
            installed.all().iter().filter(|s| s.row.group == group && s.row.name == plural);
        // In the version they are stored in they go without a webhook.
        let row = rows.clone().find(|s| s.row.api_version() == s.storage).or_else(|| rows.next());
        let Some(row) = row.map(|served| served.row) else { return Ok(0) };
        let page = collection.list("", None, 0, usize::MAX, &|_| true);
        for found in page.map(|page| page.objects).unwrap_or_default() {
            match self.delete_object(row, &found).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(collection.len())
    }

    async fn delete_object(
        &self,
        row: &api::registry::Resource,
        object: &Object,
    ) -> Result<(), Error> {
        let meta = object.meta();
        let namespace = match row.namespaced {
            true => format!("/namespaces/{}", meta.namespace),
            false => String::new(),
        };
        let target =
            format!("/apis/{}/{}{namespace}/{}/{}", row.group, row.version, row.name, meta.name);
        let body = Local::body(&json!({}));
        let request = Request { method: Method::DELETE, target, content_type: None, body };
        self.client.call(request).await.map(drop)
    }
}

fn prefix(definition: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let spec = &definition["spec"];
    format!("/registry/{}/{}/", text(&spec["group"]), text(&spec["names"]["plural"]))
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
