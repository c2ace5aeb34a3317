//! The chain of authorizers (apiserver `pkg/authorization/union`).

use std::sync::{Arc, PoisonError, RwLock};

use api::Status;

use super::abac::Abac;
use super::webhook::ReviewWebhook;
use super::{Attributes, escalation, forbidden, node, rbac, refusal};
use super::{Resolved, RoleRef, Rule};
use crate::objects::Objects;
use crate::user::{MASTERS, User};

/// What an authorizer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opinion {
    Allow,
    /// No other authorizer is asked.
    Deny,
    /// The next authorizer is asked; a request of which nobody knows anything is refused.
    None,
}

/// What the chain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    pub opinion: Opinion,
    /// Why, often nothing.
    pub reason: String,
    /// Why an authorizer could not be asked; empty when all could.
    pub error: String,
    /// RBAC allowed it.
    by_roles: bool,
}

impl Authorization {
    pub(super) fn new(opinion: Opinion, reason: String, error: String) -> Authorization {
        Authorization { opinion, reason, error, by_roles: false }
    }

    fn allowed(by_roles: bool) -> Authorization {
        let (reason, error) = (String::new(), String::new());
        Authorization { opinion: Opinion::Allow, reason, error, by_roles }
    }

    pub fn is_allowed(&self) -> bool {
        self.opinion == Opinion::Allow
    }

    /// The sentence after "is forbidden: ", unless it is allowed.
    pub fn sentence(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), String> {
        match self.is_allowed() {
            true => Ok(()),
            false if self.reason.is_empty() => Err(refusal(user, attributes, &self.error)),
            false => Err(refusal(user, attributes, &self.reason)),
        }
    }

    /// The answer for a client, unless it is allowed.
    pub fn require(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), Status> {
        self.sentence(user, attributes).map_err(|why| forbidden(attributes, &why))
    }
}

/// An authorizer.
#[derive(Debug, Clone)]
pub enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Abac(Arc<Abac>),
    Webhook(Arc<ReviewWebhook>),
}

/// Which authorizers are asked, in order. `system:masters` may do everything before any is asked.
#[derive(Debug, Clone, Default)]
pub struct AuthorizationModes(pub Vec<Mode>);

impl AuthorizationModes {
    /// Node, then RBAC.
    pub fn usual() -> AuthorizationModes {
        AuthorizationModes(vec![Mode::Node, Mode::Rbac])
    }
}

/// Asks the authorizers of its modes.
pub struct Authorizer {
    modes: RwLock<Arc<[Mode]>>,
    rbac: rbac::Rbac,
    objects: Arc<dyn Objects>,
}

/// Where a walk along the chain stands.
enum Step<'m> {
    Done(Authorization),
    /// This webhook is asked, and then the walk goes on behind it.
    Ask(usize, &'m ReviewWebhook),
}

/// What the authorizers said who did not decide.
#[derive(Default)]
struct Told {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Told {
    fn add(&mut self, reason: String) {
        if !reason.is_empty() {
            self.reasons.push(reason);
        }
    }

    fn undecided(self) -> Authorization {
        let error = escalation::aggregate(&self.errors).unwrap_or_default();
        Authorization::new(Opinion::None, self.reasons.join("\n"), error)
    }
}

impl Authorizer {
    pub fn new(objects: Arc<dyn Objects>, modes: AuthorizationModes) -> Authorizer {
        let modes = RwLock::new(modes.0.into());
        Authorizer { modes, rbac: rbac::Rbac::new(&*objects), objects }
    }

    /// Other authorizers are asked from now on.
    pub fn change(&self, modes: AuthorizationModes) {
        *self.modes.write().unwrap_or_else(PoisonError::into_inner) = modes.0.into();
    }

