//! An issuer as a configuration writes it, and what is wrong with it
//! (apiserver `pkg/apis/apiserver/validation`).

use std::collections::BTreeSet;

use api::nullable::nullable;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use super::Issuer;
use super::mapping::{CLAIMS, Expression, Source, USER};
use super::provider::Provider;
use crate::authn::impersonation::path_fault;
use crate::config_file::Faults;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::authn) struct IssuerFile {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) issuer: Place,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) claim_validation_rules: Vec<ClaimRule>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) claim_mappings: Mappings,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) user_validation_rules: Vec<UserRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Place {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) url: String,
    #[serde(default, rename = "discoveryURL", deserialize_with = "nullable")]
    pub(super) discovery_url: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) certificate_authority: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) audiences: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) audience_match_policy: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) egress_selector_type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ClaimRule {
    #[serde(default, deserialize_with = "nullable")]
    claim: String,
    #[serde(default, deserialize_with = "nullable")]
    required_value: String,
    #[serde(default, deserialize_with = "nullable")]
    expression: String,
    #[serde(default, deserialize_with = "nullable")]
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mappings {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) username: Mapping,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) groups: Mapping,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) uid: Mapping,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) extra: Vec<Extra>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mapping {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) claim: String,
    pub(super) prefix: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) expression: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Extra {
    #[serde(default, deserialize_with = "nullable")]
    key: String,
    #[serde(default, deserialize_with = "nullable")]
    value_expression: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UserRule {
    #[serde(default, deserialize_with = "nullable")]
    expression: String,
    #[serde(default, deserialize_with = "nullable")]
    message: String,
}

impl Faults<'_> {
    fn compiled(
        &mut self,
        at: &str,
        text: &str,
        made: Result<Expression, String>,
    ) -> Option<Expression> {
        made.inspect_err(|why| self.invalid(at, text, why)).ok()
    }
}

impl IssuerFile {
    /// Address of the issuer and of its description.
    pub(in crate::authn) fn urls(&self) -> (String, String) {
        (self.issuer.url.clone(), self.issuer.discovery_url.clone())
    }

    /// The issuer, when nothing is wrong with it.
    pub(super) fn check(
        self,
        path: &str,
        own: &[&str],
        faults: &mut Vec<String>,
    ) -> Option<Issuer> {
        let before = faults.len();
        let mut told = Faults(faults);
        self.issuer.check(&format!("{path}.issuer"), own, &mut told);
        let mut required = Vec::new();
        let rules_path = format!("{path}.claimValidationRules");
        let claim_rules =
            claim_rules(self.claim_validation_rules, &rules_path, &mut required, &mut told);
        let mapped =
            self.claim_mappings.check(&format!("{path}.claimMappings"), &claim_rules, &mut told);
        let user_rules = user_rules(
            self.user_validation_rules,
            &format!("{path}.userValidationRules"),
            &mut told,
        );
        let (username, groups, uid, extra) = mapped;
        let Place { url, discovery_url, certificate_authority, audiences, .. } = self.issuer;
        (faults.len() == before).then_some(())?;
        Some(Issuer {
            provider: Provider::new(&url, &discovery_url, &certificate_authority),
            url,
            audiences,
            username: username?,
            groups,
            uid,
            extra,
            required,
            claim_rules,
            user_rules,
        })
    }
}

impl Place {
    fn check(&self, path: &str, own: &[&str], faults: &mut Faults<'_>) {
        let at = format!("{path}.url");
        match self.url.as_str() {
            "" => faults.required(&at, ""),
            url => check_url(url, own, &at, faults),
        }
        let at = format!("{path}.discoveryURL");
        if !self.discovery_url.is_empty() {
            let bare = |url: &str| url.trim_end_matches('/').to_owned();
            if !self.url.is_empty() && bare(&self.url) == bare(&self.discovery_url) {
                faults.invalid(&at, &self.discovery_url, "discoveryURL must be different from URL");
            }
            check_url(&self.discovery_url, &[], &at, faults);
        }
        self.check_audiences(path, faults);
        let authority =
            CertificateDer::pem_slice_iter(self.certificate_authority.as_bytes()).next();
        if !self.certificate_authority.is_empty() && !matches!(authority, Some(Ok(_))) {
            let why = "data does not contain any valid RSA or ECDSA certificates";
            faults.invalid(&format!("{path}.certificateAuthority"), "<omitted>", why);
        }
        if !matches!(self.egress_selector_type.as_str(), "" | "controlplane" | "cluster") {
            let why = "egress selector must be either controlplane or cluster";
            faults.invalid(&format!("{path}.egressSelectorType"), &self.egress_selector_type, why);
        } else if !self.egress_selector_type.is_empty() {
            let why = "there are no egress selectors here: connections go out directly";
            faults.invalid(&format!("{path}.egressSelectorType"), &self.egress_selector_type, why);
        }
    }

