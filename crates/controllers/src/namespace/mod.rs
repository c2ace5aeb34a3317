//! Namespace: empties an ending namespace of everything, then lets it go.
//!
//! Watches Namespaces, and Pods' ends (nothing else goes before the last pod has). Other objects
//! are found by listing each namespaced resource that the server has, only while one is ending.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use client::{Action, Change, Client, Error, Informer, Queue, Request, run_workers};
use http::Method;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde_json::{Value, json};

use self::plan::Left;
use crate::Context;
use crate::discovery::{ApiResource, discover};
use crate::meta::{name, namespace, now};

/// Namespaces emptied at once (upstream's --concurrent-namespace-syncs).
const WORKERS: usize = 10;
/// When to look first whether finalizers have let go of what is left; nothing tells us. Doubles up to
/// [`RECHECK_MAX`] while nothing goes (upstream: eight seconds).
const RECHECK: Duration = Duration::from_secs(1);
const RECHECK_MAX: Duration = Duration::from_secs(16);

/// How far an ending namespace is.
#[derive(Debug, Clone)]
struct Progress {
    /// Resources with objects that are left: only they are listed again.
    rest: Vec<ApiResource>,
    objects: usize,
    wait: Duration,
}

/// Whether the namespace lives.
pub(crate) fn active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}

pub(crate) fn start(context: &Context) {
    let this = Namespaces {
        client: context.client.clone(),
        namespaces: context.informers.of(),
        pods: context.informers.of(),
        queue: Queue::new(),
        progress: Arc::default(),
    };
    let queue = this.queue.clone();
    this.namespaces.on_change(move |change| {
        let meta = &change.object().metadata;
        if meta.deletion_timestamp.is_some() {
            queue.add(name(meta).to_owned());
        }
    });
    let ending = this.clone();
    this.pods.on_change(move |change| {
        let space = namespace(&change.object().metadata);
        let ends = || ending.namespaces.get("", space).is_some_and(|n| !active(&n));
        if matches!(change, Change::Deleted(_)) && ends() {
            ending.queue.add(space.to_owned());
        }
    });
    context.tasks.required("namespace controller", this.run());
}

#[derive(Clone)]
struct Namespaces {
    client: Client,
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
    queue: Queue<String>,
    /// By namespace.
    progress: Arc<Mutex<HashMap<String, Progress>>>,
}

