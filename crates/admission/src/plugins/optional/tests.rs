//! Each optional plugin: what it changes, and each of its refusals.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::Status;
use api::registry::Registry;
use auth::{RequestInfo, User};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::attributes::{Attributes, BoxFuture, Operation};
use crate::chain::Chain;
use crate::config::{Configuration, Selection};
use crate::fakes::Fake;
use crate::plugins::Setup;
use crate::reinvocation::Reinvocation;
use crate::versions::Single;
use crate::webhooks::{CallFailure, Caller};

/// The chain with one plugin more, and its configuration.
pub(super) fn chain(plugin: &str, configuration: &str) -> Result<Chain, String> {
    let indented = configuration.replace('\n', "\n    ");
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: {plugin}\n  configuration:\n    {indented}\n"
    );
    let configuration = match configuration {
        "" => Configuration::default(),
        _ => Configuration::read(text.as_bytes(), &|_| Err("no files".into()))?,
    };
    let selection = Selection { enabled: vec![plugin.into()], disabled: Vec::new() };
    Chain::new(&Setup { selection: &selection, configuration: &configuration, ..Setup::default() })
}

pub(super) struct Asked {
    pub(super) operation: Operation,
    pub(super) path: (&'static str, &'static str, &'static str),
    pub(super) user: User,
    pub(super) object: Value,
    pub(super) old: Option<Value>,
    pub(super) dry_run: bool,
}

fn asked(operation: Operation, resource: &'static str, object: Value) -> Asked {
    let user = User::new("u", &[]);
    let old = None;
    Asked { operation, path: ("", resource, ""), user, object, old, dry_run: false }
}

impl Asked {
    /// Both phases; the object as it is admitted.
    async fn of(self, chain: &Chain, cluster: &Fake) -> Result<Value, Status> {
        self.run(chain, cluster, true).await
    }

    /// The validating phase alone: what others changed after the mutating one.
    pub(super) async fn validated(self, chain: &Chain, cluster: &Fake) -> Result<Value, Status> {
        self.run(chain, cluster, false).await
    }

    async fn run(mut self, chain: &Chain, cluster: &Fake, mutates: bool) -> Result<Value, Status> {
        let (group, resource, subresource) = self.path;
        let rows = Registry::built_in();
        let row = rows.find(group, "v1", resource, subresource).expect("a row");
        let namespace = if row.namespaced { "default" } else { "" };
        let info = RequestInfo {
            namespace: namespace.into(),
            resource: resource.into(),
            name: "p".into(),
            ..RequestInfo::default()
        };
        let request = Attributes {
            operation: self.operation,
            user: &self.user,
            info: &info,
            row,
            name: "p",
            old: self.old.as_ref(),
            dry_run: self.dry_run,
            options: &|| Value::Null,
            now: Timestamp::UNIX_EPOCH,
            deadline: None,
            cluster,
            versions: &Single,
            reinvocation: &Reinvocation::default(),
            warn: &|_| {},
            annotate: &|_, _| {},
        };
        if mutates {
            chain.mutate(&request, &mut self.object).await?;
        }
        chain.validate(&request, &self.object).await?;
        Ok(self.object)
    }
}

fn namespace(annotations: &Value) -> (&'static str, Value) {
    ("namespaces", json!({"metadata": {"name": "default", "annotations": annotations}}))
}

fn account() -> (&'static str, Value) {
    ("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "default"}}))
}

pub(super) fn cluster(annotations: &Value) -> Fake {
    Fake::with(&[namespace(annotations), account()])
}

pub(super) fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
}

pub(super) fn create(spec: Value) -> Asked {
    asked(Operation::Create, "pods", pod(spec))
}

pub(super) fn why(refused: Result<Value, Status>) -> String {
    refused.expect_err("refused").message
}

#[tokio::test]
async fn always_deny_denies() {
    let chain = chain("AlwaysDeny", "").expect("a chain");
    let refused = create(json!({})).of(&chain, &cluster(&json!({}))).await;
    assert_eq!(
        why(refused),
        "pods \"p\" is forbidden: admission control is denying all modifications"
    );
}

#[tokio::test]
async fn images_are_always_pulled() {
    let chain = chain("AlwaysPullImages", "").expect("a chain");
    let cluster = cluster(&json!({}));
    let spec = json!({"containers": [{"name": "c", "image": "i", "imagePullPolicy": "Never"}],
        "initContainers": [{"name": "i", "image": "j"}],
        "volumes": [{"name": "v", "image": {"reference": "k"}}]});
    let made = create(spec.clone()).of(&chain, &cluster).await.expect("admitted");
    let spec_of = &made["spec"];
    assert_eq!(spec_of["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(spec_of["initContainers"][0]["imagePullPolicy"], "Always");
    assert_eq!(spec_of["volumes"][0]["image"]["pullPolicy"], "Always");
    // An update without new images leaves the policy.
    let update = Asked {
        operation: Operation::Update,
        old: Some(pod(spec.clone())),
        ..create(spec.clone())
    };
    let made = update.of(&chain, &cluster).await.expect("admitted");
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Never");
}

#[tokio::test]
async fn external_addresses_are_denied_unless_they_were_there() {
    let chain = chain("DenyServiceExternalIPs", "").expect("a chain");
    let cluster = cluster(&json!({}));
    let service = |ips: Value| json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"externalIPs": ips}});
    let refused = asked(Operation::Create, "services", service(json!(["192.0.2.1"])));
    assert_eq!(
        why(refused.of(&chain, &cluster).await),
        "services \"p\" is forbidden: Use of external IPs is denied by admission control"
    );
    let old = service(json!(["192.0.2.1", "192.0.2.2"]));
    let update = |ips: Value| Asked {
        old: Some(old.clone()),
        ..asked(Operation::Update, "services", service(ips))
    };
    update(json!(["192.0.2.2"])).of(&chain, &cluster).await.expect("it was there");
    update(json!(["192.0.2.2", "192.0.2.3"])).of(&chain, &cluster).await.expect_err("a new one");
}

