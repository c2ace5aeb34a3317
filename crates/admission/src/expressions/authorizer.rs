//! The authorizer as expressions ask it. Answers are remembered for the time of one request (apiserver
//! `plugin/authorizer`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use api::selector::FieldSelector;
use auth::{Attributes as Wanted, User, account_groups, account_name};
use cel::{Authorize, Decision, Question, ResourceCheck, Target};

use crate::attributes::Attributes;

/// Answers questions about the requester of one request, and about service accounts.
pub struct RequestAuthorizer<'a> {
    request: &'a Attributes<'a>,
    answers: Mutex<HashMap<String, Decision>>,
}

impl std::fmt::Debug for RequestAuthorizer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestAuthorizer").field("user", &self.request.user.name).finish()
    }
}

impl<'a> RequestAuthorizer<'a> {
    pub fn new(request: &'a Attributes<'a>) -> RequestAuthorizer<'a> {
        RequestAuthorizer { request, answers: Mutex::default() }
    }

    /// `authorizer.requestResource`: what the request is about.
    pub(crate) fn request_resource(&self) -> ResourceCheck {
        let (group, resource, subresource) = self.request.path();
        ResourceCheck {
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: self.request.namespace().into(),
            name: self.request.name.into(),
            ..ResourceCheck::default()
        }
    }

    fn decide(&self, question: &Question<'_>) -> Decision {
        let account = question.account.map(|(namespace, name)| {
            let mut user = User { name: account_name(namespace, name), ..User::default() };
            user.groups = account_groups(namespace);
            user
        });
        let user = account.as_ref().unwrap_or(self.request.user);
        let authorizer = self.request.cluster.authorizer();
        let (allowed, reason) = match question.target {
            Target::Path(path) => {
                let wanted = Wanted { verb: question.verb, path: Some(path), ..Wanted::default() };
                authorizer.review(user, &wanted)
            }
            Target::Resource(check) => {
                let fields = selected_fields(check);
                let mut wanted = Wanted {
                    verb: question.verb,
                    group: &check.group,
                    resource: &check.resource,
                    subresource: &check.subresource,
                    namespace: &check.namespace,
                    name: &check.name,
                    ..Wanted::default()
                };
                if let Some(fields) = &fields {
                    wanted = wanted.selecting(fields);
                }
                authorizer.review(user, &wanted)
            }
        };
        Decision { allowed, reason, error: String::new() }
    }
}

/// A selector that cannot be read selects everything, as upstream has it.
fn selected_fields(check: &ResourceCheck) -> Option<FieldSelector> {
    if check.field_selector.is_empty() {
        return None;
    }
    FieldSelector::parse(&check.field_selector).ok()
}

impl Authorize for RequestAuthorizer<'_> {
    fn authorize(&self, question: &Question<'_>) -> Decision {
        let key = format!("{question:?}");
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let decision = self.decide(question);
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.insert(key, decision.clone());
            decision
        })
    }
}
