//! The file of `--authentication-config`: who issues tokens, and where nobody may ask
//! (apiserver.config.k8s.io `AuthenticationConfiguration`, `pkg/apis/apiserver/validation`).

use std::collections::BTreeSet;

use api::nullable::nullable;
use serde::Deserialize;

use super::anonymous::Anonymous;
use super::jwt::{Issuer, IssuerFile};
use crate::config_file::{ConfigFile, told};

/// Why a configuration cannot be used: each fault with its field.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigurationError(String);

/// What a file says.
#[derive(Debug, Default)]
pub struct Configuration {
    pub(super) issuers: Vec<Issuer>,
    /// None: as the flag says.
    pub(super) anonymous: Option<Anonymous>,
}

const ISSUERS_MAX: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    jwt: Vec<IssuerFile>,
    anonymous: Option<AnonymousFile>,
}

impl ConfigFile for File {
    const KIND: &'static str = "AuthenticationConfiguration";

    fn head(&self) -> (&str, &str) {
        (&self.api_version, &self.kind)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnonymousFile {
    #[serde(default)]
    enabled: bool,
    #[serde(default, deserialize_with = "nullable")]
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
}

impl Configuration {
    /// Reads a file. `own` are the issuers of service account tokens, whose tokens nobody else issues.
    pub fn parse(text: &str, own: &[&str]) -> Result<Configuration, ConfigurationError> {
        Configuration::of(File::read(text).map_err(ConfigurationError)?, own)
    }

    fn of(file: File, own: &[&str]) -> Result<Configuration, ConfigurationError> {
        let mut faults = Vec::new();
        if file.jwt.len() > ISSUERS_MAX {
            let told =
                format!("jwt: Too many: {}: must have at most {ISSUERS_MAX} items", file.jwt.len());
            return Err(ConfigurationError(told));
        }
        let (mut urls, mut documents) = (BTreeSet::new(), BTreeSet::new());
        let mut issuers = Vec::new();
        for (index, issuer) in file.jwt.into_iter().enumerate() {
            let path = format!("jwt[{index}]");
            let (url, document) = issuer.urls();
            if !urls.insert(url.clone()) {
                faults.push(format!("{path}.issuer.url: Duplicate value: {url:?}"));
            }
            if !document.is_empty() && !documents.insert(document.clone()) {
                faults.push(format!("{path}.issuer.discoveryURL: Duplicate value: {document:?}"));
            }
            issuers.extend(Issuer::new(issuer, &path, own, &mut faults));
        }
        let anonymous = file.anonymous.map(|anonymous| anonymous.checked(&mut faults));
        match told(&faults) {
            None => Ok(Configuration { issuers, anonymous }),
            Some(faults) => Err(ConfigurationError(faults)),
        }
    }

    /// Whether the file says where nobody may ask.
    pub fn has_anonymous(&self) -> bool {
        self.anonymous.is_some()
    }
}

impl AnonymousFile {
    fn checked(self, faults: &mut Vec<String>) -> Anonymous {
        let paths: Vec<String> =
            self.conditions.into_iter().map(|condition| condition.path).collect();
        match (self.enabled, paths.is_empty()) {
            (true, true) => Anonymous::Everywhere,
            (true, false) => Anonymous::At(paths),
            (false, true) => Anonymous::Nowhere,
            (false, false) => {
                let why = "enabled should be set to true when conditions are defined";
                faults.push(format!("anonymous.conditions: Invalid value: {paths:?}: {why}"));
                Anonymous::Nowhere
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

    fn refused(text: &str) -> String {
        let own = ["https://kubernetes.default.svc"];
        Configuration::parse(&format!("{HEAD}{text}"), &own).expect_err("refused").to_string()
    }

    #[test]
    fn anonymous_requests_are_limited_to_paths() {
        let text = format!("{HEAD}anonymous: {{enabled: true, conditions: [{{path: /livez}}]}}");
        let read = Configuration::parse(&text, &[]).expect("read");
        let anonymous = read.anonymous.expect("said");
        assert!(anonymous.allows("/livez") && !anonymous.allows("/livez/ping"));
        assert_eq!(
            refused("anonymous: {enabled: false, conditions: [{path: /livez}]}"),
            r#"anonymous.conditions: Invalid value: ["/livez"]: enabled should be set to true when conditions are defined"#
        );
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        assert_eq!(
            Configuration::parse("", &[]).expect_err("empty").to_string(),
            "empty config data"
        );
        let other = Configuration::parse("apiVersion: v1\nkind: Pod", &[]).expect_err("refused");
        assert_eq!(other.to_string(), r#"no kind "Pod" is registered for version "v1""#);
        assert!(refused("jwts: []").contains("unknown field `jwts`"));
    }

    #[test]
    fn issuers_are_checked_field_by_field() {
        let issuer = |issuer: &str, rest: &str| format!("jwt: [{{issuer: {{{issuer}}}, {rest}}}]");
        let good = "url: 'https://a', audiences: [x]";
        let mapped = "claimMappings: {username: {claim: sub, prefix: ''}}";
        let cases = [
            (issuer("audiences: [x]", mapped), "jwt[0].issuer.url: Required value"),
            (issuer("url: 'http://a', audiences: [x]", mapped), "URL scheme must be https"),
            (
                issuer("url: 'https://u:p@a', audiences: [x]", mapped),
                "must not contain a username or password",
            ),
            (issuer("url: 'https://a?b=c', audiences: [x]", mapped), "must not contain a query"),
            (issuer("url: 'https://a#b', audiences: [x]", mapped), "must not contain a fragment"),
            (
                issuer("url: 'https://kubernetes.default.svc', audiences: [x]", mapped),
                "must not overlap with disallowed issuers",
            ),
            (
                issuer("url: 'https://a', discoveryURL: 'https://a/', audiences: [x]", mapped),
                "discoveryURL must be different from URL",
            ),
            (
                issuer("url: 'https://a'", mapped),
                "jwt[0].issuer.audiences: Required value: at least one",
            ),
            (
                issuer(
                    "url: 'https://a', audiences: [x, x], audienceMatchPolicy: MatchAny",
                    mapped,
                ),
                "audiences[1]: Duplicate value: \"x\"",
            ),
            (
                issuer("url: 'https://a', audiences: [x, y]", mapped),
                "audienceMatchPolicy must be MatchAny for multiple audiences",
            ),
            (
                issuer("url: 'https://a', audiences: [x], audienceMatchPolicy: All", mapped),
                "must be empty or MatchAny for single audience",
            ),
            (
                issuer("url: 'https://a', audiences: [x], certificateAuthority: y", mapped),
                "certificateAuthority: Invalid value: \"<omitted>\"",
            ),
            (
                issuer("url: 'https://a', audiences: [x], egressSelectorType: moon", mapped),
                "egress selector must be either controlplane or cluster",
            ),
            (
                issuer(good, "claimMappings: {}"),
                "claimMappings.username: Required value: claim or expression is required",
            ),
            (
                issuer(good, "claimMappings: {username: {claim: sub}}"),
                "username.prefix: Required value: prefix is required when claim is set",
            ),
            (
                issuer(good, "claimMappings: {username: {claim: sub, expression: claims.sub}}"),
                "claim and expression can't both be set",
            ),
            (
                issuer(good, "claimMappings: {username: {expression: claims.sub, prefix: x}}"),
                "prefix: Invalid value: \"x\": may not be specified when expression is set",
            ),
            (
                issuer(good, "claimMappings: {username: {expression: 'claims.'}}"),
                "username.expression: Invalid value: \"claims.\": compilation failed",
            ),
            (
                issuer(good, "claimMappings: {username: {expression: claims.email}}"),
                "claims.email_verified must be used",
            ),
            (
                issuer(good, &format!("{mapped}, claimValidationRules: [{{}}]")),
                "claimValidationRules[0]: Required value: claim or expression is required",
            ),
            (
                issuer(
                    good,
                    &format!("{mapped}, claimValidationRules: [{{claim: a, message: b}}]"),
                ),
                "message: Invalid value: \"b\": may not be specified when claim is set",
            ),
            (
                issuer(
                    good,
                    &format!("{mapped}, claimValidationRules: [{{claim: a}}, {{claim: a}}]"),
                ),
                "claimValidationRules[1].claim: Duplicate value",
            ),
            (
                issuer(good, &format!("{mapped}, claimValidationRules: [{{expression: '1'}}]")),
                "must evaluate to bool",
            ),
            (
                issuer(good, &format!("{mapped}, userValidationRules: [{{}}]")),
                "userValidationRules[0].expression: Required value",
            ),
            (
                issuer(
                    good,
                    &format!("{mapped}, userValidationRules: [{{expression: user.name}}]"),
                ),
                "undefined field 'name'",
            ),
            (
                issuer(
                    good,
                    "claimMappings: {username: {claim: s, prefix: ''}, extra: [{key: a, valueExpression: '\"b\"'}]}",
                ),
                "extra[0].key: Invalid value: \"a\"",
            ),
            (
                issuer(
                    good,
                    "claimMappings: {username: {claim: s, prefix: ''}, extra: [{key: x.k8s.io/a, valueExpression: '\"b\"'}]}",
                ),
                "are reserved for Kubernetes use",
            ),
            (
                issuer(
                    good,
                    "claimMappings: {username: {claim: s, prefix: ''}, extra: [{key: a.io/B, valueExpression: '\"b\"'}]}",
                ),
                "must be lowercase",
            ),
            (
                issuer(
                    good,
                    "claimMappings: {username: {claim: s, prefix: ''}, extra: [{key: a.io/b}]}",
                ),
                "valueExpression: Required value",
            ),
            (
                issuer(
                    good,
                    "claimMappings: {username: {claim: s, prefix: ''}, uid: {claim: a, expression: b}}",
                ),
                "claimMappings.uid: Invalid value",
            ),
        ];
        for (text, part) in cases {
            let told = refused(&text);
            assert!(told.contains(part), "{part}\nis not in\n{told}");
        }
        let twice =
            format!("jwt: [{{issuer: {{{good}}}, {mapped}}}, {{issuer: {{{good}}}, {mapped}}}]");
        assert_eq!(refused(&twice), "jwt[1].issuer.url: Duplicate value: \"https://a\"");
    }
}
