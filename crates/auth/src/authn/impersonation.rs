//! `Impersonate-*` headers: a request on behalf of somebody else, for those who may.
//!
//! Rule: `endpoints/filters/impersonation` of v1.36. The constrained modes are asked first, each with
//! a right on the request itself besides those on the user; then the one of old, which gives
//! everything the other user has. A header that cannot be read is refused: to ignore one would run
//! the request as somebody it was not meant for.

use std::collections::BTreeMap;

use api::Status;
use http::{HeaderMap, HeaderName};

use crate::authz::{Attributes, forbidden, refusal};
use crate::user::{
    ANONYMOUS, AUTHENTICATED, MASTERS, NODE_PREFIX, NODES, UNAUTHENTICATED, User, account_groups,
    is_subdomain, split_account,
};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// From so many values on, one right for all of them is asked for first.
const MANY: usize = 4;

/// Whether somebody has a right.
pub type Check<'a> = &'a dyn Fn(&User, &Attributes<'_>) -> Result<(), Status>;

/// Takes the headers out, and reads whom they name.
pub fn take(headers: &mut HeaderMap) -> Result<Option<User>, Status> {
    let wanted = wanted(headers)?;
    let own = |name: &&HeaderName| {
        let name = name.as_str();
        [USER, UID, GROUP].contains(&name) || name.starts_with(EXTRA)
    };
    let all: Vec<HeaderName> = headers.keys().filter(own).cloned().collect();
    if all.is_empty() {
        return Ok(None);
    }
    all.iter().for_each(|name| drop(headers.remove(name)));
    if wanted.name.is_empty() {
        let told = go_syntax(&wanted);
        let message = format!("requested {told} without impersonating a user name");
        return Err(Status::bad_request(message));
    }
    Ok(Some(wanted))
}

fn wanted(headers: &HeaderMap) -> Result<User, Status> {
    let all = |name: &str| -> Result<Vec<String>, Status> {
        let values = headers.get_all(name).iter();
        values.map(|value| text(name, value.as_bytes())).collect()
    };
    let first = |name| Ok::<_, Status>(all(name)?.into_iter().next().unwrap_or_default());
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys().filter(|name| name.as_str().starts_with(EXTRA)) {
        let key = unescape(&name.as_str()[EXTRA.len()..]);
        extra.entry(key).or_default().extend(all(name.as_str())?);
    }
    Ok(User { name: first(USER)?, uid: first(UID)?, groups: all(GROUP)?, extra })
}

fn text(name: &str, value: &[u8]) -> Result<String, Status> {
    let read = String::from_utf8(value.to_vec());
    read.map_err(|_| Status::bad_request(format!("the value of header {name:?} is not UTF-8")))
}

/// Decodes `%xx`; what is malformed stays as it is.
pub(super) fn unescape(key: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = key.as_bytes();
    while let [first, after @ ..] = rest {
        let Some(byte) = (*first == b'%').then(|| after.get(..2)) else {
            bytes.push(*first);
            rest = after;
            continue;
        };
        let hex = byte.and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = hex.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(byte) = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok()) else {
            return key.to_owned();
        };
        bytes.push(byte);
        rest = &after[2..];
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

/// A user as Go writes it (`%#v`).
fn go_syntax(user: &User) -> String {
    let list = |list: &[String]| {
        let all: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
        format!("[]string{{{}}}", all.join(", "))
    };
    let groups = match user.groups.as_slice() {
        [] => "[]string(nil)".to_owned(),
        groups => list(groups),
    };
    let pairs = user.extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values)));
    let extra = match user.extra.is_empty() {
        true => "map[string][]string(nil)".to_owned(),
        false => format!("map[string][]string{{{}}}", pairs.collect::<Vec<_>>().join(", ")),
    };
    format!(
        "&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:{extra}}}",
        user.name, user.uid
    )
}

/// The user that the request goes on as; otherwise the first refusal.
pub fn become_user(
    requester: &User,
    wanted: &User,
    request: &Attributes<'_>,
    check: Check<'_>,
) -> Result<User, Status> {
    let mut first = None;
    for mode in MODES.into_iter().filter(|mode| mode.applies(wanted, requester)) {
        match (Attempt { mode, requester, wanted, check }).run(request) {
            Ok(user) => return Ok(user),
            Err(status) => first = first.or(Some(status)),
        }
    }
    Err(first.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
}

/// A way to be somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

/// The name of a node, when the user name is that of one.
fn node_of(user: &str) -> Option<&str> {
    user.strip_prefix(NODE_PREFIX).filter(|name| is_subdomain(name))
}

impl Mode {
    fn applies(self, wanted: &User, requester: &User) -> bool {
        let bare = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (node_of(&wanted.name), split_account(&wanted.name));
        match self {
            Mode::AssociatedNode => {
                let own = requester.extra.get(NODE_NAME).map(Vec::as_slice);
                let own = own.filter(|_| split_account(&requester.name).is_some());
                bare && matches!((own, node), (Some([own]), Some(node)) if own == node)
            }
            Mode::ArbitraryNode => bare && node.is_some(),
            Mode::ServiceAccount => bare && account.is_some(),
            Mode::UserInfo => node.is_none() && account.is_none(),
            Mode::Legacy => true,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Legacy => "",
        }
    }

    fn verb(self) -> String {
        match self {
            Mode::Legacy => "impersonate".to_owned(),
            _ => format!("impersonate:{}", self.name()),
        }
    }
}

struct Attempt<'a> {
    mode: Mode,
    requester: &'a User,
    wanted: &'a User,
    check: Check<'a>,
}

