//! A request's data, before and apart from the resource it is about: who asks, for what, how.

use std::sync::{Arc, Mutex, PoisonError};

use api::Status;
use auth::{RequestInfo, User};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::query::{FieldValidation, Query};

/// User, path, options, time and warnings of one request. Data only.
pub struct RequestContext<'a> {
    pub user: &'a User,
    pub info: &'a RequestInfo,
    pub query: &'a Query,
    pub dry_run: bool,
    pub validation: FieldValidation,
    /// Who manages the fields this request sets.
    pub manager: String,
    pub now: Timestamp,
    /// When the client stops waiting, if it said so.
    pub deadline: Option<Instant>,
    warnings: Mutex<Vec<String>>,
    /// What is told of the request, if anything is.
    pub audit: Option<Arc<audit::Record>>,
}

impl<'a> RequestContext<'a> {
    /// Fails when the options in the query are not those of the verb.
    pub fn new(
        user: &'a User,
        (info, query): (&'a RequestInfo, &'a Query),
        user_agent: &str,
    ) -> Result<RequestContext<'a>, Status> {
        let manager = match query.get("fieldManager") {
            Some(manager) if !manager.is_empty() => manager.to_owned(),
            _ => manager_of(user_agent),
        };
        let options = match info.verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" => "PatchOptions",
            _ => "DeleteOptions",
        };
        Ok(RequestContext {
            user,
            info,
            query,
            dry_run: query.dry_run(options)?,
            validation: query.field_validation(options)?,
            manager,
            now: Timestamp::now(),
            deadline: deadline(query),
            warnings: Mutex::default(),
            audit: None,
        })
    }

    /// Tells the client something, once.
    pub fn warn(&self, text: impl Into<String>) {
        let (text, mut all) =
            (text.into(), self.warnings.lock().unwrap_or_else(PoisonError::into_inner));
        if !all.contains(&text) {
            all.push(text);
        }
    }

    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds an annotation to the audit event, unless the key has one.
    pub fn annotate(&self, key: &str, value: String) {
        if let Some(audit) = &self.audit {
            audit.annotate(key, value);
        }
    }

    /// `2006-01-02T15:04:05Z`.
    pub fn now_text(&self) -> String {
        self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// The end of the time that the query gives, counted from now.
fn deadline(query: &Query) -> Option<Instant> {
    let asked = api::duration::parse(query.get("timeout")?).ok()?;
    let is_limit = !asked.negative && !asked.length.is_zero();
    is_limit.then(|| Instant::now().checked_add(asked.length)).flatten()
}

/// The default field manager: the user agent's first word (apiserver `managerOrUserAgent`).
fn manager_of(user_agent: &str) -> String {
    let word = user_agent.split('/').next().unwrap_or("");
    let plain: String = word.chars().filter(|c| !c.is_control()).take(128).collect();
    if plain.is_empty() { "unknown".into() } else { plain }
}