    fn check_audiences(&self, path: &str, faults: &mut Faults<'_>) {
        let at = format!("{path}.audiences");
        if self.audiences.is_empty() {
            return faults.required(&at, &format!("at least one {at} is required"));
        }
        let mut seen = BTreeSet::new();
        for (index, audience) in self.audiences.iter().enumerate() {
            let at = format!("{at}[{index}]");
            if audience.is_empty() {
                faults.required(&at, "");
            }
            if !seen.insert(audience) {
                faults.duplicate(&at, audience);
            }
        }
        let (at, policy) =
            (format!("{path}.audienceMatchPolicy"), self.audience_match_policy.as_str());
        match (self.audiences.len(), policy) {
            (_, "MatchAny") | (1, "") => {}
            (1, _) => faults.invalid(
                &at,
                policy,
                "audienceMatchPolicy must be empty or MatchAny for single audience",
            ),
            _ => faults.invalid(
                &at,
                policy,
                "audienceMatchPolicy must be MatchAny for multiple audiences",
            ),
        }
    }
}

fn check_url(url: &str, own: &[&str], at: &str, faults: &mut Faults<'_>) {
    if own.contains(&url) {
        let why = format!("URL must not overlap with disallowed issuers: [{}]", own.join(" "));
        faults.invalid(at, url, &why);
    }
    let (bare, fragment) = url.split_once('#').unwrap_or((url, ""));
    let Ok(parsed) = bare.parse::<http::Uri>() else {
        return faults.invalid(at, url, &format!("parse {url:?}: invalid URL"));
    };
    if parsed.scheme_str() != Some("https") {
        faults.invalid(at, url, "URL scheme must be https");
    }
    if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        faults.invalid(at, url, "URL must not contain a username or password");
    }
    if parsed.query().is_some_and(|query| !query.is_empty()) {
        faults.invalid(at, url, "URL must not contain a query");
    }
    if !fragment.is_empty() {
        faults.invalid(at, url, "URL must not contain a fragment");
    }
}

/// Rules by expression, with their messages; those by a claim's value go to `required`.
fn claim_rules(
    rules: Vec<ClaimRule>,
    path: &str,
    required: &mut Vec<(String, String)>,
    faults: &mut Faults<'_>,
) -> Vec<(Expression, String)> {
    let (mut claims, mut expressions) = (BTreeSet::new(), BTreeSet::new());
    let mut compiled = Vec::new();
    for (index, rule) in rules.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        match (rule.claim.is_empty(), rule.expression.is_empty()) {
            (false, false) => {
                faults.invalid(&path, &rule.claim, "claim and expression can't both be set")
            }
            (true, true) => faults.required(&path, "claim or expression is required"),
            (false, true) => {
                if !rule.message.is_empty() {
                    let at = format!("{path}.message");
                    faults.invalid(&at, &rule.message, "may not be specified when claim is set");
                }
                if !claims.insert(rule.claim.clone()) {
                    faults.duplicate(&format!("{path}.claim"), &rule.claim);
                }
                required.push((rule.claim, rule.required_value));
            }
            (true, false) => {
                if !rule.required_value.is_empty() {
                    let at = format!("{path}.requiredValue");
                    faults.invalid(
                        &at,
                        &rule.required_value,
                        "may not be specified when expression is set",
                    );
                }
                let at = format!("{path}.expression");
                if !expressions.insert(rule.expression.clone()) {
                    faults.duplicate(&at, &rule.expression);
                    continue;
                }
                let made = Expression::new(&rule.expression, &CLAIMS, true);
                let made = faults.compiled(&at, &rule.expression, made);
                compiled.extend(made.map(|made| (made, rule.message)));
            }
        }
    }
    compiled
}

