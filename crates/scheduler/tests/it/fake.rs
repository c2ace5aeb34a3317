//! A small API in memory: create, patch, bind, delete and follow; no validation, no defaults.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::Object;
use bytes::Bytes;
use client::{BoxFuture, Error, Follow, FollowEvent, Follower, Request, Response, Transport};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

#[derive(Default)]
pub(crate) struct Fake {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    revision: u64,
    /// By resource, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    followers: Vec<(String, UnboundedSender<FollowEvent>)>,
    /// So many bindings fail before one succeeds.
    failing_bindings: usize,
}

/// Resource, namespace, name and subresource of a request.
fn parts(target: &str) -> (String, String, String, String) {
    let path = target.split('?').next().unwrap_or("");
    let skip = if path.starts_with("/apis/") { 4 } else { 3 };
    let mut parts: Vec<&str> = path.split('/').skip(skip).collect();
    let mut namespace = String::new();
    if parts[0] == "namespaces" && parts.len() > 2 {
        namespace = parts[1].to_owned();
        parts.drain(..2);
    }
    let part = |i: usize| parts.get(i).map_or(String::new(), |p| (*p).to_owned());
    (part(0), namespace, part(1), part(2))
}

fn failure(target: &str, code: u16, reason: &str) -> Error {
    api::Status::failure(code, reason, format!("{reason} {target}")).into()
}

impl Fake {
    pub(crate) fn fail_bindings(&self, count: usize) {
        self.state.lock().unwrap().failing_bindings = count;
    }
}

impl State {
    fn write(&mut self, resource: &str, mut value: Value) -> Value {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let text = |key: &str| value["metadata"][key].as_str().unwrap_or("").to_owned();
        let key = (resource.to_owned(), text("namespace"), text("name"));
        let object = Arc::new(Object::new(&value, self.revision, &[]));
        self.objects.insert(key, value.clone());
        self.tell(resource, &FollowEvent::Put(object));
        value
    }

    fn tell(&mut self, resource: &str, event: &FollowEvent) {
        self.followers.retain(|(to, feed)| to != resource || feed.send(event.clone()).is_ok());
    }

    fn handle(&mut self, request: &Request) -> Result<Value, Error> {
        let target = &request.target;
        let (resource, namespace, name, subresource) = parts(target);
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let key = (resource.clone(), namespace.clone(), name);
        let found = self.objects.get(&key).cloned();
        match (&request.method, subresource.as_str()) {
            (&Method::POST, "binding") => self.bind(target, found, &body),
            (&Method::POST, _) => {
                let mut value = body;
                value["metadata"]["uid"] = format!("uid-{}", self.revision + 1).into();
                Ok(self.write(&resource, value))
            }
            (&Method::PATCH, _) => {
                let mut value = found.ok_or_else(|| failure(target, 404, "NotFound"))?;
                merge(&mut value, &body);
                Ok(self.write(&resource, value))
            }
            (&Method::DELETE, _) => {
                let value = found.ok_or_else(|| failure(target, 404, "NotFound"))?;
                self.revision += 1;
                self.objects.remove(&key);
                let object = Arc::new(Object::new(&value, self.revision, &[]));
                self.tell(&resource, &FollowEvent::Delete(object));
                Ok(value)
            }
            _ => found.ok_or_else(|| failure(target, 404, "NotFound")),
        }
    }

    fn bind(&mut self, target: &str, pod: Option<Value>, body: &Value) -> Result<Value, Error> {
        let mut pod = pod.ok_or_else(|| failure(target, 404, "NotFound"))?;
        if self.failing_bindings > 0 {
            self.failing_bindings -= 1;
            return Err(failure(target, 409, "Conflict"));
        }
        pod["spec"]["nodeName"] = body["target"]["name"].clone();
        self.write("pods", pod);
        Ok(json!({"kind": "Status", "status": "Success"}))
    }
}

/// As merge patches do, but conditions are merged by type.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match (key.as_str(), value) {
                    (_, Value::Null) => drop(into.remove(key)),
                    ("conditions", Value::Array(new)) => {
                        let all = into.entry(key.clone()).or_insert(json!([]));
                        let all = all.as_array_mut().expect("a list");
                        all.retain(|c| new.iter().all(|n| n["type"] != c["type"]));
                        all.extend(new.iter().cloned());
                    }
                    (_, value) => merge(into.entry(key.clone()).or_insert(json!({})), value),
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

impl Transport for Fake {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response, Error>> {
        let answer = self.state.lock().unwrap().handle(&request);
        Box::pin(async move {
            let body = Bytes::from(answer?.to_string());
            Ok(Response { code: StatusCode::OK, body })
        })
    }

    fn follow(&self, follow: Follow) -> Follower {
        let (sender, follower) = Follower::channel();
        let (feed, mut events) = unbounded_channel();
        let mut state = self.state.lock().unwrap();
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
