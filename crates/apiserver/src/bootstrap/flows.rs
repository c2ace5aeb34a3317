//! Priority levels and flow schemas that every cluster starts with (apiserver `flowcontrol/bootstrap`),
//! the `Dangling` condition of every flow schema, and what the flow control is told of them.
//!
//! Objects that say `apf.kubernetes.io/autoupdate-spec: true` get their specification back at every
//! start; those named `exempt` and `catch-all` get it whatever they say.

use std::time::Duration;

use auth::User;
use client::{Client, Error, Request, Tasks};
use http::Method;
use serde_json::{Value, json};

use super::{call, collection};
use crate::local::Local;
use crate::server::Server;

const API: &str = "flowcontrol.apiserver.k8s.io/v1";
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];
const RETRY: Duration = Duration::from_secs(1);

/// Name, shares, percent lendable, and queues with hand size; without them excess is refused.
type Level = (&'static str, u32, u32, Option<(u32, u32)>);

const LEVELS: [Level; 7] = [
    ("catch-all", 5, 0, None),
    ("global-default", 20, 50, Some((128, 6))),
    ("leader-election", 10, 0, Some((16, 4))),
    ("node-high", 40, 25, Some((64, 6))),
    ("system", 30, 33, Some((64, 6))),
    ("workload-high", 40, 50, Some((128, 6))),
    ("workload-low", 100, 90, Some((128, 6))),
];

/// Who is meant, and what they do.
struct Flow {
    name: &'static str,
    level: &'static str,
    precedence: u32,
    by: &'static str,
    /// `Group x`, `User x` or `ServiceAccount namespace/name`.
    subjects: &'static [&'static str],
    rules: fn() -> (Vec<Value>, Vec<Value>),
}

const EVERYBODY: &[&str] = &["Group system:unauthenticated", "Group system:authenticated"];

const FLOWS: [Flow; 11] = [
    flow("catch-all", "catch-all", 10_000, "ByUser", EVERYBODY, everything),
    flow("exempt", "exempt", 1, "", &["Group system:masters"], everything),
    flow("global-default", "global-default", 9900, "ByUser", EVERYBODY, everything),
    flow(
        "kube-controller-manager",
        "workload-high",
        800,
        "ByNamespace",
        &["User system:kube-controller-manager"],
        everything,
    ),
    flow(
        "kube-scheduler",
        "workload-high",
        800,
        "ByNamespace",
        &["User system:kube-scheduler"],
        everything,
    ),
    flow(
        "kube-system-service-accounts",
        "workload-high",
        900,
        "ByNamespace",
        &["ServiceAccount kube-system/*"],
        everything,
    ),
    flow("probes", "exempt", 2, "", EVERYBODY, probes),
    flow(
        "service-accounts",
        "workload-low",
        9000,
        "ByUser",
        &["Group system:serviceaccounts"],
        everything,
    ),
    flow(
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        &[
            "User system:kube-controller-manager",
            "User system:kube-scheduler",
            "ServiceAccount kube-system/*",
        ],
        leases,
    ),
    flow("system-node-high", "node-high", 400, "ByUser", &["Group system:nodes"], heartbeats),
    flow("system-nodes", "system", 500, "ByUser", &["Group system:nodes"], everything),
];

const fn flow(
    name: &'static str,
    level: &'static str,
    precedence: u32,
    by: &'static str,
    subjects: &'static [&'static str],
    rules: fn() -> (Vec<Value>, Vec<Value>),
) -> Flow {
    Flow { name, level, precedence, by, subjects, rules }
}

fn everything() -> (Vec<Value>, Vec<Value>) {
    let resources = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
        "clusterScope": true, "namespaces": ["*"]});
    (vec![resources], vec![json!({"verbs": ["*"], "nonResourceURLs": ["*"]})])
}

fn probes() -> (Vec<Value>, Vec<Value>) {
    let urls = ["/healthz", "/readyz", "/livez"];
    (Vec::new(), vec![json!({"verbs": ["get"], "nonResourceURLs": urls})])
}

fn lease_rule(verbs: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
        "namespaces": ["*"]})
}

fn leases() -> (Vec<Value>, Vec<Value>) {
    (vec![lease_rule(&["get", "create", "update"])], Vec::new())
}

fn heartbeats() -> (Vec<Value>, Vec<Value>) {
    let nodes = json!({"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"],
        "clusterScope": true, "namespaces": ["*"]});
    (vec![nodes, lease_rule(&["*"])], Vec::new())
}

fn levels() -> impl Iterator<Item = Value> {
    let exempt = json!({"type": "Exempt",
        "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let limited = LEVELS.iter().map(|&(name, shares, lendable, queues)| {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand)) => json!({"type": "Queue", "queuing":
                {"queues": queues, "handSize": hand, "queueLengthLimit": 50}}),
        };
        let limits = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": response});
        object("PriorityLevelConfiguration", name, &json!({"type": "Limited", "limited": limits}))
    });
    std::iter::once(object("PriorityLevelConfiguration", "exempt", &exempt)).chain(limited)
}

fn subject(text: &str) -> Value {
    let (kind, name) = text.split_once(' ').unwrap_or((text, ""));
    match (kind, name.split_once('/')) {
        ("ServiceAccount", Some((namespace, name))) => {
            json!({"kind": kind, "serviceAccount": {"namespace": namespace, "name": name}})
        }
        ("User", _) => json!({"kind": kind, "user": {"name": name}}),
        _ => json!({"kind": kind, "group": {"name": name}}),
    }
}

