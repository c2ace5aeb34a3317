//! A webhook as a configuration writes it, and what is wrong with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::nullable::nullable;
use serde::Deserialize;

use super::conditions::Conditions;
use crate::config_file::Faults;

const CONDITIONS_MAX: usize = 64;
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// A webhook that can be asked.
#[derive(Debug)]
pub struct WebhookSettings {
    /// `v1` or `v1beta1`, of the SubjectAccessReviews that it is sent.
    pub version: String,
    pub kubeconfig: PathBuf,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// How long allowing answers are kept; zero is not at all.
    pub authorized_life: Duration,
    /// How long other answers are kept; zero is not at all.
    pub unauthorized_life: Duration,
    /// Without an answer the request is refused, instead of the next authorizer being asked.
    pub denies_on_error: bool,
    pub(in crate::authz) conditions: Conditions,
}

impl WebhookSettings {
    /// As flags set one up: the first authorizer that cannot answer is passed over.
    pub fn of_flags(
        kubeconfig: PathBuf,
        version: &str,
        (authorized_life, unauthorized_life): (Duration, Duration),
    ) -> WebhookSettings {
        WebhookSettings {
            version: version.to_owned(),
            kubeconfig,
            timeout: TIMEOUT_MAX,
            authorized_life,
            unauthorized_life,
            denies_on_error: false,
            conditions: Conditions::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WebhookFile {
    #[serde(default, rename = "authorizedTTL", deserialize_with = "nullable")]
    authorized_ttl: String,
    cache_authorized_requests: Option<bool>,
    #[serde(default, rename = "unauthorizedTTL", deserialize_with = "nullable")]
    unauthorized_ttl: String,
    cache_unauthorized_requests: Option<bool>,
    #[serde(default, deserialize_with = "nullable")]
    timeout: String,
    #[serde(default, deserialize_with = "nullable")]
    subject_access_review_version: String,
    #[serde(default, deserialize_with = "nullable")]
    match_condition_subject_access_review_version: String,
    #[serde(default, deserialize_with = "nullable")]
    failure_policy: String,
    #[serde(default, deserialize_with = "nullable")]
    connection_info: ConnectionInfo,
    #[serde(default, deserialize_with = "nullable")]
    match_conditions: Vec<MatchCondition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConnectionInfo {
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchCondition {
    #[serde(default, deserialize_with = "nullable")]
    expression: String,
}

/// What a duration is when it is not said.
enum Unsaid {
    Is(Duration),
    IsRefused,
}

impl WebhookFile {
    pub(super) fn check(self, at: &str, faults: &mut Faults<'_>) -> Option<WebhookSettings> {
        let before = faults.0.len();
        let timeout = duration(&self.timeout, &format!("{at}.timeout"), Unsaid::IsRefused, faults);
        if timeout > TIMEOUT_MAX {
            faults.invalid(&format!("{at}.timeout"), &self.timeout, "must be > 0s and <= 30s");
        }
        let authorized = Unsaid::Is(Duration::from_secs(300));
        let unauthorized = Unsaid::Is(Duration::from_secs(30));
        let authorized =
            duration(&self.authorized_ttl, &format!("{at}.authorizedTTL"), authorized, faults);
        let unauthorized = duration(
            &self.unauthorized_ttl,
            &format!("{at}.unauthorizedTTL"),
            unauthorized,
            faults,
        );
        self.check_versions(at, faults);
        let place = format!("{at}.failurePolicy");
        match self.failure_policy.as_str() {
            "" => faults.required(&place, ""),
            "NoOpinion" | "Deny" => {}
            other => faults.unsupported(&place, other, r#""NoOpinion", "Deny""#),
        }
        self.connection_info.check(at, faults);
        let conditions = self.compile(at, faults);
        let kept = |is_kept: Option<bool>, life| match is_kept {
            Some(false) => Duration::ZERO,
            _ => life,
        };
        (faults.0.len() == before).then_some(())?;
        Some(WebhookSettings {
            version: self.subject_access_review_version,
            kubeconfig: self.connection_info.kube_config_file?,
            timeout,
            authorized_life: kept(self.cache_authorized_requests, authorized),
            unauthorized_life: kept(self.cache_unauthorized_requests, unauthorized),
            denies_on_error: self.failure_policy == "Deny",
            conditions,
        })
    }

    fn check_versions(&self, at: &str, faults: &mut Faults<'_>) {
        let place = format!("{at}.subjectAccessReviewVersion");
        match self.subject_access_review_version.as_str() {
            "" => faults.required(&place, ""),
            "v1" | "v1beta1" => {}
            other => faults.unsupported(&place, other, r#""v1", "v1beta1""#),
        }
        let place = format!("{at}.matchConditionSubjectAccessReviewVersion");
        match self.match_condition_subject_access_review_version.as_str() {
            "" if self.match_conditions.is_empty() => {}
            "" => faults.required(&place, "required if match conditions are specified"),
            "v1" => {}
            other => faults.unsupported(&place, other, r#""v1""#),
        }
    }

    fn compile(&self, at: &str, faults: &mut Faults<'_>) -> Conditions {
        let mut conditions = Conditions::default();
        let count = self.match_conditions.len();
        if count > CONDITIONS_MAX {
            faults.0.push(format!(
                "{at}.matchConditions: Too many: {count}: must have at most {CONDITIONS_MAX} items"
            ));
            return conditions;
        }
        let mut seen = BTreeSet::new();
        for (index, condition) in self.match_conditions.iter().enumerate() {
            let place = format!("{at}.matchConditions[{index}].expression");
            let text = condition.expression.as_str();
            if text.trim().is_empty() {
                faults.required(&place, "");
            } else if !seen.insert(text) {
                faults.duplicate(&place, text);
            } else if let Err(why) = conditions.add(text) {
                faults.invalid(&place, text, &why);
            }
        }
        conditions
    }
}

fn duration(text: &str, at: &str, unsaid: Unsaid, faults: &mut Faults<'_>) -> Duration {
    let parsed = match text {
        "" => None,
        text => match api::duration::parse(text) {
            Ok(parsed) => Some(parsed).filter(|parsed| !parsed.length.is_zero()),
            Err(why) => {
                faults.invalid(at, text, &why);
                return Duration::ZERO;
            }
        },
    };
    match (parsed, unsaid) {
        (Some(parsed), Unsaid::IsRefused) if parsed.negative => {
            faults.invalid(at, text, "must be > 0s and <= 30s");
        }
        (Some(parsed), Unsaid::Is(_)) if parsed.negative => {
            faults.invalid(at, text, "must be > 0s");
        }
        (Some(parsed), _) => return parsed.length,
        (None, Unsaid::Is(length)) => return length,
        (None, Unsaid::IsRefused) => faults.required(at, ""),
    }
    Duration::ZERO
}

impl ConnectionInfo {
    fn check(&self, at: &str, faults: &mut Faults<'_>) {
        let place = format!("{at}.connectionInfo.type");
        match self.kind.as_str() {
            "" => faults.required(&place, ""),
            "KubeConfigFile" => self.check_file(at, faults),
            // For extension API servers, which have a cluster to ask.
            "InClusterConfig" => faults.invalid(
                &place,
                "InClusterConfig",
                "connectionInfo.type InClusterConfig is not allowed in kube-apiserver",
            ),
            other => {
                faults.unsupported(&place, other, r#""InClusterConfig", "KubeConfigFile""#);
            }
        }
    }

    fn check_file(&self, at: &str, faults: &mut Faults<'_>) {
        let place = format!("{at}.connectionInfo.kubeConfigFile");
        let Some(file) = self.kube_config_file.as_deref().filter(|f| !f.as_os_str().is_empty())
        else {
            return faults.required(&place, "");
        };
        let told = file.to_string_lossy();
        if let Some(why) = fault_of(file) {
            faults.invalid(&place, &told, &why);
        }
    }
}

fn fault_of(file: &Path) -> Option<String> {
    if !file.is_absolute() {
        return Some("must be an absolute path".into());
    }
    match std::fs::metadata(file) {
        Err(e) => {
            let told = e.to_string();
            let told = told.split(" (os error").next().unwrap_or("").to_lowercase();
            Some(format!("error loading file: stat {}: {told}", file.display()))
        }
        Ok(info) if !info.is_file() => Some("must be a regular file".into()),
        Ok(_) => None,
    }
}
