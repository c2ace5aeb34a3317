//! A small API in memory: enough of create, read, update, patch, delete and follow for the
//! controllers; no validation, no defaults. Deletion is immediate unless a finalizer (or a
//! namespace's) holds the object.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::Object;
use bytes::Bytes;
use client::{BoxFuture, Error, Follow, FollowEvent, Follower, Request, Response, Transport};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Group, version, plural, kind, namespaced.
const RESOURCES: &[(&str, &str, &str, &str, bool)] = &[
    ("", "v1", "pods", "Pod", true),
    ("", "v1", "configmaps", "ConfigMap", true),
    ("", "v1", "serviceaccounts", "ServiceAccount", true),
    ("", "v1", "namespaces", "Namespace", false),
    ("", "v1", "nodes", "Node", false),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true),
    ("", "v1", "replicationcontrollers", "ReplicationController", true),
    ("batch", "v1", "jobs", "Job", true),
    ("batch", "v1", "cronjobs", "CronJob", true),
    ("apps", "v1", "daemonsets", "DaemonSet", true),
    ("apps", "v1", "statefulsets", "StatefulSet", true),
    ("apps", "v1", "controllerrevisions", "ControllerRevision", true),
    ("apps", "v1", "deployments", "Deployment", true),
    ("apps", "v1", "replicasets", "ReplicaSet", true),
];

#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) state: Mutex<State>,
    /// A resource whose first list never comes.
    pub(crate) silent: Option<&'static str>,
    /// A group whose resources cannot be asked for.
    pub(crate) lost_group: Option<&'static str>,
}

#[derive(Default)]
pub(crate) struct State {
    revision: u64,
    /// By resource, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    followers: Vec<(String, UnboundedSender<FollowEvent>)>,
}

/// A request's path, taken apart.
struct Place {
    group: String,
    version: String,
    resource: String,
    namespace: String,
    name: String,
    subresource: String,
}

fn place(target: &str) -> Place {
    let path = target.split('?').next().unwrap_or("");
    let (group, skip) = match path.strip_prefix("/apis/") {
        Some(rest) => (rest.split('/').next().unwrap_or(""), 4),
        None => ("", 3),
    };
    let version = path.split('/').nth(skip - 1).unwrap_or("").to_owned();
    let mut parts: Vec<&str> = path.split('/').skip(skip).collect();
    let mut namespace = String::new();
    if parts[0] == "namespaces" && parts.len() > 2 && !["finalize", "status"].contains(&parts[2]) {
        namespace = parts[1].to_owned();
        parts.drain(..2);
    }
    let part = |i: usize| parts.get(i).map_or(String::new(), |p| (*p).to_owned());
    let group = group.to_owned();
    let (resource, name, subresource) = (part(0), part(1), part(2));
    Place { group, version, resource, namespace, name, subresource }
}

fn failure(target: &str, code: u16, reason: &str) -> Error {
    api::Status::failure(code, reason, format!("{reason} {target}")).into()
}

fn discovery(target: &str) -> Option<Value> {
    let list = |group: &str| {
        let rows = RESOURCES.iter().filter(|r| r.0 == group);
        let rows = rows.map(|(_, _, name, kind, namespaced)| {
            json!({"name": name, "kind": kind, "namespaced": namespaced,
                "verbs": ["delete", "list", "watch"]})
        });
        json!({"resources": rows.collect::<Vec<_>>()})
    };
    match target {
        "/apis" => {
            let group = |name: &str| {
                json!({"name": name, "versions": [{"version": "v1"}],
                    "preferredVersion": {"version": "v1"}})
            };
            Some(json!({"groups": [group("apps"), group("batch")]}))
        }
        "/api/v1" => Some(list("")),
        "/apis/apps/v1" => Some(list("apps")),
        "/apis/batch/v1" => Some(list("batch")),
        _ => None,
    }
}

/// Whether the values differ in more than the revision.
fn differ(old: &Value, new: &Value) -> bool {
    let bare = |value: &Value| {
        let mut value = value.clone();
        value["metadata"]["resourceVersion"] = Value::Null;
        value
    };
    bare(old) != bare(new)
}

impl State {
    /// An update; one that changes nothing makes no revision, one of the spec makes a generation.
    fn change(&mut self, place: &Place, old: &Value, mut new: Value) -> Value {
        if !differ(old, &new) {
            return old.clone();
        }
        if old["spec"] != new["spec"] {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
            new["metadata"]["generation"] = (generation + 1).into();
        }
        self.write(place, new)
    }

    fn write(&mut self, place: &Place, mut value: Value) -> Value {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let name = value["metadata"]["name"].as_str().unwrap_or("").to_owned();
        let key = (place.resource.clone(), place.namespace.clone(), name);
        let object = Arc::new(Object::new(&value, self.revision, &[]));
        let no_finalizers = |at: &Value| at["finalizers"].as_array().is_none_or(Vec::is_empty);
        let free = no_finalizers(&value["metadata"])
            && (place.resource != "namespaces" || no_finalizers(&value["spec"]));
        let ends = free && value["metadata"]["deletionTimestamp"].is_string();
        let event = match ends {
            true => {
                self.objects.remove(&key);
                FollowEvent::Delete(object)
            }
            false => {
                self.objects.insert(key, value.clone());
                FollowEvent::Put(object)
            }
        };
        self.followers
            .retain(|(resource, to)| *resource != place.resource || to.send(event.clone()).is_ok());
        value
    }