fn user_rules(
    rules: Vec<UserRule>,
    path: &str,
    faults: &mut Faults<'_>,
) -> Vec<(Expression, String)> {
    let mut seen = BTreeSet::new();
    let mut compiled = Vec::new();
    for (index, rule) in rules.into_iter().enumerate() {
        let at = format!("{path}[{index}].expression");
        if rule.expression.is_empty() {
            faults.required(&at, "");
        } else if !seen.insert(rule.expression.clone()) {
            faults.duplicate(&at, &rule.expression);
        } else {
            let made = Expression::new(&rule.expression, &USER, true);
            let made = faults.compiled(&at, &rule.expression, made);
            compiled.extend(made.map(|made| (made, rule.message)));
        }
    }
    compiled
}

type Mapped = (Option<Source>, Option<Source>, Option<Source>, Vec<(String, Expression)>);

impl Mappings {
    fn check(self, path: &str, rules: &[(Expression, String)], faults: &mut Faults<'_>) -> Mapped {
        let email = self.username.expression.clone();
        let username = self.username.source(&format!("{path}.username"), true, true, faults);
        let groups = self.groups.source(&format!("{path}.groups"), true, false, faults);
        let uid = self.uid.source(&format!("{path}.uid"), false, false, faults);
        let extra = extras(self.extra, &format!("{path}.extra"), faults);
        let by_expression = match &username {
            Some(Source::Expression(expression)) => Some(expression),
            _ => None,
        };
        let mut all =
            rules.iter().map(|(rule, _)| rule).chain(extra.iter().map(|(_, value)| value));
        let verified = all.any(Expression::uses_email_verified)
            || by_expression.is_some_and(Expression::uses_email_verified);
        if by_expression.is_some_and(Expression::uses_email) && !verified {
            faults.invalid(&format!("{path}.username.expression"), &email, "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression");
        }
        (username, groups, uid, extra)
    }
}

impl Mapping {
    fn source(
        self,
        path: &str,
        prefixed: bool,
        must: bool,
        faults: &mut Faults<'_>,
    ) -> Option<Source> {
        match (self.claim.is_empty(), self.expression.is_empty()) {
            (false, false) => faults.invalid(path, "", "claim and expression can't both be set"),
            (true, true) if must => faults.required(path, "claim or expression is required"),
            (true, true) => {}
            (true, false) => {
                if let Some(prefix) = self.prefix {
                    let at = format!("{path}.prefix");
                    faults.invalid(&at, &prefix, "may not be specified when expression is set");
                }
                let made = Expression::new(&self.expression, &CLAIMS, false);
                let made = faults.compiled(&format!("{path}.expression"), &self.expression, made);
                return made.map(Source::Expression);
            }
            (false, true) => {
                if self.prefix.is_none() && prefixed {
                    let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    faults.required(&format!("{path}.prefix"), why);
                }
                return Some(Source::Claim {
                    name: self.claim,
                    prefix: self.prefix.unwrap_or_default(),
                });
            }
        }
        None
    }
}

fn extras(all: Vec<Extra>, path: &str, faults: &mut Faults<'_>) -> Vec<(String, Expression)> {
    let mut seen = BTreeSet::new();
    let mut compiled = Vec::new();
    for (index, Extra { key, value_expression: text }) in all.into_iter().enumerate() {
        let (at, of_value) =
            (format!("{path}[{index}].key"), format!("{path}[{index}].valueExpression"));
        match path_fault(&key) {
            _ if key.is_empty() => faults.required(&at, ""),
            Some(why) => faults.0.push(format!("{at}: {why}")),
            None => {}
        }
        if key.chars().any(char::is_uppercase) {
            faults.invalid(&at, &key, "must be lowercase");
        }
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let reserved = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
        if reserved("kubernetes.io") || reserved("k8s.io") {
            faults.invalid(
                &at,
                &key,
                "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use",
            );
        }
        if !seen.insert(key.clone()) {
            faults.duplicate(&at, &key);
        } else if text.is_empty() {
            faults.required(&of_value, "");
        } else {
            let made = faults.compiled(&of_value, &text, Expression::new(&text, &CLAIMS, false));
            compiled.extend(made.map(|made| (key, made)));
        }
    }
    compiled
}