    fn modes(&self) -> Arc<[Mode]> {
        self.modes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the authorizers. The reason of what RBAC allows is not looked for.
    pub async fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Authorization {
        let modes = self.modes();
        let (mut told, mut from) = (Told::default(), 0);
        loop {
            match self.walk(&modes, from, &mut told, (user, attributes)) {
                Step::Done(done) => return done,
                Step::Ask(at, webhook) => {
                    let answer = webhook.authorize(user, attributes).await;
                    if answer.opinion != Opinion::None {
                        return answer;
                    }
                    told.add(answer.reason);
                    told.errors.extend((!answer.error.is_empty()).then_some(answer.error));
                    from = at + 1;
                }
            }
        }
    }

    /// The answer, when no webhook needs to be asked for it.
    pub(super) fn at_once(
        &self,
        user: &User,
        attributes: &Attributes<'_>,
    ) -> Option<Authorization> {
        match self.walk(&self.modes(), 0, &mut Told::default(), (user, attributes)) {
            Step::Done(done) => Some(done),
            Step::Ask(..) => None,
        }
    }

    fn walk<'m>(
        &self,
        modes: &'m [Mode],
        from: usize,
        told: &mut Told,
        (user, attributes): (&User, &Attributes<'_>),
    ) -> Step<'m> {
        if user.in_group(MASTERS) {
            return Step::Done(Authorization::allowed(false));
        }
        for (at, mode) in modes.iter().enumerate().skip(from) {
            let judged = match mode {
                Mode::Webhook(webhook) => return Step::Ask(at, webhook),
                Mode::AlwaysAllow => Ok(()),
                Mode::AlwaysDeny => Err("Everything is forbidden.".into()),
                Mode::Node => match user.node() {
                    Some(node) => node::check(&*self.objects, user, node, attributes),
                    None => Err(String::new()),
                },
                Mode::Rbac => self.by_roles(user, attributes),
                Mode::Abac(abac) if abac.allows(user, attributes) => Ok(()),
                Mode::Abac(_) => Err("No policy matched.".into()),
            };
            match judged {
                Ok(()) => {
                    return Step::Done(Authorization::allowed(matches!(mode, Mode::Rbac)));
                }
                Err(why) => told.add(why),
            }
        }
        Step::Done(std::mem::take(told).undecided())
    }

    fn by_roles(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), String> {
        if self.rbac.allows(user, attributes) {
            return Ok(());
        }
        let lost = escalation::aggregate(&self.rbac.lost(user, attributes));
        Err(lost.map_or(String::new(), |lost| format!("RBAC: {lost}")))
    }

    /// With the reason of what RBAC allowed, for who asks about somebody.
    pub fn explain(
        &self,
        user: &User,
        attributes: &Attributes<'_>,
        mut answer: Authorization,
    ) -> Authorization {
        if answer.by_roles {
            let source = self.rbac.source(user, attributes);
            let told = source.map(|source| format!("RBAC: allowed by {source}"));
            answer.reason = told.unwrap_or_default();
        }
        answer
    }

    /// All rules that hold for the user in a namespace, and why some could not be found.
    pub fn rules(&self, user: &User, namespace: &str) -> Resolved {
        let mut found = Resolved::default();
        for mode in self.modes().iter() {
            match mode {
                Mode::Rbac => {
                    let own = self.rbac.rules(user, namespace);
                    found.rules.extend(own.rules);
                    found.errors.extend(own.errors);
                }
                Mode::Webhook(_) => found
                    .errors
                    .push("webhook authorizer does not support user rule resolution".into()),
                Mode::Node if user.node().is_some() => {
                    found
                        .errors
                        .push("node authorizer does not support user rule resolution".into());
                }
                Mode::AlwaysAllow => found.rules.extend(Rule::everything()),
                Mode::Node | Mode::AlwaysDeny => {}
                Mode::Abac(abac) => found.rules.extend(abac.rules(user, namespace)),
            }
        }
        found
    }

    /// The rules of a role as a binding in this namespace names it.
    pub fn role(&self, role: &RoleRef, namespace: &str) -> Result<Vec<Rule>, Status> {
        self.rbac.role(role, namespace)
    }

    /// The rules that RBAC gives the user in a namespace: what may be handed on.
    pub fn held(&self, user: &User, namespace: &str) -> Resolved {
        self.rbac.rules(user, namespace)
    }
}