impl Attempt<'_> {
    fn run(&self, request: &Attributes<'_>) -> Result<User, Status> {
        if self.is_constrained() {
            let verb = format!("impersonate-on:{}:{}", self.mode.name(), request.verb);
            self.require(&Attributes { verb: &verb, ..*request })?;
        }
        let verb = self.mode.verb();
        let group = if self.is_constrained() { AUTHENTICATION } else { "" };
        let named = Attributes { verb: &verb, group, ..Attributes::default() };
        let mut user = self.wanted.clone();
        self.name(&named, &mut user)?;
        let own = Attributes { group: AUTHENTICATION, ..named };
        if !self.wanted.uid.is_empty() {
            self.require(&Attributes { resource: "uids", name: &self.wanted.uid, ..own })?;
        }
        self.groups(&Attributes { resource: "groups", ..named })?;
        self.extra(&Attributes { resource: "userextras", ..own })?;
        if user.name == ANONYMOUS {
            user.join(UNAUTHENTICATED);
        } else if !user.in_group(UNAUTHENTICATED) {
            user.join(AUTHENTICATED);
        }
        Ok(user)
    }

    fn is_constrained(&self) -> bool {
        self.mode != Mode::Legacy
    }

    fn require(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        (self.check)(self.requester, attributes)
    }

    fn forbid(&self, attributes: &Attributes<'_>, why: &str) -> Result<(), Status> {
        Err(forbidden(attributes, &refusal(self.requester, attributes, why)))
    }

    /// The right to the name; nodes and accounts have groups that follow from it.
    fn name(&self, named: &Attributes<'_>, user: &mut User) -> Result<(), Status> {
        let wanted = &self.wanted.name;
        let mut asked = Attributes { resource: "users", name: wanted, ..*named };
        if let Some(node) = node_of(wanted).filter(|_| self.is_constrained()) {
            asked.resource = "nodes";
            // Whoever may be the node it runs on may be each.
            asked.name = if self.mode == Mode::AssociatedNode { "*" } else { node };
            user.groups = vec![NODES.to_owned()];
        }
        if let Some((namespace, name)) = split_account(wanted) {
            asked = Attributes { resource: "serviceaccounts", namespace, name, ..asked };
            if self.wanted.groups.is_empty() {
                user.groups = account_groups(namespace);
            }
        }
        self.require(&asked)
    }

    fn groups(&self, asked: &Attributes<'_>) -> Result<(), Status> {
        let groups = &self.wanted.groups;
        if self.is_constrained() {
            if groups.iter().any(String::is_empty) {
                return self.forbid(asked, "impersonating the empty string group is not allowed");
            }
            if groups.iter().any(|group| group == MASTERS) {
                let asked = Attributes { name: MASTERS, ..*asked };
                return self
                    .forbid(&asked, "impersonating the system:masters group is not allowed");
            }
            let all = Attributes { name: "*", ..*asked };
            if groups.len() >= MANY && self.require(&all).is_ok() {
                return Ok(());
            }
        }
        groups.iter().try_for_each(|group| self.require(&Attributes { name: group, ..*asked }))
    }

    fn extra(&self, asked: &Attributes<'_>) -> Result<(), Status> {
        let extra = &self.wanted.extra;
        if self.is_constrained() {
            if let Some(why) = extra.iter().find_map(|(key, values)| fault(key, values)) {
                return self.forbid(asked, &why);
            }
            let many = extra.len() >= MANY || extra.values().map(Vec::len).sum::<usize>() >= MANY;
            let all = Attributes { subresource: "*", name: "*", ..*asked };
            if many && self.require(&all).is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.require(&Attributes { subresource: key, name: value, ..*asked })?;
            }
        }
        Ok(())
    }
}

/// Why a constrained mode refuses an extra value.
fn fault(key: &str, values: &[String]) -> Option<String> {
    let told = |why: &str| Some(format!("impersonating {why}"));
    if key.is_empty() {
        return told("the empty string key in extra is not allowed");
    }
    if let Some(why) = path_fault(key) {
        return told(&format!("an invalid key in extra is not allowed: extra.key: {why}"));
    }
    if key != key.to_lowercase() {
        return told(&format!("a non-lowercase key in extra is not allowed: {key:?}"));
    }
    if values.is_empty() {
        return told("empty values in extra is not allowed");
    }
    let blank = values.iter().any(String::is_empty);
    if blank { told("the empty string value in extra is not allowed") } else { None }
}

/// A key is a domain and a path.
pub(super) fn path_fault(key: &str) -> Option<String> {
    let invalid = |value: &str, why: &str| Some(format!("Invalid value: {value:?}: {why}"));
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    if host.is_empty() || path.is_empty() {
        return invalid(key, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    }
    if !is_subdomain(host) {
        let why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        return invalid(host, why);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    if !path.chars().all(allowed) {
        let why = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        return invalid(path, why);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unescaped_unless_malformed() {
        assert_eq!(unescape("acme.com%2fproject"), "acme.com/project");
        for as_it_is in ["a%2", "a%zz", "a%ff", "a+b", "%+1"] {
            assert_eq!(unescape(as_it_is), as_it_is);
        }
    }

    #[test]
    fn companions_without_a_user_are_told() {
        let mut headers = HeaderMap::new();
        headers.insert("impersonate-group", "g".parse().expect("a value"));
        headers.insert("impersonate-extra-k", "v".parse().expect("a value"));
        let refused = take(&mut headers).expect_err("no user");
        let told = "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"g\"}, Extra:map[string][]string{\"k\":[]string{\"v\"}}} without impersonating a user name";
        assert_eq!((refused.code, refused.message.as_str()), (400, told));
        assert!(headers.is_empty());
        assert_eq!(take(&mut headers).map_err(|s| s.code), Ok(None));
    }
}