fn schema(flow: &Flow) -> Value {
    let (resources, paths) = (flow.rules)();
    let subjects: Vec<Value> = flow.subjects.iter().map(|text| subject(text)).collect();
    let mut rule = json!({"subjects": subjects});
    for (key, rules) in [("resourceRules", resources), ("nonResourceRules", paths)] {
        if !rules.is_empty() {
            rule[key] = rules.into();
        }
    }
    let mut spec = json!({"priorityLevelConfiguration": {"name": flow.level},
        "matchingPrecedence": flow.precedence, "rules": [rule]});
    if !flow.by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": flow.by});
    }
    object("FlowSchema", flow.name, &spec)
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": API, "kind": kind,
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}, "spec": spec})
}

fn client(server: &Server, agent: &str, tasks: &Tasks) -> Client {
    let user = User::system_masters("system:apiserver");
    Client::new(std::sync::Arc::new(Local::new(server.clone(), user, agent, tasks.clone())))
}

impl Server {
    /// Makes what is missing, then keeps the conditions true in `tasks`.
    pub(super) async fn bootstrap_flows(&self, tasks: &Tasks) -> Result<(), Error> {
        let producer = client(self, "api-priority-and-fairness-config-producer-v1", tasks);
        for level in levels() {
            reconcile(&producer, "prioritylevelconfigurations", level).await?;
        }
        for flow in &FLOWS {
            reconcile(&producer, "flowschemas", schema(flow)).await?;
        }
        let agent = "api-priority-and-fairness-config-consumer-v1";
        let this = Conditions { server: self.clone(), client: client(self, agent, tasks) };
        this.pass().await?;
        tasks.spawn("flow schemas", this.run());
        let control = self.parts.flow_control.clone();
        tasks.spawn("seats of priority levels", async move { control.lend().await });
        Ok(())
    }
}

async fn reconcile(client: &Client, plural: &str, wanted: Value) -> Result<(), Error> {
    let name = wanted["metadata"]["name"].as_str().unwrap_or("").to_owned();
    let all = collection(API, plural, "");
    let target = format!("{all}/{name}");
    let present: Result<Value, Error> =
        client.send(Method::GET, target.clone(), None, bytes::Bytes::new()).await;
    let mut present = match present {
        Err(error) if error.is_not_found() => {
            return match call(client, Method::POST, all, &wanted).await {
                Err(error) if error.is_already_exists() => Ok(()),
                other => other.map(drop),
            };
        }
        other => other?,
    };
    let ours =
        MANDATORY.contains(&&*name) || present["metadata"]["annotations"][AUTOUPDATE] == "true";
    if !ours || present["spec"] == wanted["spec"] {
        return Ok(());
    }
    present["spec"] = wanted["spec"].clone();
    call(client, Method::PUT, target, &present).await.map(drop)
}

/// Tells of every flow schema whether its priority level exists.
struct Conditions {
    server: Server,
    client: Client,
}

impl Conditions {
    async fn run(self) {
        let group = "flowcontrol.apiserver.k8s.io";
        let of = |plural| self.server.parts.resources.collection_of(group, "v1", plural);
        let (flows, levels) = (of("flowschemas"), of("prioritylevelconfigurations"));
        loop {
            let since = (flows.watch(flows.last_change()), levels.watch(levels.last_change()));
            let (Ok(mut flows), Ok(mut levels)) = since else { continue };
            loop {
                if let Err(error) = self.pass().await {
                    tracing::debug!(%error, "a flow schema's condition was not written");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                let expired = tokio::select! {
                    events = flows.next() => events.is_err(),
                    events = levels.next() => events.is_err(),
                };
                if expired {
                    break;
                }
            }
        }
    }

    async fn pass(&self) -> Result<(), Error> {
        let group = "flowcontrol.apiserver.k8s.io";
        let levels =
            self.server.parts.resources.collection_of(group, "v1", "prioritylevelconfigurations");
        let flows = self.server.parts.resources.collection_of(group, "v1", "flowschemas");
        let all = |collection: &store::Collection| -> Vec<Value> {
            let page = collection.list("", None, 0, usize::MAX, &|_| true);
            page.map(|page| page.objects.iter().map(|o| o.to_value()).collect()).unwrap_or_default()
        };
        let flows = all(&flows);
        self.server.parts.flow_control.configure(&flows, &all(&levels));
        for flow in flows {
            let level = flow["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or("");
            if let Some(condition) = condition(&flow, level, levels.get(level).is_some()) {
                self.apply(&flow["metadata"]["name"], condition).await?;
            }
        }
        Ok(())
    }

    async fn apply(&self, name: &Value, condition: Value) -> Result<(), Error> {
        let name = name.as_str().unwrap_or("");
        let body = json!({"apiVersion": API, "kind": "FlowSchema", "metadata": {"name": name},
            "status": {"conditions": [condition]}});
        let path = collection(API, "flowschemas", "");
        let manager = "api-priority-and-fairness-config-consumer-v1";
        let request = Request {
            method: Method::PATCH,
            target: format!("{path}/{name}/status?fieldManager={manager}&force=true"),
            content_type: Some("application/apply-patch+yaml"),
            body: Local::body(&body),
        };
        match self.client.call(request).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}

/// The condition as it must be, if it is not so.
fn condition(flow: &Value, level: &str, exists: bool) -> Option<Value> {
    let (status, reason, end) = match exists {
        true => ("False", "Found", "it exists"),
        false => ("True", "NotFound", "there is no such object"),
    };
    let joint = if exists { "and" } else { "but" };
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {level:?} {joint} {end}"
    );
    let mut all = flow["status"]["conditions"].as_array().into_iter().flatten();
    let old = all.find(|c| c["type"] == "Dangling");
    let same = old.is_some_and(|old| old["status"] == status && old["message"] == *message);
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    (!same).then(|| {
        json!({"type": "Dangling", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now})
    })
}
