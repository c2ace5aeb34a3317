//! An API server for tests: objects by path, follows, and the patches that the node sends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::{Object, Status};
use bytes::Bytes;
use client::{BoxFuture, Error, Follow, FollowEvent, Follower, Request, Response, Transport};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    revision: u64,
    followers: Vec<(Follow, mpsc::Sender<FollowEvent>)>,
    /// Questions about tokens and rights.
    reviews: u32,
}

#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
}

fn collection(follow: &Follow) -> String {
    let root = match follow.group.as_str() {
        "" => format!("/api/{}", follow.version),
        group => format!("/apis/{group}/{}", follow.version),
    };
    format!("{root} {}", follow.resource)
}

/// `/api/v1/namespaces/a/pods/b` → `/api/v1 pods`.
fn collection_of(path: &str) -> String {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let root = if parts[0] == "api" { 2 } else { 3 };
    let rest = &parts[root..];
    let resource = if rest[0] == "namespaces" && rest.len() > 2 { rest[2] } else { rest[0] };
    format!("/{} {resource}", parts[..root].join("/"))
}

fn matches(follow: &Follow, value: &Value) -> bool {
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or("");
    if !follow.namespace.is_empty() && follow.namespace != namespace {
        return false;
    }
    follow.field_selector.split(',').filter(|s| !s.is_empty()).all(|part| {
        let (field, wanted) = part.split_once('=').unwrap();
        *api::object::field_text(value, field) == *wanted
    })
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    for (key, value) in patch {
        match (key.as_str(), value) {
            (_, Value::Null) => drop(into.as_object_mut().map(|o| o.remove(key))),
            ("conditions", Value::Array(list)) => {
                if into[key].is_null() {
                    into[key] = json!([]);
                }
                let all = into[key].as_array_mut().unwrap();
                for entry in list {
                    if entry["$patch"] == "delete" {
                        all.retain(|c| c["type"] != entry["type"]);
                        continue;
                    }
                    match all.iter_mut().find(|c| c["type"] == entry["type"]) {
                        Some(old) => merge(old, entry),
                        None => all.push(entry.clone()),
                    }
                }
            }
            (_, Value::Array(list)) => {
                let plain = list.iter().filter(|v| v.get("$patch").is_none());
                into[key] = plain.cloned().collect();
            }
            (_, Value::Object(_)) => {
                if !into[key].is_object() {
                    into[key] = json!({});
                }
                merge(&mut into[key], value);
            }
            _ => into[key] = value.clone(),
        }
    }
}

