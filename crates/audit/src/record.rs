//! What is collected of one request on its way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::Status;
use auth::{RequestInfo, User};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::event::{Event, Facts, ObjectRef, quoted};
use crate::policy::{Audited, Level, Policy};
use crate::sinks::Sinks;
use crate::stage::Stage;

/// Longest user agent that is told (upstream's `maxUserAgentLength`).
const AGENT_MAX: usize = 1024;

/// A request as it arrives.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub audited: Audited,
    pub id: &'a str,
    /// Path and query, as they were sent.
    pub uri: &'a str,
    pub agent: &'a str,
    /// Who sent it, then the proxies on its way, as addresses.
    pub sources: Vec<String>,
    pub received: Timestamp,
}

/// The audit of one server.
#[derive(Debug)]
pub struct Auditor {
    policy: Policy,
    sinks: Arc<Sinks>,
}

impl Auditor {
    pub fn new(policy: Policy, sinks: Arc<Sinks>) -> Auditor {
        Auditor { policy, sinks }
    }

    /// A record, when the policy wants one; only then the request is described.
    pub fn begin<'a>(
        &self,
        info: &RequestInfo,
        user: &User,
        describe: impl FnOnce(Audited) -> Request<'a>,
    ) -> Option<Arc<Record>> {
        let audited = self.policy.of(user, info);
        let is_told = audited.level > Level::None;
        is_told.then(|| Arc::new(Record::new(self.sinks.clone(), (info, user), describe(audited))))
    }

    /// Events that were made, and those that some place did not get.
    pub fn counts(&self) -> (u64, u64) {
        self.sinks.counts()
    }
}

/// What webhooks changed is part of the object, and told with it (upstream's `AddAnnotationWithLevel`).
const PATCHES: &str = "patch.webhook.admission.k8s.io/";

/// One request's audit. Made only for requests that are told.
#[derive(Debug)]
pub struct Record {
    audited: Audited,
    sinks: Arc<Sinks>,
    facts: Mutex<Facts>,
}

impl Record {
    fn new(
        sinks: Arc<Sinks>,
        (info, sender): (&RequestInfo, &User),
        request: Request<'_>,
    ) -> Record {
        let audited = request.audited;
        let sources = match request.sources.as_slice() {
            [] => String::new(),
            sources => json!(sources).to_string(),
        };
        let facts = Facts {
            level: audited.level,
            id: request.id.to_owned(),
            request: format!(
                r#","requestURI":{},"verb":{},"user":{}"#,
                quoted(request.uri),
                quoted(info.verb),
                user(sender)
            ),
            impersonated: None,
            source: sources,
            agent: agent(request.agent),
            object: info.is_resource.then(|| ObjectRef::of(info)),
            response_status: None,
            request_object: None,
            response_object: None,
            received: request.received,
            annotations: BTreeMap::new(),
        };
        Record { audited, sinks, facts: Mutex::new(facts) }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn level(&self) -> Level {
        self.audited.level
    }

    /// In whose name the request goes on.
    pub fn impersonate(&self, as_user: &User) {
        self.facts().impersonated = Some(user(as_user));
    }

    /// Adds an annotation, unless the key has one.
    pub fn annotate(&self, key: &str, value: String) {
        if key.starts_with(PATCHES) && self.audited.level < Level::Request {
            return;
        }
        let mut facts = self.facts();
        if let Some(former) = facts.annotations.get(key) {
            tracing::warn!(key, value, former, "an audit annotation was set twice");
            return;
        }
        facts.annotations.insert(key.to_owned(), value);
    }

    /// The object that the request carries, decoded; told from [`Level::Request`] on.
    pub fn request_object(&self, object: &Value) {
        let mut facts = self.facts();
        if let Some(reference) = &mut facts.object {
            reference.complete(&object["metadata"]);
        }
        if self.audited.level >= Level::Request {
            facts.request_object = Some(self.shown(object));
        }
    }

    /// A patch, as it was sent.
    pub fn request_patch(&self, patch: &[u8]) {
        let text = serde_json::from_slice::<&serde_json::value::RawValue>(patch);
        if let Ok(text) = text.as_ref().map(|raw| raw.get())
            && self.audited.level >= Level::Request
        {
            self.facts().request_object = Some(text.into());
        }
    }

    /// The answer's object; told at [`Level::RequestResponse`].
    pub fn response_object(&self, object: &Value) {
        if self.audited.level >= Level::RequestResponse {
            self.facts().response_object = Some(self.shown(object));
        }
    }

    fn shown(&self, object: &Value) -> Arc<str> {
        if !self.audited.omit_managed_fields {
            return object.to_string().into();
        }
        let mut object = object.clone();
        strip(&mut object);
        for item in list(&mut object, "items") {
            strip(item);
        }
        for row in list(&mut object, "rows") {
            row.get_mut("object").into_iter().for_each(strip);
        }
        object.to_string().into()
    }

    /// The answer's code, of an answer that is no failure.
    pub fn answered(&self, code: u16) {
        let status = json!({"metadata": {}, "code": code});
        self.facts().response_status.get_or_insert_with(|| status.to_string());
    }

    /// The answer's `Status`.
    pub fn failed(&self, status: &Status) {
        self.facts().response_status = Some(bounded(&status.to_value()).to_string());
        if self.audited.level >= Level::RequestResponse {
            self.response_object(&status.to_value());
        }
    }

    /// Refused before it was worked on, with the audit's own words.
    pub fn refused(&self, code: u16, message: &str) {
        let status = json!({"metadata": {}, "message": message, "code": code});
        self.facts().response_status = Some(status.to_string());
    }

    /// Given up without an answer.
    pub fn closed_early(&self) {
        let status = json!({"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200});
        self.facts().response_status.get_or_insert_with(|| status.to_string());
    }

    /// Tells the sinks how far the request has come. False when it must not go on, because it was not told.
    pub async fn tell(&self, stage: Stage) -> bool {
        match self.event(stage) {
            Some(event) => self.sinks.process(event).await,
            None => true,
        }
    }

    /// The same where nobody can wait.
    pub fn tell_later(&self, stage: Stage) {
        if let Some(event) = self.event(stage) {
            self.sinks.process_later(event);
        }
    }

    fn event(&self, stage: Stage) -> Option<Event> {
        if self.audited.omits(stage) {
            return None;
        }
        let facts = self.facts().clone();
        let at = if stage == Stage::RequestReceived { facts.received } else { Timestamp::now() };
        Some(Event { stage, at, facts })
    }
}

fn list<'a>(object: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

fn strip(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
}

/// The parts of a `Status` whose size is bounded.
fn bounded(status: &Value) -> Value {
    let mut kept = Map::from_iter([("metadata".to_owned(), json!({}))]);
    for key in ["status", "message", "reason", "details", "code"] {
        if !status[key].is_null() {
            kept.insert(key.to_owned(), status[key].clone());
        }
    }
    Value::Object(kept)
}

fn user(user: &User) -> String {
    let mut tree = Map::new();
    if !user.name.is_empty() {
        tree.insert("username".into(), json!(user.name));
    }
    if !user.uid.is_empty() {
        tree.insert("uid".into(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        tree.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        tree.insert("extra".into(), json!(user.extra));
    }
    Value::Object(tree).to_string()
}

fn agent(agent: &str) -> String {
    match agent.char_indices().map(|(at, _)| at).take_while(|at| *at <= AGENT_MAX).last() {
        Some(end) if agent.len() > AGENT_MAX => format!("{}...TRUNCATED", &agent[..end]),
        _ => agent.to_owned(),
    }
}
