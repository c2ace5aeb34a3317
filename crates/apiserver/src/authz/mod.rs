//! Authorisation: Node, then RBAC. The first that allows decides; nobody denies.

mod node;
mod rbac;

use store::Store;

use crate::request::RequestInfo;
use crate::server::AuthorizationModes;
use crate::user::User;

pub(crate) use rbac::Rule;

/// What is asked for, in RBAC's terms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Set for requests that name no resource.
    pub path: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    pub(crate) fn of(info: &'a RequestInfo) -> Attributes<'a> {
        Attributes {
            verb: info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: (!info.is_resource).then_some(info.path.as_str()),
        }
    }

    /// `pods/log`, as rules name it.
    fn full_resource(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            sub => format!("{}/{sub}", self.resource),
        }
    }
}

/// Decides.
pub(crate) struct Authorizer {
    modes: AuthorizationModes,
    rbac: rbac::Rbac,
    store: Store,
}

impl Authorizer {
    pub(crate) fn new(store: &Store, modes: AuthorizationModes) -> Authorizer {
        Authorizer { modes, rbac: rbac::Rbac::new(store), store: store.clone() }
    }

    /// `Ok` when allowed; otherwise the sentence after "is forbidden: ".
    pub(crate) fn check(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), String> {
        if self.modes.always_allow || user.in_group("system:masters") {
            return Ok(());
        }
        let mut reason = String::new();
        if self.modes.node
            && let Some(node) = user.node()
        {
            match node::check(&self.store, node, attributes) {
                Ok(()) => return Ok(()),
                Err(why) => reason = why,
            }
        }
        if self.modes.rbac && self.rbac.allows(user, attributes) {
            return Ok(());
        }
        Err(refusal(user, attributes, &reason))
    }

    /// All rules that hold for the user in a namespace.
    pub(crate) fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        self.rbac.rules(user, namespace)
    }
}

fn refusal(user: &User, a: &Attributes<'_>, reason: &str) -> String {
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
