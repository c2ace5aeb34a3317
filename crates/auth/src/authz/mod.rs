//! Authorization: Node, RBAC, ABAC, webhooks. They are asked in order; the first that allows or denies decides.

mod abac;
mod authorizer;
mod configuration;
pub mod escalation;
mod inquiry;
mod node;
mod rbac;
pub mod references;
mod relations;
mod subject;
#[cfg(test)]
mod tests;
mod webhook;

use api::Status;
use api::selector::{FieldSelector, LabelSelector};

use crate::request_info::RequestInfo;
use crate::user::User;

pub use abac::{Abac, PolicyFileError};
pub use authorizer::{Authorization, AuthorizationModes, Authorizer, Mode, Opinion};
pub use configuration::{
    AuthorizationConfiguration, AuthorizationFault, AuthorizerType, WebhookSettings,
};
pub use inquiry::Inquiry;
pub use rbac::{Resolved, RoleRef, Rule};
pub use webhook::{ReviewFailure, ReviewWebhook, SubjectAccessReviews};

/// What is asked for, in RBAC's terms.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Set for requests that name no resource.
    pub path: Option<&'a str>,
    /// How the objects are selected that a collection's verb is about.
    pub fields: Option<&'a FieldSelector>,
    pub labels: Option<&'a LabelSelector>,
}

impl<'a> Attributes<'a> {
    pub fn of(info: &'a RequestInfo) -> Attributes<'a> {
        Attributes {
            verb: info.verb,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: (!info.is_resource).then_some(info.path.as_str()),
            fields: None,
            labels: None,
        }
    }

    /// With the labels that a collection's verb selects.
    pub fn labelled(mut self, labels: &'a LabelSelector) -> Attributes<'a> {
        if self.is_of_collection() {
            self.labels = Some(labels);
        }
        self
    }

    fn is_of_collection(&self) -> bool {
        matches!(self.verb, "list" | "watch" | "deletecollection")
    }

    /// With the fields that a collection's verb selects. A list of one object by its name is a question about
    /// that object: kubelets ask no other way for what their pods refer to.
    pub fn selecting(mut self, fields: &'a FieldSelector) -> Attributes<'a> {
        if self.is_of_collection() {
            self.fields = Some(fields);
        }
        if self.name.is_empty() && matches!(self.verb, "list" | "watch") {
            self.name = fields.name().unwrap_or("");
        }
        self
    }

    /// Whether only objects are selected whose field has this value.
    fn selects(&self, field: &str, value: &str) -> bool {
        self.fields.is_some_and(|fields| {
            let mut all = fields.requirements.iter();
            all.any(|r| r.equal && r.field == field && r.value == value)
        })
    }

    /// `pods/log`, as rules name it.
    fn full_resource(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            sub => format!("{}/{sub}", self.resource),
        }
    }
}

/// The answer to a request that is not allowed.
pub fn forbidden(attributes: &Attributes<'_>, why: &str) -> Status {
    Status::forbidden(attributes.group, attributes.resource, attributes.name, why)
}

/// The sentence of a refusal, with a reason when there is one.
pub fn refusal(user: &User, a: &Attributes<'_>, reason: &str) -> String {
    let mut text = match a.path {
        Some(path) => format!("User {:?} cannot {} path {path:?}", user.name, a.verb),
        None => {
            let place = match a.namespace {
                "" => "at the cluster scope".to_owned(),
                ns => format!("in the namespace {ns:?}"),
            };
            format!(
                "User {:?} cannot {} resource {:?} in API group {:?} {place}",
                user.name,
                a.verb,
                a.full_resource(),
                a.group
            )
        }
    };
    if !reason.is_empty() {
        text += ": ";
        text += reason;
    }
    text
}
