//! The file of `--authorization-config`: which authorizers are asked, in order
//! (apiserver.config.k8s.io `AuthorizationConfiguration`, `pkg/apis/apiserver/validation`).

mod conditions;
#[cfg(test)]
mod tests;
mod webhook;

use std::collections::BTreeSet;

use api::nullable::nullable;
use serde::Deserialize;

pub(super) use conditions::Conditions;
use webhook::WebhookFile;

use crate::config_file::{ConfigFile, Faults, told};
pub use webhook::WebhookSettings;

/// Why a configuration cannot be used: each fault with its field.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct AuthorizationFault(String);

/// An authorizer as a file names it.
#[derive(Debug)]
pub enum AuthorizerType {
    AlwaysAllow,
    AlwaysDeny,
    Abac,
    Node,
    Rbac,
    Webhook { name: String, settings: Box<WebhookSettings> },
}

impl AuthorizerType {
    /// As files and flags name it.
    pub fn name(&self) -> &'static str {
        match self {
            AuthorizerType::AlwaysAllow => "AlwaysAllow",
            AuthorizerType::AlwaysDeny => "AlwaysDeny",
            AuthorizerType::Abac => "ABAC",
            AuthorizerType::Node => "Node",
            AuthorizerType::Rbac => "RBAC",
            AuthorizerType::Webhook { .. } => "Webhook",
        }
    }
}

/// What a file says: its authorizers, in order.
#[derive(Debug)]
pub struct AuthorizationConfiguration(pub Vec<AuthorizerType>);

const TYPES: &str = r#""ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook""#;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    authorizers: Vec<AuthorizerFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorizerFile {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<WebhookFile>,
}

impl ConfigFile for File {
    const KIND: &'static str = "AuthorizationConfiguration";

    fn head(&self) -> (&str, &str) {
        (&self.api_version, &self.kind)
    }
}

impl AuthorizationConfiguration {
    /// Reads a file. `required` are the types without which it is refused: those that a file named which
    /// it takes the place of.
    pub fn parse(text: &str, required: &[&str]) -> Result<Self, AuthorizationFault> {
        let file = File::read(text).map_err(|why| {
            AuthorizationFault(format!(
                "failed to load AuthorizationConfiguration from file: {why}"
            ))
        })?;
        let read = AuthorizationConfiguration::of(file)?;
        read.check_names(required)
    }

    fn of(file: File) -> Result<Self, AuthorizationFault> {
        let mut list = Vec::new();
        let mut faults = Faults(&mut list);
        if file.authorizers.is_empty() {
            faults.required("authorizers", "at least one authorization mode must be defined");
        }
        let mut seen = Seen::default();
        let mut all = Vec::new();
        for (index, authorizer) in file.authorizers.into_iter().enumerate() {
            let at = format!("authorizers[{index}]");
            all.extend(authorizer.check(&at, &mut seen, &mut faults));
        }
        match told(&list) {
            None => Ok(AuthorizationConfiguration(all)),
            Some(faults) => Err(AuthorizationFault(faults)),
        }
    }

    fn check_names(self, required: &[&str]) -> Result<Self, AuthorizationFault> {
        let named: BTreeSet<&str> = self.0.iter().map(AuthorizerType::name).collect();
        let missing: Vec<&str> =
            required.iter().copied().filter(|one| !named.contains(one)).collect();
        match missing.as_slice() {
            [] => Ok(self),
            missing => {
                let told = format!("missing required types: [{}]", missing.join(" "));
                Err(AuthorizationFault(told))
            }
        }
    }
}

#[derive(Default)]
struct Seen {
    types: BTreeSet<String>,
    names: BTreeSet<String>,
}

impl AuthorizerFile {
    fn check(self, at: &str, seen: &mut Seen, faults: &mut Faults<'_>) -> Option<AuthorizerType> {
        let type_at = format!("{at}.type");
        let is_webhook = self.kind == "Webhook";
        if self.kind.is_empty() {
            faults.required(&type_at, "");
            return None;
        }
        let simple = simple(&self.kind);
        if simple.is_none() && !is_webhook {
            faults.unsupported(&type_at, &self.kind, TYPES);
            return None;
        }
        if !seen.types.insert(self.kind.clone()) && !is_webhook {
            faults.duplicate(&type_at, &self.kind);
            return None;
        }
        self.check_name(at, seen, faults);
        let place = format!("{at}.webhook");
        match (simple, self.webhook) {
            (Some(simple), None) => Some(simple),
            (Some(_), Some(_)) => {
                faults.invalid(&place, "non-null", "may only be specified when type=Webhook");
                None
            }
            (None, None) => {
                faults.required(&place, "required when type=Webhook");
                None
            }
            (None, Some(webhook)) => {
                let settings = Box::new(webhook.check(at, faults)?);
                Some(AuthorizerType::Webhook { name: self.name, settings })
            }
        }
    }

    fn check_name(&self, at: &str, seen: &mut Seen, faults: &mut Faults<'_>) {
        let place = format!("{at}.name");
        let wrong = api::names::dns_subdomain(&self.name);
        if self.name.is_empty() {
            faults.required(&place, "");
        } else if seen.names.contains(&self.name) {
            faults.duplicate(&place, &self.name);
        } else if !wrong.is_empty() {
            let why = format!("authorizer name is invalid: {}", wrong.join(", "));
            faults.invalid(&place, &self.name, &why);
        } else if self.kind != "Webhook" && self.name != self.kind.to_lowercase() {
            let (expected, kind, name) = (self.kind.to_lowercase(), &self.kind, &self.name);
            faults
                .0
                .push(format!("expected name {expected} for authorizer {kind} instead of {name}"));
        }
        seen.names.insert(self.name.clone());
    }
}

fn simple(kind: &str) -> Option<AuthorizerType> {
    Some(match kind {
        "AlwaysAllow" => AuthorizerType::AlwaysAllow,
        "AlwaysDeny" => AuthorizerType::AlwaysDeny,
        "ABAC" => AuthorizerType::Abac,
        "Node" => AuthorizerType::Node,
        "RBAC" => AuthorizerType::Rbac,
        _ => return None,
    })
}