impl Namespaces {
    fn progress(&self) -> MutexGuard<'_, HashMap<String, Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self) {
        self.namespaces.synced().await;
        let queue = self.queue.clone();
        let work = move |name: String| {
            let this = self.clone();
            async move { this.sync(&name).await }
        };
        run_workers("namespace", queue, WORKERS, work).await;
    }

    async fn sync(&self, name: &str) -> Result<Action, Error> {
        let Some(namespace) = self.namespaces.get("", name) else {
            self.progress().remove(name);
            return Ok(Action::Done);
        };
        let ending = namespace.metadata.deletion_timestamp.is_some();
        let Some(done) = plan::finalized(&namespace).filter(|_| ending) else {
            return Ok(Action::Done);
        };
        let left = self.empty(name).await?;
        if left.is_empty() {
            let body = Bytes::from(serde_json::to_vec(&done).expect("a namespace always encodes"));
            let target = format!("/api/v1/namespaces/{name}/finalize");
            let request = Request { method: Method::PUT, target, content_type: None, body };
            return match self.client.call(request).await {
                Err(error) if error.is_not_found() => Ok(Action::Done),
                other => other.map(|_| Action::Done),
            };
        }
        if let Some(new) = plan::with_conditions(&namespace, &left, &now()) {
            match self.client.update_status(&new).await {
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                other => drop(other?),
            }
        }
        let wait = self.progress().get(name).map_or(RECHECK_MAX, |progress| progress.wait);
        Ok(Action::After(wait))
    }

    /// Deletes all content: pods first, the rest when they are gone, since pods may need it.
    async fn empty(&self, namespace: &str) -> Result<Left, Error> {
        let known = self.progress().get(namespace).cloned();
        if let Some(known) = &known {
            let mut left = Left::default();
            let rest = self.empty_all(&known.rest, namespace, &mut left).await;
            if !left.is_empty() {
                self.note(namespace, Some(known), rest, &left);
                return Ok(left);
            }
        }
        let found = discover(&self.client).await?;
        let listed = |r: &ApiResource| r.namespaced && r.can("list") && r.can("delete");
        let all = found.resources.into_iter().filter(listed);
        let (pods, others): (Vec<_>, Vec<_>) =
            all.partition(|r| r.group.is_empty() && r.name == "pods");
        let mut left = Left::default();
        let mut rest = self.empty_all(&pods, namespace, &mut left).await;
        if left.is_empty() {
            rest = self.empty_all(&others, namespace, &mut left).await;
            left.undiscovered = found.failed;
        }
        self.note(namespace, None, rest, &left);
        Ok(left)
    }

    /// Remembers what is left, and how long nothing went.
    fn note(
        &self,
        namespace: &str,
        before: Option<&Progress>,
        rest: Vec<ApiResource>,
        left: &Left,
    ) {
        let objects = left.objects.values().sum();
        let wait = match before {
            Some(before) if objects >= before.objects => (before.wait * 2).min(RECHECK_MAX),
            _ => RECHECK,
        };
        self.progress().insert(namespace.to_owned(), Progress { rest, objects, wait });
    }

    /// The resources that have objects left, or may have.
    async fn empty_all(
        &self,
        resources: &[ApiResource],
        namespace: &str,
        left: &mut Left,
    ) -> Vec<ApiResource> {
        let mut rest = Vec::new();
        for resource in resources {
            let before = left.objects.len();
            match self.try_empty(resource, namespace, left).await {
                Ok(()) if left.objects.len() == before => {}
                Ok(()) => rest.push(resource.clone()),
                Err(error) => {
                    left.errors.push(error.to_string());
                    rest.push(resource.clone());
                }
            }
        }
        rest
    }

    async fn try_empty(
        &self,
        resource: &ApiResource,
        namespace: &str,
        left: &mut Left,
    ) -> Result<(), Error> {
        let mut items = self.list(resource, namespace).await?;
        let fresh = items.iter().any(|i| i["metadata"]["deletionTimestamp"].is_null());
        if fresh {
            self.delete_all(resource, namespace, &items).await?;
            items = self.list(resource, namespace).await?;
        }
        if !items.is_empty() {
            let what = format!("{}.{}", resource.name, resource.group);
            left.objects.insert(what, items.len());
        }
        for finalizer in items.iter().flat_map(|i| i["metadata"]["finalizers"].as_array()) {
            for text in finalizer.iter().filter_map(Value::as_str) {
                *left.finalizers.entry(text.to_owned()).or_insert(0) += 1;
            }
        }
        Ok(())
    }

    async fn list(&self, resource: &ApiResource, namespace: &str) -> Result<Vec<Value>, Error> {
        let target = resource.path(namespace, "");
        let sent = self.client.send(Method::GET, target, None, Bytes::new()).await;
        let mut list: Value = match sent {
            // The resource went away meanwhile, and its objects with it.
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            other => other?,
        };
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    async fn delete_all(
        &self,
        resource: &ApiResource,
        namespace: &str,
        items: &[Value],
    ) -> Result<(), Error> {
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
            "propagationPolicy": "Background"});
        let body = Bytes::from(options.to_string());
        let names: Vec<&str> = match resource.can("deletecollection") {
            true => vec![""],
            false => items.iter().filter_map(|i| i["metadata"]["name"].as_str()).collect(),
        };
        for name in names {
            let target = resource.path(namespace, name);
            let body = body.clone();
            let request = Request { method: Method::DELETE, target, content_type: None, body };
            match self.client.call(request).await {
                Err(error) if error.is_not_found() => {}
                other => drop(other?),
            }
        }
        Ok(())
    }
}
