//! Questions from code that cannot wait: expressions, and the pure rules of admission.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use api::Status;
use api::selector::{FieldSelector, LabelSelector};

use super::{Attributes, Authorization, Authorizer, Opinion};
use crate::user::User;

/// Most rounds of questions that one piece of work may have; what is asked after them is refused.
const ROUNDS_MAX: usize = 64;

/// The questions of one request, with their answers. What only a webhook can answer is missed first:
/// [`Inquiry::settle`] then asks for it and does the work again.
pub struct Inquiry<'a> {
    authorizer: &'a Authorizer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    answers: HashMap<(User, Question), Authorization>,
    missed: Vec<(User, Question)>,
}

/// Owned [`Attributes`].
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    texts: [String; 7],
    path: Option<String>,
    fields: Option<FieldSelector>,
    labels: Option<LabelSelector>,
}

impl Question {
    fn of(a: &Attributes<'_>) -> Question {
        let texts = [a.verb, a.group, a.version, a.resource, a.subresource, a.namespace, a.name];
        Question {
            texts: texts.map(str::to_owned),
            path: a.path.map(str::to_owned),
            fields: a.fields.cloned(),
            labels: a.labels.cloned(),
        }
    }

    fn attributes(&self) -> Attributes<'_> {
        let [verb, group, version, resource, subresource, namespace, name] = &self.texts;
        Attributes {
            verb,
            group,
            version,
            resource,
            subresource,
            namespace,
            name,
            path: self.path.as_deref(),
            fields: self.fields.as_ref(),
            labels: self.labels.as_ref(),
        }
    }
}

impl<'a> Inquiry<'a> {
    pub fn new(authorizer: &'a Authorizer) -> Inquiry<'a> {
        Inquiry { authorizer, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer; of a question that is missed, that nobody allows it.
    pub fn ask(&self, user: &User, attributes: &Attributes<'_>) -> Authorization {
        if let Some(answer) = self.authorizer.at_once(user, attributes) {
            return answer;
        }
        let key = (user.clone(), Question::of(attributes));
        let mut state = self.state();
        if let Some(answer) = state.answers.get(&key) {
            return answer.clone();
        }
        if !state.missed.contains(&key) {
            state.missed.push(key);
        }
        Authorization::new(Opinion::None, String::new(), "not asked yet".into())
    }

    /// `Ok` when allowed; otherwise the sentence after "is forbidden: ".
    pub fn check(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), String> {
        self.ask(user, attributes).sentence(user, attributes)
    }

    /// `Ok` when allowed; otherwise the answer for the client.
    pub fn require(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), Status> {
        self.ask(user, attributes).require(user, attributes)
    }

    /// The rules that RBAC gives somebody, and those of roles.
    pub fn authorizer(&self) -> &'a Authorizer {
        self.authorizer
    }

    /// Whether the last work missed an answer, so that its outcome says nothing.
    pub fn has_missed(&self) -> bool {
        !self.state().missed.is_empty()
    }

    /// Does the work, again when it missed answers, which are fetched in between.
    pub async fn settle<T>(&self, mut work: impl FnMut(&Inquiry<'a>) -> T) -> T {
        for _ in 0..ROUNDS_MAX {
            let done = work(self);
            if !self.has_missed() {
                return done;
            }
            self.fetch().await;
        }
        work(self)
    }

    /// Asks for what was missed.
    pub async fn fetch(&self) {
        let missed = std::mem::take(&mut self.state().missed);
        for (user, question) in missed {
            let answer = self.authorizer.authorize(&user, &question.attributes()).await;
            self.state().answers.insert((user, question), answer);
        }
    }
}
