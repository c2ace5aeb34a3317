//! FlowSchemas and PriorityLevelConfigurations, as far as requests are concerned. Objects were validated when
//! they were stored; what is absent all the same has upstream's default.

use serde_json::{Value, json};

/// One flow schema.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) precedence: i64,
    pub(crate) level: String,
    pub(crate) by: By,
    pub(crate) rules: Vec<Rule>,
}

/// What tells the flows of a schema apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Nothing,
    User,
    Namespace,
}

#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) resources: Vec<Resources>,
    pub(crate) others: Vec<Others>,
}

#[derive(Debug, Clone)]
pub(crate) enum Subject {
    User(String),
    Group(String),
    /// Namespace and name.
    Account(String, String),
}

#[derive(Debug, Clone)]
pub(crate) struct Resources {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) cluster: bool,
    pub(crate) namespaces: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Others {
    pub(crate) verbs: Vec<String>,
    pub(crate) paths: Vec<String>,
}

/// One priority level.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) is_exempt: bool,
    pub(crate) shares: u32,
    /// Percent of its seats that it lends.
    pub(crate) lendable: u32,
    /// Percent of its seats that it borrows at most; none is no limit.
    pub(crate) borrowing: Option<u32>,
    pub(crate) queuing: Option<Queuing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Queuing {
    pub(crate) queues: usize,
    pub(crate) hand: usize,
    pub(crate) length: usize,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn number(value: &Value, usual: u32) -> u32 {
    value.as_u64().map_or(usual, |n| u32::try_from(n).unwrap_or(u32::MAX))
}

impl Schema {
    pub(crate) fn of(object: &Value) -> Schema {
        let (meta, spec) = (&object["metadata"], &object["spec"]);
        let by = match spec["distinguisherMethod"]["type"].as_str() {
            Some("ByUser") => By::User,
            Some("ByNamespace") => By::Namespace,
            _ => By::Nothing,
        };
        Schema {
            name: text(&meta["name"]),
            uid: text(&meta["uid"]),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
            level: text(&spec["priorityLevelConfiguration"]["name"]),
            by,
            rules: spec["rules"].as_array().into_iter().flatten().map(Rule::of).collect(),
        }
    }
}

impl Rule {
    fn of(rule: &Value) -> Rule {
        let all = |key: &str| rule[key].as_array().cloned().unwrap_or_default();
        let resources = |of: &Value| Resources {
            verbs: texts(&of["verbs"]),
            groups: texts(&of["apiGroups"]),
            resources: texts(&of["resources"]),
            cluster: of["clusterScope"] == true,
            namespaces: texts(&of["namespaces"]),
        };
        let others = |of: &Value| Others {
            verbs: texts(&of["verbs"]),
            paths: texts(&of["nonResourceURLs"]),
        };
        Rule {
            subjects: all("subjects").iter().filter_map(Subject::of).collect(),
            resources: all("resourceRules").iter().map(resources).collect(),
            others: all("nonResourceRules").iter().map(others).collect(),
        }
    }
}

impl Subject {
    fn of(subject: &Value) -> Option<Subject> {
        let name = |key: &str| text(&subject[key]["name"]);
        Some(match subject["kind"].as_str()? {
            "User" => Subject::User(name("user")),
            "Group" => Subject::Group(name("group")),
            "ServiceAccount" => {
                let namespace = text(&subject["serviceAccount"]["namespace"]);
                Subject::Account(namespace, name("serviceAccount"))
            }
            _ => return None,
        })
    }
}

impl Settings {
    pub(crate) fn of(object: &Value) -> Settings {
        let spec = &object["spec"];
        let is_exempt = spec["type"] == "Exempt";
        let part = if is_exempt { &spec["exempt"] } else { &spec["limited"] };
        let queuing = &part["limitResponse"]["queuing"];
        let size = |key: &str, usual: u32| number(&queuing[key], usual).max(1) as usize;
        let queues = part["limitResponse"]["type"] == "Queue";
        Settings {
            name: text(&object["metadata"]["name"]),
            uid: text(&object["metadata"]["uid"]),
            is_exempt,
            shares: number(&part["nominalConcurrencyShares"], if is_exempt { 0 } else { 30 }),
            lendable: number(&part["lendablePercent"], 0).min(100),
            borrowing: part["borrowingLimitPercent"]
                .as_u64()
                .map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            queuing: queues.then(|| Queuing {
                queues: size("queues", 64),
                hand: size("handSize", 8).min(size("queues", 64)),
                length: size("queueLengthLimit", 50),
            }),
        }
    }
}

/// What holds before anything is stored, and when it is deleted: administrators pass, all others share five
/// seats' worth.
pub(crate) fn mandatory() -> ([Schema; 2], [Settings; 2]) {
    let rules = |groups: &[&str]| {
        let subjects: Vec<Value> =
            groups.iter().map(|group| json!({"kind": "Group", "group": {"name": group}})).collect();
        json!([{
            "subjects": subjects,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    let schema = |name: &str, precedence: i64, by: &str, groups: &[&str]| {
        Schema::of(&json!({"metadata": {"name": name}, "spec": {
            "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": name},
            "distinguisherMethod": {"type": by}, "rules": rules(groups),
        }}))
    };
    let level =
        |spec: Value, name: &str| Settings::of(&json!({"metadata": {"name": name}, "spec": spec}));
    (
        [
            schema("exempt", 1, "", &["system:masters"]),
            schema(
                "catch-all",
                10_000,
                "ByUser",
                &["system:unauthenticated", "system:authenticated"],
            ),
        ],
        [
            level(json!({"type": "Exempt"}), "exempt"),
            level(
                json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5}}),
                "catch-all",
            ),
        ],
    )
}