#[tokio::test]
async fn anti_affinity_is_limited_to_nodes() {
    let chain = chain("LimitPodHardAntiAffinityTopology", "").expect("a chain");
    let cluster = cluster(&json!({}));
    let spec = |key: &str| {
        json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": key}]}}})
    };
    create(spec("kubernetes.io/hostname")).of(&chain, &cluster).await.expect("admitted");
    assert_eq!(
        why(create(spec("zone")).of(&chain, &cluster).await),
        "pods \"p\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed"
    );
}

#[tokio::test]
async fn extended_resources_are_tolerated() {
    let chain = chain("ExtendedResourceToleration", "").expect("a chain");
    let requests = json!({"cpu": "1", "example.com/gpu": "1", "requests.example.com/x": "1"});
    let spec = json!({"containers": [{"name": "c", "resources": {"requests": requests}}]});
    let made = create(spec).of(&chain, &cluster(&json!({}))).await.expect("admitted");
    let tolerations = made["spec"]["tolerations"].as_array().expect("a list");
    let gpu = json!({"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"});
    assert_eq!(
        tolerations.iter().filter(|t| t["effect"] == "NoSchedule").collect::<Vec<_>>(),
        [&gpu]
    );
}

#[tokio::test]
async fn namespaces_must_exist_or_are_made() {
    let exists = chain("NamespaceExists", "").expect("a chain");
    let none = Fake::with(&[]);
    let delete =
        Asked { old: Some(json!({})), ..asked(Operation::Delete, "configmaps", Value::Null) };
    let refused = delete.of(&exists, &none).await.expect_err("refused");
    assert_eq!((refused.code, &*refused.message), (404, "namespaces \"default\" not found"));
    let provision = chain("NamespaceAutoProvision", "").expect("a chain");
    let create = || asked(Operation::Create, "configmaps", json!({"metadata": {"name": "p"}}));
    let dry = Asked { dry_run: true, ..create() };
    dry.of(&provision, &none).await.expect_err("a dry run makes nothing");
    create().of(&provision, &none).await.expect("made");
    delete_namespaces_stay(&none);
}

fn delete_namespaces_stay(cluster: &Fake) {
    use crate::attributes::Cluster;
    assert!(cluster.get(("", "v1", "namespaces"), "default").is_some());
}

