//! Authorisation: Node, RBAC, ABAC. The first that allows decides; nobody denies.

mod abac;
pub mod escalation;
mod node;
mod rbac;
pub mod references;
mod relations;

use std::sync::Arc;

use api::Status;
use api::selector::FieldSelector;

use crate::objects::Objects;
use crate::request_info::RequestInfo;
use crate::user::{MASTERS, User};

pub use abac::{Abac, PolicyFileError};
pub use rbac::{Resolved, RoleRef, Rule};

/// What is asked for, in RBAC's terms.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Set for requests that name no resource.
    pub path: Option<&'a str>,
    /// How the objects are selected that a collection's verb is about.
    pub fields: Option<&'a FieldSelector>,
}

impl<'a> Attributes<'a> {
    pub fn of(info: &'a RequestInfo) -> Attributes<'a> {
        Attributes {
            verb: info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: (!info.is_resource).then_some(info.path.as_str()),
            fields: None,
        }
    }

    /// With what a collection's verb selects. A list of one object by its name is a question about
    /// that object: kubelets ask no other way for what their pods refer to.
    pub fn selecting(mut self, fields: &'a FieldSelector) -> Attributes<'a> {
        if matches!(self.verb, "list" | "watch" | "deletecollection") {
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

/// Which authorizers are asked; the first that allows decides, and none forbids. With none of them nothing is
/// allowed but to `system:masters`.
#[derive(Debug, Clone, Default)]
pub struct AuthorizationModes {
    pub node: bool,
    pub rbac: bool,
    pub abac: Option<Arc<Abac>>,
    pub always_allow: bool,
    pub always_deny: bool,
}

impl AuthorizationModes {
    /// Node, then RBAC.
    pub fn usual() -> AuthorizationModes {
        AuthorizationModes { node: true, rbac: true, ..AuthorizationModes::default() }
    }
}

/// Asks the authorizers of its modes.
pub struct Authorizer {
    modes: AuthorizationModes,
    rbac: rbac::Rbac,
    objects: Arc<dyn Objects>,
}

impl Authorizer {
    pub fn new(objects: Arc<dyn Objects>, modes: AuthorizationModes) -> Authorizer {
        Authorizer { modes, rbac: rbac::Rbac::new(&*objects), objects }
    }

    /// `Ok` when allowed; otherwise the sentence after "is forbidden: ".
    pub fn check(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), String> {
        self.judge(user, attributes).map_err(|reason| refusal(user, attributes, &reason))
    }

    /// `Ok` when allowed; otherwise the reasons, which are often none.
    fn judge(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), String> {
        if self.is_free(user) {
            return Ok(());
        }
        let mut reasons = Vec::new();
        if self.modes.node
            && let Some(node) = user.node()
        {
            match node::check(&*self.objects, user, node, attributes) {
                Ok(()) => return Ok(()),
                Err(why) => reasons.push(why),
            }
        }
        if self.modes.rbac && self.rbac.allows(user, attributes) {
            return Ok(());
        }
        if self.modes.rbac {
            let lost = escalation::aggregate(&self.rbac.lost(user, attributes));
            reasons.extend(lost.map(|lost| format!("RBAC: {lost}")));
        }
        if let Some(abac) = &self.modes.abac {
            if abac.allows(user, attributes) {
                return Ok(());
            }
            reasons.push("No policy matched.".into());
        }
        if self.modes.always_deny {
            reasons.push("Everything is forbidden.".into());
        }
        reasons.retain(|reason| !reason.is_empty());
        Err(reasons.join("\n"))
    }

    /// Whether it is allowed, and why (not), for who asks about somebody.
    pub fn review(&self, user: &User, attributes: &Attributes<'_>) -> (bool, String) {
        if let Err(reason) = self.judge(user, attributes) {
            return (false, reason);
        }
        // Those who are above roles are allowed without a word.
        let source = match self.is_free(user) || !self.modes.rbac {
            true => None,
            false => self.rbac.source(user, attributes),
        };
        (true, source.map_or(String::new(), |source| format!("RBAC: allowed by {source}")))
    }

    fn is_free(&self, user: &User) -> bool {
        self.modes.always_allow || user.in_group(MASTERS)
    }

    /// `Ok` when allowed; otherwise the answer for the client.
    pub fn require(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), Status> {
        self.check(user, attributes).map_err(|why| forbidden(attributes, &why))
    }

    /// All rules that hold for the user in a namespace.
    pub fn rules(&self, user: &User, namespace: &str) -> Resolved {
        self.rbac.rules(user, namespace)
    }

    /// The rules of a role as a binding in this namespace names it.
    pub fn role(&self, role: &RoleRef, namespace: &str) -> Result<Vec<Rule>, Status> {
        self.rbac.role(role, namespace)
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
