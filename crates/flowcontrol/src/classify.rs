//! Which flow schema a request belongs to (upstream's `matchesFlowSchema`).

use auth::{RequestInfo, User, split_account};

use crate::settings::{By, Others, Resources, Rule, Schema, Subject};

/// Whether the list names it; a `*` names everything.
fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl Schema {
    pub(crate) fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, info))
    }

    /// The flow of a request that matches.
    pub(crate) fn flow<'a>(&self, user: &'a User, info: &'a RequestInfo) -> &'a str {
        match self.by {
            By::Nothing => "",
            By::User => &user.name,
            By::Namespace => &info.namespace,
        }
    }
}

impl Rule {
    fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        let by_subject = self.subjects.iter().any(|subject| subject.is(user));
        by_subject
            && match info.is_resource {
                true => self.resources.iter().any(|rule| rule.matches(info)),
                false => self.others.iter().any(|rule| rule.matches(info)),
            }
    }
}

impl Subject {
    fn is(&self, user: &User) -> bool {
        match self {
            Subject::User(name) => name == "*" || *name == user.name,
            Subject::Group(name) => name == "*" || user.in_group(name),
            Subject::Account(namespace, name) => split_account(&user.name)
                .is_some_and(|(own, account)| own == namespace && (name == "*" || account == name)),
        }
    }
}

impl Resources {
    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = match info.subresource.as_str() {
            "" => has(&self.resources, &info.resource),
            sub => has(&self.resources, &format!("{}/{sub}", info.resource)),
        };
        let place = match info.namespace.as_str() {
            "" => self.cluster,
            namespace => has(&self.namespaces, namespace),
        };
        place && resource && has(&self.verbs, info.verb) && has(&self.groups, &info.group)
    }
}

impl Others {
    fn matches(&self, info: &RequestInfo) -> bool {
        let is = |path: &String| {
            let below = path.trim_end_matches('*').trim_end_matches('/');
            let rest = info.path.strip_prefix(below);
            path == "*" || *path == info.path || rest.is_some_and(|rest| rest.starts_with('/'))
        };
        has(&self.verbs, info.verb) && self.paths.iter().any(is)
    }
}