#[tokio::test]
async fn node_selectors_come_from_namespaces() {
    const CONFIGURATION: &str = "podNodeSelectorPluginConfig:\n  clusterDefaultNodeSelector: env=all\n  default: env=test,env=prod,disk=ssd";
    let chain = chain("PodNodeSelector", CONFIGURATION).expect("a chain");
    let annotation = |value: &str| json!({"scheduler.alpha.kubernetes.io/node-selector": value});
    let selector = async |cluster: &Fake, own: Value| {
        let made = create(json!({"nodeSelector": own})).of(&chain, cluster).await;
        made.map(|made| made["spec"]["nodeSelector"].clone())
    };
    let ssd = cluster(&annotation("disk=ssd"));
    let made = selector(&ssd, json!({"env": "prod"})).await.expect("admitted");
    assert_eq!(made, json!({"disk": "ssd", "env": "prod"}));
    let head = "pods \"p\" is forbidden: pod node label selector";
    assert_eq!(
        why(selector(&ssd, json!({"disk": "hdd"})).await),
        format!("{head} conflicts with its namespace node label selector")
    );
    assert_eq!(
        why(selector(&ssd, json!({"zone": "a"})).await),
        format!("{head} labels conflict with its namespace whitelist")
    );
    // The default of the cluster is not among what this namespace may have.
    why(selector(&cluster(&json!({})), json!({})).await);
    let bad = selector(&cluster(&annotation("a=b=c")), json!({})).await;
    assert_eq!(why(bad), "invalid selector: [a b c]");
}

