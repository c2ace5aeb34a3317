//! The policy: rules in order, the first that matches decides (apiserver `pkg/audit/policy`,
//! `pkg/apis/audit/validation`).

use api::nullable::nullable;
use auth::{RequestInfo, User};
use serde::Deserialize;

use crate::stage::Stage;

/// How much is told of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    const ALL: [Level; 4] = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];

    pub fn name(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// What the policy says of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audited {
    pub level: Level,
    pub omit_managed_fields: bool,
    omitted: Stages,
}

impl Audited {
    pub fn omits(&self, stage: Stage) -> bool {
        self.omitted.0 & stage.bit() != 0
    }
}

/// A set of stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stages(u8);

/// Why a policy cannot be used: each fault with its field.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct PolicyError(String);

/// The rules of a server.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    default: Audited,
}

#[derive(Debug)]
struct Rule {
    file: RuleFile,
    audited: Audited,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicyFile {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    rules: Vec<RuleFile>,
    #[serde(default, deserialize_with = "nullable")]
    omit_stages: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleFile {
    #[serde(default, deserialize_with = "nullable")]
    level: String,
    #[serde(default, deserialize_with = "nullable")]
    users: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    user_groups: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    verbs: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    resources: Vec<Resources>,
    #[serde(default, deserialize_with = "nullable")]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs", deserialize_with = "nullable")]
    non_resource_urls: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resources {
    #[serde(default, deserialize_with = "nullable")]
    group: String,
    #[serde(default, deserialize_with = "nullable")]
    resources: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    resource_names: Vec<String>,
}

impl Policy {
    /// Reads a policy (YAML or JSON). Fields that are not known are passed over, as upstream does.
    pub fn parse(text: &str) -> Result<Policy, PolicyError> {
        let file: PolicyFile = serde_yaml_ng::from_str(text)
            .map_err(|e| PolicyError(format!("failed decoding: {e}")))?;
        if (file.api_version.as_str(), file.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            let told = format!("{}, Kind={}", file.api_version, file.kind);
            return Err(PolicyError(format!("unknown group version field {told} in policy")));
        }
        let mut faults = Vec::new();
        let omitted = stages(&file.omit_stages, "omitStages", &mut faults);
        let default =
            Audited { level: Level::None, omit_managed_fields: file.omit_managed_fields, omitted };
        let rules = file.rules.into_iter().enumerate();
        let rules: Vec<Rule> = rules
            .map(|(index, rule)| Rule::new(rule, &format!("rules[{index}]"), default, &mut faults))
            .collect();
        match faults.as_slice() {
            [] if rules.is_empty() => Err(PolicyError("loaded illegal policy with 0 rules".into())),
            [] => Ok(Policy { rules, default }),
            [one] => Err(PolicyError(one.clone())),
            many => Err(PolicyError(format!("[{}]", many.join(", ")))),
        }
    }

    /// What is told of a request.
    pub fn of(&self, user: &User, info: &RequestInfo) -> Audited {
        let rule = self.rules.iter().find(|rule| rule.file.matches(user, info));
        rule.map_or(self.default, |rule| rule.audited)
    }
}

fn stages(names: &[String], path: &str, faults: &mut Vec<String>) -> Stages {
    let mut set = Stages::default();
    for (index, name) in names.iter().enumerate() {
        match Stage::ALL.into_iter().find(|stage| stage.name() == name) {
            Some(stage) => set.0 |= stage.bit(),
            None => {
                let all = Stage::ALL.map(Stage::name).join(",");
                faults.push(format!(
                    "{path}[{index}]: Invalid value: {name:?}: allowed stages are {all}"
                ));
            }
        }
    }
    set
}

impl Rule {
    fn new(file: RuleFile, path: &str, default: Audited, faults: &mut Vec<String>) -> Rule {
        let level = Level::ALL.into_iter().find(|level| level.name() == file.level);
        match level {
            None if file.level.is_empty() => faults.push(format!("{path}.level: Required value")),
            None => {
                let all = Level::ALL.map(|level| format!("{:?}", level.name())).join(", ");
                let told = &file.level;
                faults.push(format!(
                    "{path}.level: Unsupported value: {told:?}: supported values: {all}"
                ));
            }
            Some(_) => {}
        }
        file.check(path, faults);
        let own = stages(&file.omit_stages, &format!("{path}.omitStages"), faults);
        let audited = Audited {
            level: level.unwrap_or(Level::None),
            omit_managed_fields: file.omit_managed_fields.unwrap_or(default.omit_managed_fields),
            omitted: Stages(own.0 | default.omitted.0),
        };
        Rule { file, audited }
    }
}

impl RuleFile {
    fn check(&self, path: &str, faults: &mut Vec<String>) {
        for (index, url) in self.non_resource_urls.iter().enumerate().filter(|(_, url)| *url != "*")
        {
            let at = format!(
                "{path}.nonResourceURLs[{index}]: Invalid value: {url:?}: non-resource URL"
            );
            if !url.starts_with('/') {
                faults.push(format!("{at} rules must begin with a '/' character"));
            }
            if url.find('*').is_some_and(|star| star + 1 < url.len()) {
                faults.push(format!("{at} wildcards '*' must be the final character of the rule"));
            }
        }
        for of in &self.resources {
            let at = format!("{path}.resources");
            if !matches!(of.group.as_str(), "" | "*") {
                let why = api::names::dns_subdomain(&of.group).join(",");
                let told = format!("{at}.group: Invalid value: {:?}: {why}", of.group);
                faults.extend((!why.is_empty()).then_some(told));
            }
            if !of.resource_names.is_empty() && of.resources.is_empty() {
                let names = &of.resource_names;
                let why = "using resourceNames requires at least one resource";
                faults.push(format!("{at}.resourceNames: Invalid value: {names:?}: {why}"));
            }
        }
        let both = !self.resources.is_empty() || !self.namespaces.is_empty();
        if both && !self.non_resource_urls.is_empty() {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            let urls = &self.non_resource_urls;
            faults.push(format!("{path}.nonResourceURLs: Invalid value: {urls:?}: {why}"));
        }
    }

    fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        let names =
            |list: &[String], name: &str| list.is_empty() || list.iter().any(|one| one == name);
        let grouped =
            self.user_groups.is_empty() || self.user_groups.iter().any(|g| user.in_group(g));
        if !names(&self.users, &user.name) || !grouped || !names(&self.verbs, info.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && names(&self.namespaces, &info.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|of| of.matches(info)));
        }
        self.non_resource_urls.is_empty()
            || !info.is_resource
                && self.non_resource_urls.iter().any(|url| path_matches(&info.path, url))
    }
}

impl Resources {
    fn matches(&self, info: &RequestInfo) -> bool {
        let (resource, sub) = (info.resource.as_str(), info.subresource.as_str());
        let named = || self.resource_names.is_empty() || self.resource_names.contains(&info.name);
        let is = |wanted: &String| match wanted.split_once('/') {
            _ if wanted == "*" => true,
            None => sub.is_empty() && wanted == resource,
            Some((of, part)) => {
                (part == "*" && of == resource)
                    || (!sub.is_empty() && part == sub && (of == "*" || of == resource))
            }
        };
        (self.group == info.group || self.group == "*")
            && (self.resources.is_empty() || (named() && self.resources.iter().any(is)))
    }
}

fn path_matches(path: &str, wanted: &str) -> bool {
    let below = wanted.ends_with('*') && path.starts_with(wanted.trim_end_matches('*'));
    wanted == "*" || wanted == path || below
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";

    fn policy(text: &str) -> Policy {
        Policy::parse(&format!("{HEAD}{text}")).expect("a policy")
    }

    fn refused(text: &str) -> String {
        Policy::parse(&format!("{HEAD}{text}")).expect_err("refused").to_string()
    }

    fn asked(method: &str, path: &str) -> RequestInfo {
        RequestInfo::parse(&method.parse().expect("a method"), path, false)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = policy(
            "omitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
             - {level: None, users: ['system:kube-proxy'], verbs: [watch]}\n\
             - {level: Request, resources: [{group: '', resources: ['pods/log', 'configmaps/*'], resourceNames: [a]}]}\n\
             - {level: None, nonResourceURLs: ['/healthz*', /version]}\n\
             - {level: Metadata, userGroups: [ops], namespaces: [a], omitManagedFields: false, omitStages: [Panic]}\n\
             - {level: RequestResponse, resources: [{group: apps}, {group: '*', resources: ['*/scale']}]}\n",
        );
        let ops = User::new("o", &["ops"]);
        let level = |info: &RequestInfo| policy.of(&ops, info).level;
        assert_eq!(level(&asked("GET", "/api/v1/namespaces/b/pods/a/log")), Level::Request);
        assert_eq!(level(&asked("GET", "/api/v1/namespaces/b/configmaps/a")), Level::Request);
        assert_eq!(level(&asked("GET", "/api/v1/namespaces/b/configmaps/b")), Level::None);
        assert_eq!(level(&asked("GET", "/api/v1/namespaces/a/pods/a")), Level::Metadata);
        assert_eq!(level(&asked("GET", "/healthz/ping")), Level::None);
        assert_eq!(level(&asked("GET", "/apis/apps/v1/deployments")), Level::RequestResponse);
        let scale = asked("GET", "/apis/x.io/v1/namespaces/n/things/t/scale");
        assert_eq!(level(&scale), Level::RequestResponse);
        let own = policy.of(&ops, &asked("GET", "/api/v1/namespaces/a/pods/a"));
        assert!(
            !own.omit_managed_fields
                && own.omits(Stage::RequestReceived)
                && own.omits(Stage::Panic)
        );
        let default = policy.of(&ops, &asked("GET", "/api/v1/nodes"));
        assert_eq!((default.level, default.omit_managed_fields), (Level::None, true));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_field() {
        assert_eq!(refused("rules: []"), "loaded illegal policy with 0 rules");
        assert_eq!(
            refused("rules: [{level: Loud}, {}]"),
            "[rules[0].level: Unsupported value: \"Loud\": supported values: \"None\", \"Metadata\", \"Request\", \
             \"RequestResponse\", rules[1].level: Required value]"
        );
        assert_eq!(
            refused("omitStages: [Never]\nrules: [{level: None}]"),
            "omitStages[0]: Invalid value: \"Never\": allowed stages are \
             RequestReceived,ResponseStarted,ResponseComplete,Panic"
        );
        for (rule, part) in [
            ("nonResourceURLs: [x]", "must begin with a '/'"),
            ("nonResourceURLs: ['/a*b']", "must be the final character"),
            ("nonResourceURLs: [/a], namespaces: [b]", "cannot apply to both"),
            ("resources: [{group: rbac/v1}]", "rules[0].resources.group: Invalid value"),
            ("resources: [{resourceNames: [a]}]", "requires at least one resource"),
        ] {
            let told = refused(&format!("rules: [{{level: None, {rule}}}]"));
            assert!(told.contains(part), "{told}");
        }
        let other = Policy::parse("apiVersion: v1\nkind: Policy\nrules: []").expect_err("refused");
        assert!(other.to_string().starts_with("unknown group version"), "{other}");
        assert!(refused("rules: 3").starts_with("failed decoding"));
    }
}
