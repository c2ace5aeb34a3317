//! Questions about rights (apiserver `pkg/cel/library/authz.go`). Who answers them is bound to a variable.

use std::fmt::Debug;
use std::sync::Arc;

use super::{Answer, Function};
use crate::error::Error;
use crate::value::Value;

/// Answers questions about rights: of who sent the request, or of a service account.
pub trait Authorize: Debug + Send + Sync {
    fn authorize(&self, question: &Question<'_>) -> Decision;
}

/// May somebody do something?
#[derive(Debug)]
pub struct Question<'q> {
    /// Namespace and name of a service account; the requester where there is none.
    pub account: Option<(&'q str, &'q str)>,
    pub verb: &'q str,
    pub target: Target<'q>,
}

#[derive(Debug)]
pub enum Target<'q> {
    Path(&'q str),
    Resource(&'q ResourceCheck),
}

/// The resource of a question. What is empty is not asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceCheck {
    pub group: Box<str>,
    pub resource: Box<str>,
    pub subresource: Box<str>,
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub field_selector: Box<str>,
    pub label_selector: Box<str>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    /// Why the question could not be answered; empty if it could.
    pub error: String,
}

/// Who is asked, about whom.
#[derive(Debug, Clone)]
pub struct Asker<'v> {
    authorizer: &'v dyn Authorize,
    account: Option<(Box<str>, Box<str>)>,
}

/// A value of the library's types.
#[derive(Debug, Clone)]
pub enum Authorization<'v> {
    Authorizer(Asker<'v>),
    Path(Asker<'v>, Box<str>),
    Group(Asker<'v>, Box<str>),
    Resource(Asker<'v>, ResourceCheck),
    Decision(Decision),
}

use Authorization::{Authorizer, Group, Path, Resource};

impl Authorization<'_> {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Authorizer(_) => "kubernetes.authorization.Authorizer",
            Path(..) => "kubernetes.authorization.PathCheck",
            Group(..) => "kubernetes.authorization.GroupCheck",
            Resource(..) => "kubernetes.authorization.ResourceCheck",
            Authorization::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}

impl<'v> Value<'v> {
    /// Who answers questions about the requester.
    pub fn authorizer(authorizer: &'v dyn Authorize) -> Value<'v> {
        of(Authorizer(Asker { authorizer, account: None }))
    }

    /// A question about a resource that still lacks its verb.
    pub fn resource_check(authorizer: &'v dyn Authorize, check: ResourceCheck) -> Value<'v> {
        of(Resource(Asker { authorizer, account: None }, check))
    }
}

fn of(value: Authorization<'_>) -> Value<'_> {
    Value::Authorization(Arc::new(value))
}

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "path" => path,
        "group" => group,
        "serviceAccount" => service_account,
        "resource" => resource,
        "subresource" => |args| narrowed(args, |check, text| check.subresource = text),
        "namespace" => |args| narrowed(args, |check, text| check.namespace = text),
        "name" => |args| narrowed(args, |check, text| check.name = text),
        "fieldSelector" => |args| narrowed(args, |check, text| check.field_selector = text),
        "labelSelector" => |args| narrowed(args, |check, text| check.label_selector = text),
        "check" => check,
        "errored" => |args| decision(args, |decision| Value::Bool(!decision.error.is_empty())),
        "error" => |args| decision(args, |decision| Value::text(&*decision.error)),
        "allowed" => |args| decision(args, |decision| Value::Bool(decision.allowed)),
        "reason" => |args| decision(args, |decision| Value::text(&*decision.reason)),
        _ => return None,
    })
}

/// The receiver and one text.
fn receiver<'a, 'v>(args: &'a [Value<'v>]) -> Option<(&'a Authorization<'v>, &'a str)> {
    match args {
        [Value::Authorization(value), Value::String(text)] => Some((value, text)),
        _ => None,
    }
}

fn path<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let (Authorizer(asker), path) = receiver(args)? else { return None };
    Some(match path.trim().is_empty() {
        true => Err(Error::new("path must not be empty")),
        false => Ok(of(Path(asker.clone(), path.into()))),
    })
}

fn group<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let (Authorizer(asker), group) = receiver(args)? else { return None };
    Some(Ok(of(Group(asker.clone(), group.into()))))
}

fn service_account<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let [Value::Authorization(value), Value::String(namespace), Value::String(name)] = args else {
        return None;
    };
    let Authorizer(asker) = &**value else { return None };
    if !api::names::dns_subdomain(name).is_empty() {
        return Some(Err(Error::new("Invalid service account name")));
    }
    if !api::names::dns_label(namespace).is_empty() {
        return Some(Err(Error::new("Invalid service account namespace")));
    }
    let account = Some(((&**namespace).into(), (&**name).into()));
    Some(Ok(of(Authorizer(Asker { account, ..asker.clone() }))))
}

fn resource<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let (Group(asker, group), resource) = receiver(args)? else { return None };
    if resource.trim().is_empty() {
        return Some(Err(Error::new("resource must not be empty")));
    }
    let (group, resource) = (group.clone(), resource.into());
    let check = ResourceCheck { group, resource, ..ResourceCheck::default() };
    Some(Ok(of(Resource(asker.clone(), check))))
}

fn narrowed<'v>(args: &[Value<'v>], narrow: fn(&mut ResourceCheck, Box<str>)) -> Answer<'v> {
    let (Resource(asker, check), text) = receiver(args)? else { return None };
    let mut check = check.clone();
    narrow(&mut check, text.into());
    Some(Ok(of(Resource(asker.clone(), check))))
}

fn check<'v>(args: &[Value<'v>]) -> Answer<'v> {
    let (value, verb) = receiver(args)?;
    let (asker, target) = match value {
        Path(asker, path) => (asker, Target::Path(path)),
        Resource(asker, check) => (asker, Target::Resource(check)),
        _ => return None,
    };
    let account = asker.account.as_ref().map(|(namespace, name)| (&**namespace, &**name));
    let decision = asker.authorizer.authorize(&Question { account, verb, target });
    Some(Ok(of(Authorization::Decision(decision))))
}

fn decision<'v>(args: &[Value<'v>], read: fn(&Decision) -> Value<'v>) -> Answer<'v> {
    let [Value::Authorization(value)] = args else { return None };
    let Authorization::Decision(decision) = &**value else { return None };
    Some(Ok(read(decision)))
}