#[tokio::test]
async fn tolerations_are_added_and_restricted() {
    const CONFIGURATION: &str = "apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1\nkind: Configuration\ndefault: [{key: cluster, operator: Exists}]\nwhitelist: [{operator: Exists}]";
    let chain = chain("PodTolerationRestriction", CONFIGURATION).expect("a chain");
    let keys = |made: &Value| -> Vec<String> {
        let list = made["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        list.iter().map(|t| t["key"].as_str().unwrap_or("").to_owned()).collect()
    };
    let made = create(json!({})).of(&chain, &cluster(&json!({}))).await.expect("admitted");
    assert!(keys(&made).contains(&"cluster".to_owned()));
    let annotations = json!({
        "scheduler.alpha.kubernetes.io/defaultTolerations": r#"[{"key":"own","operator":"Exists"}]"#,
        "scheduler.alpha.kubernetes.io/tolerationsWhitelist":
            r#"[{"key":"own","operator":"Exists"},{"operator":"Exists","effect":"NoExecute"}]"#,
    });
    let own = cluster(&annotations);
    let made = create(json!({})).of(&chain, &own).await.expect("admitted");
    assert!(
        keys(&made).contains(&"own".to_owned()) && !keys(&made).contains(&"cluster".to_owned())
    );
    let other = create(json!({"tolerations": [{"key": "x", "operator": "Exists"}]}));
    let refused = other.of(&chain, &own).await.expect_err("refused");
    assert_eq!(
        (refused.code, &*refused.message),
        (
            500,
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist"
        )
    );
    // Pods with requests tolerate memory pressure.
    let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]});
    let made = create(spec).of(&chain, &cluster(&json!({}))).await.expect("admitted");
    assert!(keys(&made).contains(&"node.kubernetes.io/memory-pressure".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn events_are_limited() {
    const HEAD: &str =
        "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\nlimits:";
    let chain_of = |limits: &str| chain("EventRateLimit", &format!("{HEAD} {limits}"));
    let all = chain_of("[{type: Namespace, qps: 1, burst: 2}, {type: User, qps: 100, burst: 100}]");
    let all = all.expect("a chain");
    let cluster = cluster(&json!({}));
    let event = || asked(Operation::Create, "events", json!({"metadata": {"name": "p"}}));
    for _ in 0..2 {
        event().of(&all, &cluster).await.expect("within the burst");
    }
    Asked { dry_run: true, ..event() }.of(&all, &cluster).await.expect("a dry run counts nothing");
    let refused = event().of(&all, &cluster).await.expect_err("refused");
    assert_eq!(
        (refused.code, &*refused.message),
        (429, "Too many requests: limit reached on type Namespace for key default")
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    event().of(&all, &cluster).await.expect("a second later");
    let fault = |limits: &str| chain_of(limits).expect_err("refused");
    for (limits, why) in [
        ("[]", "limits: Invalid value: null: must not be empty"),
        (
            "[{type: X, qps: 1, burst: 1}]",
            "limits[0].type: Unsupported value: \"X\": supported values: \"Namespace\", \"Server\", \"SourceAndObject\", \"User\"",
        ),
        ("[{type: Server, qps: 1}]", "limits[0].burst: Invalid value: 0: must be positive"),
        ("[{type: Server, burst: 1}]", "limits[0].qps: Invalid value: 0: must be positive"),
        (
            "[{type: User, qps: 1, burst: 1, cacheSize: -1}]",
            "limits[0].cacheSize: Invalid value: -1: must not be negative",
        ),
    ] {
        assert_eq!(
            fault(limits),
            format!("couldn't init admission plugin \"EventRateLimit\": {why}")
        );
    }
}

#[tokio::test]
async fn owners_are_set_by_those_who_may() {
    let chain = chain("OwnerReferencesPermissionEnforcement", "").expect("a chain");
    let cluster = cluster(&json!({}));
    let owned = |blocks: bool| {
        json!({"metadata": {"name": "p", "ownerReferences": [
        {"apiVersion": "v1", "kind": "Pod", "name": "o", "uid": "1", "blockOwnerDeletion": blocks}]}})
    };
    let create = |object: Value| asked(Operation::Create, "configmaps", object);
    create(owned(false)).of(&chain, &cluster).await.expect("nothing is blocked");
    let refused = why(create(owned(true)).of(&chain, &cluster).await);
    assert!(refused.contains("cannot set blockOwnerDeletion"), "{refused}");
    let bare = json!({"metadata": {"name": "p"}});
    let update = Asked { old: Some(bare), ..asked(Operation::Update, "configmaps", owned(false)) };
    let refused = why(update.of(&chain, &cluster).await);
    assert!(refused.contains("cannot set an ownerRef on a resource you can't delete"), "{refused}");
    let masters = User::new("admin", &["system:masters"]);
    let allowed = Asked { user: masters, ..create(owned(true)) };
    allowed.of(&chain, &cluster).await.expect("an administrator may");
}

/// Answers what it was told to.
struct Told(Mutex<VecDeque<Result<Value, CallFailure>>>);

impl Caller for Told {
    fn call<'a>(&'a self, _: &'a Value, _: Duration) -> BoxFuture<'a, Result<Value, CallFailure>> {
        let mut answers = self.0.lock().expect("unpoisoned");
        let answer = answers.pop_front().expect("asked no more often");
        Box::pin(std::future::ready(answer))
    }
}

fn image_chain(
    default_allow: bool,
    answers: Vec<Result<Value, CallFailure>>,
) -> Result<Chain, String> {
    let text = format!("imagePolicy: {{kubeConfigFile: k, defaultAllow: {default_allow}}}");
    let configuration = Configuration::read(text.as_bytes(), &|_| Err("no files".into()))?;
    let selection = Selection { enabled: vec!["ImagePolicyWebhook".into()], disabled: Vec::new() };
    let told: Arc<dyn Caller> = Arc::new(Told(Mutex::new(answers.into())));
    let reach = |path: &str| match path {
        "k" => Ok(told.clone()),
        other => Err(format!("no file {other}")),
    };
    Chain::new(&Setup {
        selection: &selection,
        configuration: &configuration,
        reach: &reach,
        ..Setup::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_webhook_decides_about_images() {
    let cluster = cluster(&json!({}));
    let review = |status: Value| Ok(json!({"status": status}));
    let failure = |code| Err(CallFailure { code, message: "dead".into() });
    let spec = |image: &str| json!({"containers": [{"name": "c", "image": image}]});
    let answers = vec![
        failure(Some(500)),
        review(json!({"allowed": true})),
        review(json!({"allowed": false, "reason": "old"})),
        review(json!({"allowed": false})),
        failure(None),
    ];
    let chain = image_chain(false, answers).expect("a chain");
    create(spec("a")).of(&chain, &cluster).await.expect("after a second try");
    create(spec("a")).of(&chain, &cluster).await.expect("remembered");
    let head = "pods \"p\" is forbidden:";
    for (image, reason) in [
        ("b", "image policy webhook backend denied one or more images: old"),
        ("c", "one or more images rejected by webhook backend"),
        ("d", "dead"),
    ] {
        let refused = create(spec(image)).of(&chain, &cluster).await;
        assert_eq!(why(refused), format!("{head} {reason}"));
    }
    let open = image_chain(true, vec![failure(None)]).expect("a chain");
    create(spec("a")).of(&open, &cluster).await.expect("allowed without an answer");
    assert!(
        self::chain("ImagePolicyWebhook", "").expect_err("refused").contains("no config specified")
    );
    let bad = "imagePolicy: {kubeConfigFile: k, allowTTL: 4000}";
    assert!(
        self::chain("ImagePolicyWebhook", bad)
            .expect_err("refused")
            .contains("valid value is between")
    );
}

#[tokio::test]
async fn pod_security_has_defaults_and_exemptions() {
    const CONFIGURATION: &str = "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\ndefaults: {enforce: baseline}\nexemptions: {usernames: [trusted]}";
    let chain = chain("PodSecurity", CONFIGURATION).expect("a chain");
    let spec = || json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]});
    let refused = why(create(spec()).of(&chain, &cluster(&json!({}))).await);
    assert!(refused.contains("violates PodSecurity \"baseline:latest\""), "{refused}");
    let trusted = Asked { user: User::new("trusted", &[]), ..create(spec()) };
    trusted.of(&chain, &cluster(&json!({}))).await.expect("exempt");
    let bad = CONFIGURATION.replace("baseline", "high");
    assert!(self::chain("PodSecurity", &bad).expect_err("refused").contains("defaults.enforce"));
    assert!(self::chain("PodSecurity", "kind: X\napiVersion: y/v1").is_err());
}

#[tokio::test]
async fn limited_resources_need_a_quota() {
    const CONFIGURATION: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: ResourceQuotaConfiguration\nlimitedResources: [{resource: pods, matchScopes: [{scopeName: PriorityClass, operator: In, values: [high]}]}]";
    let chain = chain("ResourceQuota", CONFIGURATION).expect("a chain");
    let high = ("priorityclasses", json!({"metadata": {"name": "high"}, "value": 7}));
    let cluster = Fake::with(&[namespace(&json!({})), account(), high]);
    let refused = create(json!({"priorityClassName": "high"})).of(&chain, &cluster).await;
    assert_eq!(
        why(refused),
        "pods \"p\" is forbidden: insufficient quota to match these scopes: [{PriorityClass In [high]}]"
    );
    create(json!({})).of(&chain, &cluster).await.expect("not limited");
    assert!(self::chain("ResourceQuota", "kind: X\napiVersion: y/v1").is_err());
}

#[tokio::test]
async fn pods_are_not_resized_beyond_their_node() {
    let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
    let windows = json!({"metadata": {"name": "w", "labels": {"kubernetes.io/os": "windows"}}});
    let cluster =
        Fake::with(&[namespace(&json!({})), account(), ("nodes", node), ("nodes", windows)]);
    let chain = Chain::default();
    let resize = |node: &str, cpu: &str| {
        let mut new = pod(json!({"nodeName": node, "serviceAccountName": "default",
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}));
        new["metadata"]["generation"] = 2.into();
        let old = pod(json!({"nodeName": node}));
        Asked {
            path: ("", "pods", "resize"),
            old: Some(old),
            ..asked(Operation::Update, "pods", new)
        }
    };
    resize("n", "2").of(&chain, &cluster).await.expect("it fits");
    assert_eq!(
        why(resize("n", "3").of(&chain, &cluster).await),
        "pods \"p\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000"
    );
    assert!(
        why(resize("w", "1").of(&chain, &cluster).await).contains("only supported on linux nodes")
    );
    assert!(why(resize("x", "1").of(&chain, &cluster).await).contains("node \"x\" not found"));
}

#[test]
fn plugins_can_be_switched_off_and_unknown_ones_are_refused() {
    let of = |enabled: &[&str], disabled: &[&str]| {
        let all = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let selection = Selection { enabled: all(enabled), disabled: all(disabled) };
        let chain = Chain::new(&Setup { selection: &selection, ..Setup::default() });
        chain.map(|chain| format!("{chain:?}"))
    };
    let usual = of(&[], &[]).expect("a chain");
    assert!(usual.contains("\"Priority\"") && !usual.contains("AlwaysPullImages"));
    let other = of(&["AlwaysPullImages"], &["Priority"]).expect("a chain");
    assert!(!other.contains("\"Priority\"") && other.contains("AlwaysPullImages"));
    assert_eq!(
        of(&["Nonsense"], &[]).expect_err("refused"),
        "enable-admission-plugins plugin \"Nonsense\" is unknown"
    );
}