    fn handle(&mut self, request: &Request) -> Result<Value, Error> {
        let target = &request.target;
        if let Some(answer) = discovery(target) {
            return Ok(answer);
        }
        let place = place(target);
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let key = (place.resource.clone(), place.namespace.clone(), place.name.clone());
        let known = || failure(target, 404, "NotFound");
        match request.method {
            Method::POST if place.subresource == "binding" => {
                let mut pod = self.objects.get(&key).cloned().ok_or_else(known)?;
                pod["spec"]["nodeName"] = body["target"]["name"].clone();
                self.write(&place, pod);
                Ok(json!({"kind": "Status", "status": "Success"}))
            }
            Method::POST => self.create(&place, body, target),
            Method::GET if place.name.is_empty() => {
                let here = |(r, n, _): &(String, String, String)| {
                    *r == place.resource && (place.namespace.is_empty() || *n == place.namespace)
                };
                let all = self.objects.iter().filter(|(k, _)| here(k)).map(|(_, v)| v.clone());
                Ok(json!({"metadata": {}, "items": all.collect::<Vec<_>>()}))
            }
            Method::GET => self.objects.get(&key).cloned().ok_or_else(known),
            Method::PUT => {
                let old = self.objects.get(&key).cloned().ok_or_else(known)?;
                let version = |v: &Value| v["metadata"]["resourceVersion"].clone();
                if version(&old) != version(&body) {
                    return Err(failure(target, 409, "Conflict"));
                }
                let mut new = match place.subresource.as_str() {
                    "status" => old.clone(),
                    _ => body.clone(),
                };
                match place.subresource.as_str() {
                    "status" => new["status"] = body["status"].clone(),
                    _ => new["status"] = old["status"].clone(),
                }
                Ok(self.change(&place, &old, new))
            }
            Method::PATCH => {
                let old = self.objects.get(&key).cloned().ok_or_else(known)?;
                let mut new = old.clone();
                patch(&place, request.content_type, &mut new, &body);
                Ok(self.change(&place, &old, new))
            }
            _ => {
                let mut old = self.objects.get(&key).cloned().ok_or_else(known)?;
                old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                if body["propagationPolicy"] == "Foreground" {
                    old["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
                }
                Ok(self.write(&place, old))
            }
        }
    }

    fn create(&mut self, place: &Place, mut body: Value, target: &str) -> Result<Value, Error> {
        let meta = &mut body["metadata"];
        let unique = self.revision + 1;
        if let (Value::Null, Some(prefix)) = (&meta["name"], meta["generateName"].as_str()) {
            meta["name"] = format!("{prefix}{unique}").into();
        }
        meta["uid"] = format!("uid-{unique}").into();
        meta["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        meta["generation"] = 1.into();
        if place.resource == "pods" && body["status"]["phase"].is_null() {
            body["status"]["phase"] = "Pending".into();
        }
        let meta = &body["metadata"];
        let name = meta["name"].as_str().unwrap_or("").to_owned();
        if self.objects.contains_key(&(place.resource.clone(), place.namespace.clone(), name)) {
            return Err(failure(target, 409, "AlreadyExists"));
        }
        Ok(self.write(place, body))
    }
}

fn patch(place: &Place, media: Option<&str>, target: &mut Value, patch: &Value) {
    if media != Some("application/strategic-merge-patch+json") {
        return merge(target, patch);
    }
    let schema = api::schema::Schema::built_in();
    let row = api::registry::Registry::built_in();
    let row = row.find(&place.group, &place.version, &place.resource, "").unwrap();
    let shape = row.ty.map_or(api::schema::Shape::Any, api::schema::Shape::Struct);
    api::patch::apply_strategic_patch(schema, &shape, target, patch).unwrap();
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match value {
                    Value::Null => drop(into.remove(key)),
                    value => merge(into.entry(key.clone()).or_insert(json!({})), value),
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

impl Fake {
    /// Grows with every write that changes something.
    pub(crate) fn revision(&self) -> u64 {
        self.state.lock().unwrap().revision
    }
}

impl Transport for Fake {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response, Error>> {
        let lost = self.lost_group.map(|group| format!("/apis/{group}/v1"));
        let answer = match lost {
            Some(lost) if request.target == lost => Err(failure(&lost, 503, "ServiceUnavailable")),
            _ => self.state.lock().unwrap().handle(&request),
        };
        Box::pin(async move {
            let body = Bytes::from(answer?.to_string());
            Ok(Response { code: StatusCode::OK, body })
        })
    }

    fn follow(&self, follow: Follow) -> Follower {
        let (sender, follower) = Follower::channel();
        let (feed, mut events) = unbounded_channel();
        let mut state = self.state.lock().unwrap();
        if self.silent == Some(&*follow.resource) {
            // Open, and nothing comes.
            state.followers.push((String::new(), feed));
            tokio::spawn(async move { drop((events.recv().await, sender)) });
            return follower;
        }
        feed.send(FollowEvent::Reset).unwrap();
        for ((resource, ..), value) in &state.objects {
            if *resource == follow.resource {
                let revision = value["metadata"]["resourceVersion"].as_str().unwrap();
                let object = Object::new(value, revision.parse().unwrap(), &[]);
                feed.send(FollowEvent::Put(Arc::new(object))).unwrap();
            }
        }
        feed.send(FollowEvent::Synced(state.revision)).unwrap();
        state.followers.push((follow.resource, feed));
        // Ends with the follower or with the fake, whichever goes first.
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        follower
    }
}