impl FakeApi {
    pub(crate) fn new() -> FakeApi {
        FakeApi { state: Arc::default(), changes: watch::Sender::new(0) }
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn reviews(&self) -> u32 {
        self.state.lock().unwrap().reviews
    }

    pub(crate) fn list(&self, prefix: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state
            .objects
            .iter()
            .filter(|(p, _)| p.starts_with(prefix))
            .map(|(_, v)| v.clone())
            .collect()
    }

    pub(crate) fn put(&self, path: &str, value: Value) -> Value {
        self.store(path, |_| Some(value)).unwrap()
    }

    /// Changes an object, and nothing is written in between; `None`: there is none.
    pub(crate) fn update(&self, path: &str, change: impl FnOnce(&mut Value)) -> Option<Value> {
        self.store(path, |old| {
            let mut value = old?.clone();
            change(&mut value);
            Some(value)
        })
    }

    fn store(
        &self,
        path: &str,
        make: impl FnOnce(Option<&Value>) -> Option<Value>,
    ) -> Option<Value> {
        let mut state = self.state.lock().unwrap();
        let mut value = make(state.objects.get(path))?;
        state.revision += 1;
        let revision = state.revision;
        value["metadata"]["resourceVersion"] = json!(revision.to_string());
        state.objects.insert(path.to_owned(), value.clone());
        let object = Arc::new(Object::new(&value, revision, &[]));
        state.tell(path, &value, FollowEvent::Put(object));
        drop(state);
        self.changes.send_replace(revision);
        Some(value)
    }

    pub(crate) fn remove(&self, path: &str) {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        let revision = state.revision;
        if let Some(value) = state.objects.remove(path) {
            let object = Arc::new(Object::new(&value, revision, &[]));
            state.tell(path, &value, FollowEvent::Delete(object));
        }
        drop(state);
        self.changes.send_replace(revision);
    }

    /// Waits until `done` gives something; looked at after every write.
    pub(crate) async fn until<T>(&self, mut done: impl FnMut(&FakeApi) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        let wait = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = done(self) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        let limit = std::time::Duration::from_secs(20);
        let waited = tokio::time::timeout(limit, wait).await;
        waited.unwrap_or_else(|_| {
            panic!("not reached; {:#?}", self.list("/api/v1/namespaces/default/"))
        })
    }

    fn answer(&self, request: Request) -> Result<Value, Error> {
        let path = request.target.split('?').next().unwrap().to_owned();
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let missing = || Error::from(Status::not_found("", "object", &path));
        match request.method.as_str() {
            "GET" => self.get(&path).ok_or_else(missing),
            "POST" if path.ends_with("/token") => Ok(
                json!({"kind": "TokenRequest", "metadata": {}, "spec": {}, "status": {"token": "secret-token", "expirationTimestamp": "2126-01-01T00:00:00Z"}}),
            ),
            "POST" if path.ends_with("/tokenreviews") => {
                self.state.lock().unwrap().reviews += 1;
                let user = json!({"username": "prometheus", "groups": ["system:authenticated"]});
                let good = body["spec"]["token"] == "good";
                let status =
                    if good { json!({"authenticated": true, "user": user}) } else { json!({}) };
                Ok(
                    json!({"kind": "TokenReview", "metadata": {}, "spec": body["spec"], "status": status}),
                )
            }
            "POST" if path.ends_with("/subjectaccessreviews") => {
                self.state.lock().unwrap().reviews += 1;
                let (spec, asked) = (&body["spec"], &body["spec"]["resourceAttributes"]);
                let allowed = spec["user"] == "prometheus"
                    && (&asked["resource"], &asked["name"]) == (&json!("nodes"), &json!("n1"))
                    && (asked["subresource"] == "metrics" || asked["subresource"] == "healthz");
                Ok(
                    json!({"kind": "SubjectAccessReview", "metadata": {}, "spec": spec, "status": {"allowed": allowed}}),
                )
            }
            "POST" => {
                let mut body = body;
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                body["metadata"]["uid"] = json!(format!("uid-{}", *self.changes.borrow()));
                Ok(self.put(&format!("{path}/{name}"), body))
            }
            "PUT" => Ok(self.put(&path, body)),
            "PATCH" => {
                let path = path.trim_end_matches("/status");
                self.update(path, |value| merge(value, &body)).ok_or_else(missing)
            }
            "DELETE" if path.ends_with("/resourceslices") => {
                let selected = self.list(&path).into_iter().filter(|slice| {
                    request.target.contains(&format!(
                        "spec.nodeName%3D{}",
                        slice["spec"]["nodeName"].as_str().unwrap()
                    ))
                });
                for slice in selected {
                    let name = slice["metadata"]["name"].as_str().unwrap();
                    self.remove(&format!("{path}/{name}"));
                }
                Ok(json!({}))
            }
            "DELETE" => {
                self.get(&path).ok_or_else(missing)?;
                self.remove(&path);
                Ok(json!({}))
            }
            other => panic!("{other}"),
        }
    }
}

impl State {
    fn tell(&mut self, path: &str, value: &Value, event: FollowEvent) {
        let about = collection_of(path);
        for (follow, sender) in &self.followers {
            if collection(follow) == about && matches(follow, value) {
                let _gone = sender.try_send(event.clone());
            }
        }
    }
}

impl Transport for FakeApi {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response, Error>> {
        let answer = self.answer(request);
        Box::pin(async move {
            let value = answer?;
            let body = Bytes::from(serde_json::to_vec(&value).unwrap());
            Ok(Response { code: http::StatusCode::OK, body })
        })
    }

    fn follow(&self, follow: Follow) -> Follower {
        let (sender, follower) = Follower::channel();
        let mut state = self.state.lock().unwrap();
        for (path, value) in &state.objects {
            if collection_of(path) == collection(&follow) && matches(&follow, value) {
                let object = Arc::new(Object::new(value, 0, &[]));
                sender.try_send(FollowEvent::Put(object)).unwrap();
            }
        }
        sender.try_send(FollowEvent::Synced(state.revision)).unwrap();
        state.followers.push((follow, sender));
        follower
    }
}
