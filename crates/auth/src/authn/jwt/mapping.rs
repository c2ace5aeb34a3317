//! From claims to a user: names of claims, or expressions over them
//! (apiserver `pkg/authentication/cel`, `plugin/pkg/authenticator/token/oidc`).

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use cel::{
    Decl, Env, Field, ListKind, Objects, PER_CALL_LIMIT, Program, Scalar, Type, Value as Cel,
};
use serde_json::{Value, json};

use super::token::Claims;
use crate::user::User;

/// A compiled expression over `claims` or `user`.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) text: String,
    program: Program,
    over: &'static Over,
    uses_email: bool,
    uses_email_verified: bool,
}

/// What an expression is about.
#[derive(Debug)]
pub(super) struct Over {
    env: Env,
    decl: Decl,
}

const MANY: u64 = cel::REQUEST_MAX;

pub(super) static CLAIMS: LazyLock<Over> = LazyLock::new(|| {
    let decl = Decl::map(Decl::scalar(Scalar::Any, MANY, 1), MANY);
    let env = Env::new(Arc::new(Objects::default())).with("claims", decl.ty.clone());
    Over { env, decl }
});

pub(super) static USER: LazyLock<Over> = LazyLock::new(|| {
    let text = || Decl::scalar(Scalar::String, MANY, 2);
    let texts = || Decl::list(text(), ListKind::Atomic, MANY);
    let fields = [
        ("username", text()),
        ("uid", text()),
        ("groups", texts()),
        ("extra", Decl::map(texts(), MANY)),
    ];
    let fields =
        fields.map(|(name, decl)| (name.into(), Field { name: name.into(), decl: Arc::new(decl) }));
    let decl = Decl::object("kubernetes.UserInfo", BTreeMap::from(fields), 2);
    let env = Env::new(Arc::new(Objects::of(&decl))).with("user", decl.ty.clone());
    Over { env, decl }
});

impl Expression {
    /// Compiles; the error is upstream's detail of the field.
    pub(super) fn new(
        text: &str,
        over: &'static Over,
        must_be_bool: bool,
    ) -> Result<Expression, String> {
        let compiled =
            over.env.compile(text).map_err(|issues| format!("compilation failed: {issues}"))?;
        if must_be_bool && *compiled.output() != Type::Bool {
            return Err("must evaluate to bool".into());
        }
        let program =
            compiled.program().map_err(|e| format!("program instantiation failed: {e}"))?;
        let uses = |claim| compiled.selects("claims", claim);
        Ok(Expression {
            text: text.to_owned(),
            uses_email: uses("email"),
            uses_email_verified: uses("email_verified"),
            program,
            over,
        })
    }

    pub(super) fn uses_email(&self) -> bool {
        self.uses_email
    }

    pub(super) fn uses_email_verified(&self) -> bool {
        self.uses_email_verified
    }

    fn run<T>(&self, about: &Value, read: impl FnOnce(&Cel<'_>) -> T) -> Result<T, String> {
        let bound = Cel::of_json(about, &self.over.decl);
        let outcome = self.program.run(vec![Some(bound)], PER_CALL_LIMIT);
        let value = outcome
            .value
            .map_err(|e| format!("expression '{}' resulted in error: {e}", self.text))?;
        Ok(read(&value))
    }

    pub(super) fn text(&self, about: &Value) -> Result<Option<String>, String> {
        self.run(about, |value| value.as_text().map(str::to_owned))
    }

    /// A text, a list of texts, or nothing; blank ones are left out.
    pub(super) fn texts(&self, about: &Value) -> Result<Vec<String>, String> {
        let texts = self.run(about, |value| match value {
            Cel::Null => Some(Vec::new()),
            Cel::String(text) => Some(vec![text.to_string()]),
            Cel::List(list) => list.texts(),
            _ => None,
        })?;
        let mut texts = texts.ok_or("expression must return a string or a list of strings")?;
        texts.retain(|text| !text.is_empty());
        Ok(texts)
    }

    /// Whether a rule holds; the message is the rule's.
    pub(super) fn check(&self, about: &Value, message: &str) -> Result<(), String> {
        match self.run(about, |value| matches!(value, Cel::Bool(true)))? {
            true => Ok(()),
            false => Err(format!("validation expression '{}' failed: {message}", self.text)),
        }
    }
}

/// Where a part of the user comes from.
#[derive(Debug)]
pub(super) enum Source {
    Claim { name: String, prefix: String },
    Expression(Expression),
}

impl Source {
    pub(super) fn username(&self, claims: &Claims, tree: &Value) -> Result<String, String> {
        match self {
            Source::Claim { name, prefix } => {
                let parse = |why: &str| format!("oidc: parse username claims {name:?}: {why}");
                let value = claims.get(name).ok_or_else(|| parse("claim not present"))?;
                let value = value.as_str().ok_or_else(|| parse("not a string"))?;
                if name == "email" {
                    check_email(claims)?;
                }
                Ok(format!("{prefix}{value}"))
            }
            Source::Expression(expression) => {
                let wrong = |why: String| {
                    format!("oidc: error evaluating username claim expression: {why}")
                };
                let text = expression.text(tree).map_err(wrong)?;
                let text = text.ok_or_else(|| {
                    wrong("username claim expression must return a string".into())
                })?;
                match text.is_empty() {
                    true => Err("oidc: empty username via CEL expression is not allowed".into()),
                    false => Ok(text),
                }
            }
        }
    }

    pub(super) fn groups(&self, claims: &Claims, tree: &Value) -> Result<Vec<String>, String> {
        match self {
            Source::Claim { name, prefix } => match claims.get(name) {
                None => Ok(Vec::new()),
                Some(Value::String(one)) => Ok(vec![format!("{prefix}{one}")]),
                Some(Value::Array(all)) => {
                    let text =
                        |value: &Value| value.as_str().map(|group| format!("{prefix}{group}"));
                    let groups = all.iter().map(text).collect::<Option<Vec<String>>>();
                    groups.ok_or_else(|| {
                        format!("oidc: parse groups claim {name:?}: not a list of strings")
                    })
                }
                Some(_) => Err(format!("oidc: parse groups claim {name:?}: not a string")),
            },
            Source::Expression(expression) => expression
                .texts(tree)
                .map_err(|why| format!("oidc: error evaluating group claim expression: {why}")),
        }
    }

    pub(super) fn uid(&self, claims: &Claims, tree: &Value) -> Result<String, String> {
        match self {
            Source::Claim { name, .. } => {
                let found = claims.get(name).and_then(Value::as_str);
                found
                    .map(str::to_owned)
                    .ok_or_else(|| format!("oidc: parse uid claim {name:?}: claim not present"))
            }
            Source::Expression(expression) => {
                let wrong =
                    |why: String| format!("oidc: error evaluating uid claim expression: {why}");
                let text = expression.text(tree).map_err(wrong)?;
                text.ok_or_else(|| wrong("uid claim expression must return a string".into()))
            }
        }
    }
}

/// An address that its issuer did not verify is nobody's name.
fn check_email(claims: &Claims) -> Result<(), String> {
    match claims.get("email_verified") {
        None | Some(Value::Bool(true)) => Ok(()),
        Some(Value::Bool(false)) => Err("oidc: email not verified".into()),
        Some(_) => Err("oidc: parse 'email_verified' claim: not a boolean".into()),
    }
}

/// The user as rules see it.
pub(super) fn user_tree(user: &User) -> Value {
    json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra})
}
