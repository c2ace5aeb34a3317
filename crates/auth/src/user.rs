//! Who asks.

use std::collections::BTreeMap;

/// The group that may do everything: the server's own parts, and administrators of the first hour.
pub const MASTERS: &str = "system:masters";
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
pub(crate) const ANONYMOUS: &str = "system:anonymous";
pub(crate) const NODES: &str = "system:nodes";
/// What the user names of kubelets begin with.
pub(crate) const NODE_PREFIX: &str = "system:node:";
/// What the user names of service accounts begin with.
pub(crate) const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// The groups of all service accounts; those of a namespace are in one of their own as well.
pub(crate) const ACCOUNTS: &str = "system:serviceaccounts";

/// An authenticated requester.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub fn new(name: &str, groups: &[&str]) -> User {
        User {
            name: name.to_owned(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..User::default()
        }
    }

    /// The loopback identity of the server's own parts.
    pub fn system_masters(name: &str) -> User {
        User::new(name, &[MASTERS, AUTHENTICATED])
    }

    pub fn anonymous() -> User {
        User::new(ANONYMOUS, &[UNAUTHENTICATED])
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node's name, for kubelets; blank when the user name ends too early.
    pub fn node(&self) -> Option<&str> {
        self.name.strip_prefix(NODE_PREFIX).filter(|_| self.in_group(NODES))
    }

    pub fn join(&mut self, group: &str) {
        if !self.in_group(group) {
            self.groups.push(group.to_owned());
        }
    }
}

/// The groups that every account of a namespace is in.
pub fn account_groups(namespace: &str) -> Vec<String> {
    vec![ACCOUNTS.to_owned(), format!("{ACCOUNTS}:{namespace}")]
}

/// The user name of a service account.
pub fn account_name(namespace: &str, name: &str) -> String {
    format!("{ACCOUNT_PREFIX}{namespace}:{name}")
}

/// Namespace and name of a service account, when the user name is that of one.
pub fn split_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
    (is_label(namespace) && is_subdomain(name)).then_some((namespace, name))
}

/// A name of a node or a service account (RFC 1123 subdomain).
pub fn is_subdomain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.split('.').all(is_part)
}

/// A namespace's name (RFC 1123 label).
fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

fn is_part(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let (first, last) = (text.bytes().next(), text.bytes().next_back());
    text.bytes().all(inner) && first.is_some_and(|b| b != b'-') && last != Some(b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_told_from_users_by_their_name() {
        assert_eq!(split_account("system:serviceaccount:a:b.c"), Some(("a", "b.c")));
        for other in ["a", "system:serviceaccount:a", "system:serviceaccount:a:b:c"] {
            assert_eq!(split_account(other), None, "{other}");
        }
        for other in ["system:serviceaccount::b", "system:serviceaccount:A:b"] {
            assert_eq!(split_account(other), None, "{other}");
        }
        assert_eq!(split_account("system:serviceaccount:a.b:c"), None);
    }
}
