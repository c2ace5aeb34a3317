//! Following the definitions: names are given out, versions go in and out of service, and the objects
//! of a definition that is deleted are deleted before it goes.

use std::sync::Arc;
use std::time::Duration;

use api::Object;
use client::{Client, Error, Request, Tasks};
use custom::{Definition, Names};
use http::Method;
use serde_json::{Value, json};
use store::{Collection, CollectionSpec};

use crate::conditions::{CLEANUP, condition, set_condition};
use crate::custom::names::{self, Taken};
use crate::custom::{Conversion, Installed, Served, Source, rows};
use crate::local::Local;
use crate::parts::Parts;
use crate::server::Server;
use crate::webhook::Network;

/// Pause before a failed step is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Where definitions are written.
const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

impl Server {
    /// Puts the present definitions into service, then follows their changes in `tasks`.
    pub(crate) fn follow_definitions(&self, client: Client, tasks: &Tasks) {
        install(&self.parts, &all(&self.parts));
        let upkeep = Upkeep { server: self.clone(), client };
        tasks.spawn("custom resource definitions", upkeep.run());
    }
}

fn definitions(server: &Parts) -> Arc<Collection> {
    server.resources.collection_of("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

fn all(server: &Parts) -> Vec<Value> {
    let collection = definitions(server);
    let page = collection.list("", None, 0, usize::MAX, &|_| true);
    page.map(|page| page.objects.iter().map(|o| o.to_value()).collect()).unwrap_or_default()
}

/// Serves those of the definitions that are established.
fn install(server: &Parts, definitions: &[Value]) {
    let mut served: Vec<Arc<Served>> = Vec::new();
    let dialer = server.nodes.dialer.clone();
    let (network, former) = (
        Network { store: server.resources.store.clone(), dialer },
        server.resources.customs.installed(),
    );
    for object in definitions.iter().filter(|d| names::is_true(d, "Established")) {
        let source = Source::of(object);
        let same = former.same(&source);
        if !same.is_empty() {
            served.extend(same);
            continue;
        }
        match Definition::parse(object) {
            Ok(mut definition) => {
                definition.names = Names::parse(&object["status"]["acceptedNames"]);
                let known = former.conversion(&definition.group, &definition.names.plural);
                let conversion = Conversion::of(&definition, known, &network);
                served.extend(rows::served(definition, &conversion, source));
            }
            Err(fault) => {
                let name = object["metadata"]["name"].as_str().unwrap_or("");
                tracing::error!(name, fault, "a definition cannot be served");
            }
        }
    }
    for one in &served {
        let spec = CollectionSpec { prefix: one.row.prefix.clone(), selectable: one.stored_fields };
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
fn settled_names(object: &Value, present: &[Value]) -> Value {
    let mut taken = Taken::default();
    for other in present {
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
}

impl Upkeep {
    async fn run(self) {
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
    async fn pass(&self) -> bool {
        let present = all(&self.server.parts);
        let with_status = |object: &Value| {
            let mut object = object.clone();
            if !is_deleted(&object) {
                object["status"] = settled_names(&object, &present);
            }
            object
        };
        let settled: Vec<Value> = present.iter().map(with_status).collect();
        install(&self.server.parts, &settled);
        let mut complete = true;
        for (object, settled) in present.iter().zip(settled) {
            let done = match is_deleted(object) {
                true => self.clean_up(object).await,
                false => self.write_status(object, settled["status"].clone()).await,
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a definition's step failed");
                complete = false;
            }
        }
        complete
    }

    async fn write_status(&self, object: &Value, status: Value) -> Result<(), Error> {
        if object["status"] == status {
            return Ok(());
        }
        let mut new = object.clone();
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
    async fn clean_up(&self, object: &Value) -> Result<(), Error> {
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
            self.write_status(object, status).await?;
            return Err(Error::Api(Box::new(api::Status::unavailable(format!(
                "{left} objects left"
            )))));
        }
        let mut new = object.clone();
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
