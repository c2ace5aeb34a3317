//! The authorizer as expressions ask it. What webhooks answered is remembered for the time of one request
//! (apiserver `plugin/authorizer`).

use api::selector::{FieldSelector, LabelSelector};
use auth::{Attributes as Wanted, Authorization, Inquiry, User, account_groups, account_name};
use cel::{Authorize, Decision, Question, ResourceCheck, Target};

use crate::attributes::Attributes;

/// Answers questions about the requester of one request, and about service accounts.
pub struct RequestAuthorizer<'a> {
    request: &'a Attributes<'a>,
    inquiry: Inquiry<'a>,
}

impl std::fmt::Debug for RequestAuthorizer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestAuthorizer").field("user", &self.request.user.name).finish()
    }
}

impl<'a> RequestAuthorizer<'a> {
    pub fn new(request: &'a Attributes<'a>) -> RequestAuthorizer<'a> {
        RequestAuthorizer { request, inquiry: Inquiry::new(request.cluster.authorizer()) }
    }

    /// Evaluates, again when a webhook had to be asked meanwhile.
    pub(crate) async fn settle<T>(&self, mut evaluate: impl FnMut() -> T) -> T {
        self.inquiry.settle(|_| evaluate()).await
    }

    /// `authorizer.requestResource`: what the request is about.
    pub(crate) fn request_resource(&self) -> ResourceCheck {
        let row = self.request.row;
        let (group, resource, subresource) = (row.group, row.name, row.subresource);
        ResourceCheck {
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: self.request.namespace().into(),
            name: self.request.name.into(),
            ..ResourceCheck::default()
        }
    }

    fn decide(&self, question: &Question<'_>) -> Authorization {
        let account = question.account.map(|(namespace, name)| {
            let mut user = User { name: account_name(namespace, name), ..User::default() };
            user.groups = account_groups(namespace);
            user
        });
        let user = account.as_ref().unwrap_or(self.request.user);
        match question.target {
            Target::Path(path) => {
                let wanted = Wanted { verb: question.verb, path: Some(path), ..Wanted::default() };
                self.explained(user, &wanted)
            }
            Target::Resource(check) => {
                let (fields, labels) = (selected_fields(check), selected_labels(check));
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
                if let Some(labels) = &labels {
                    wanted = wanted.labelled(labels);
                }
                self.explained(user, &wanted)
            }
        }
    }

    fn explained(&self, user: &User, wanted: &Wanted<'_>) -> Authorization {
        let answer = self.inquiry.ask(user, wanted);
        self.request.cluster.authorizer().explain(user, wanted, answer)
    }
}

/// A selector that cannot be read selects everything, as upstream has it.
fn selected_fields(check: &ResourceCheck) -> Option<FieldSelector> {
    if check.field_selector.is_empty() {
        return None;
    }
    FieldSelector::parse(&check.field_selector).ok()
}

fn selected_labels(check: &ResourceCheck) -> Option<LabelSelector> {
    if check.label_selector.is_empty() {
        return None;
    }
    LabelSelector::parse(&check.label_selector).ok()
}

impl Authorize for RequestAuthorizer<'_> {
    fn authorize(&self, question: &Question<'_>) -> Decision {
        let answer = self.decide(question);
        Decision { allowed: answer.is_allowed(), reason: answer.reason, error: answer.error }
    }
}
