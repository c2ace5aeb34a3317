//! The controllers of kube-controller-manager: one folder each, one table that starts them.
//!
//! Every controller reads informers, computes a plan without side effects and applies it; keys are
//! queued by changes only. None knows another, nor HTTP or storage.

mod attachdetach;
mod bootstrapsigner;
mod certificates;
mod clusterroleaggregation;
mod configrollout;
mod cronjob;
mod daemonset;
mod deployment;
mod devicetainteviction;
mod discovery;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslicemirroring;
mod ephemeralvolume;
mod figures;
mod garbagecollector;
mod harness;
mod horizontalpodautoscaler;
mod job;
mod jobs;
mod legacytokencleaner;
mod meta;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod nodes;
mod persistentvolume;
mod podgc;
mod pods;
mod replicas;
mod resourceclaim;
mod resourcequota;
mod rootca;
mod serviceaccount;
mod serviceaccounttoken;
mod servicecidr;
mod services;
mod statefulset;
mod storageprotection;
mod tainteviction;
mod tokencleaner;
mod ttl;
mod ttlafterfinished;
mod validatingadmissionpolicystatus;
mod volumeexpand;

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Informers, Recorder, Tasks};

pub use figures::figures;

/// What can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which controllers run, as upstream's `--controllers`: `*`, `name`, `-name`.
    pub controllers: Vec<String>,
    /// The CA bundle that pods verify the API server with.
    pub cluster_ca_pem: String,
    /// Where pod networks of nodes are cut from, at most one per address family; empty leaves
    /// nodes without.
    pub cluster_cidrs: Vec<ipnet::IpNet>,
    /// Prefix length of a node's IPv4 network.
    pub node_cidr_mask: u8,
    /// Prefix length of a node's IPv6 network.
    pub node_cidr_mask_v6: u8,
    /// Signs certificate signing requests; without it nobody does.
    pub authority: Option<Arc<pki::Authority>>,
    /// Makes the tokens of Secrets; without it nobody does.
    pub tokens: Option<Arc<pki::TokenIssuer>>,
    /// The longest life of a certificate that is signed.
    pub signing_life: Duration,
    /// Auto-generated token Secrets that nobody used for so long are cleaned up.
    pub legacy_token_clean_up_period: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            controllers: vec!["*".into()],
            cluster_ca_pem: String::new(),
            cluster_cidrs: Vec::new(),
            node_cidr_mask: 24,
            node_cidr_mask_v6: 64,
            authority: None,
            tokens: None,
            // Upstream's --cluster-signing-duration.
            signing_life: Duration::from_secs(365 * 24 * 3600),
            // Upstream's --legacy-service-account-token-clean-up-period.
            legacy_token_clean_up_period: Duration::from_secs(365 * 24 * 3600),
        }
    }
}

impl Config {
    /// Whether every controller named exists, for those who start them later.
    pub fn check(&self) -> Result<(), UnknownController> {
        select(&self.controllers).map(|_| ())
    }
}

/// What a controller is started with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) informers: Informers,
    pub(crate) client: Client,
    pub(crate) tasks: Tasks,
    pub(crate) config: Arc<Config>,
}

impl Context {
    /// A recorder whose events come from `component`.
    pub(crate) fn recorder(&self, component: &str) -> Recorder {
        Recorder::new(self.client.clone(), &self.tasks, component, "")
    }
}

type Start = fn(&Context);

/// Upstream's name, its short alias of old, and how it starts.
const CONTROLLERS: &[(&str, &str, Start)] = &[
    ("replicaset-controller", "replicaset", replicas::start_sets),
    ("replicationcontroller-controller", "replicationcontroller", replicas::start_controllers),
    ("daemonset-controller", "daemonset", daemonset::start),
    ("statefulset-controller", "statefulset", statefulset::start),
    ("job-controller", "job", job::start),
    ("cronjob-controller", "cronjob", cronjob::start),
    ("ttl-after-finished-controller", "ttl-after-finished", ttlafterfinished::start),
    ("deployment-controller", "deployment", deployment::start),
    ("endpointslice-controller", "endpointslice", endpointslice::start),
    ("endpointslice-mirroring-controller", "endpointslicemirroring", endpointslicemirroring::start),
    ("disruption-controller", "disruption", disruption::start),
    ("endpoints-controller", "endpoint", endpoints::start),
    ("serviceaccount-controller", "serviceaccount", serviceaccount::start),
    ("serviceaccount-token-controller", "serviceaccount-token", serviceaccounttoken::start),
    ("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", rootca::start),
    ("namespace-controller", "namespace", namespace::start),
    ("node-ipam-controller", "nodeipam", nodeipam::start),
    ("node-lifecycle-controller", "nodelifecycle", nodelifecycle::start),
    ("taint-eviction-controller", "taint-eviction", tainteviction::start),
    ("pod-garbage-collector-controller", "podgc", podgc::start),
    ("certificatesigningrequest-signing-controller", "csrsigning", certificates::start_signing),
    (
        "certificatesigningrequest-approving-controller",
        "csrapproving",
        certificates::start_approving,
    ),
    ("certificatesigningrequest-cleaner-controller", "csrcleaner", certificates::start_cleaning),
    ("persistentvolume-binder-controller", "persistentvolume-binder", persistentvolume::start),
    (
        "horizontal-pod-autoscaler-controller",
        "horizontal-pod-autoscaling",
        horizontalpodautoscaler::start,
    ),
    ("service-cidr-controller", "service-cidr-controller", servicecidr::start),
    ("persistentvolume-attach-detach-controller", "attachdetach", attachdetach::start),
    ("persistentvolume-expander-controller", "persistentvolume-expander", volumeexpand::start),
    ("bootstrap-signer-controller", "bootstrapsigner", bootstrapsigner::start),
    ("token-cleaner-controller", "tokencleaner", tokencleaner::start),
    (
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
        legacytokencleaner::start,
    ),
    ("ttl-controller", "ttl", ttl::start),
    ("ephemeral-volume-controller", "ephemeral-volume", ephemeralvolume::start),
    (
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation",
        clusterroleaggregation::start,
    ),
    ("garbage-collector-controller", "garbagecollector", garbagecollector::start),
    ("resourcequota-controller", "resourcequota", resourcequota::start),
    (
        "persistentvolumeclaim-protection-controller",
        "pvc-protection",
        storageprotection::start_claims,
    ),
    ("persistentvolume-protection-controller", "pv-protection", storageprotection::start_volumes),
    (
        "validatingadmissionpolicy-status-controller",
        "validatingadmissionpolicy-status",
        validatingadmissionpolicystatus::start,
    ),
    ("resourceclaim-controller", "resource-claim-controller", resourceclaim::start),
    // Not upstream's: it does nothing for workloads that do not ask for it.
    ("config-rollout-controller", "config-rollout-controller", configrollout::start),
    // Upstream gives the following no short names.
    (
        "device-taint-eviction-controller",
        "device-taint-eviction-controller",
        devicetainteviction::start,
    ),
    (
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
        storageprotection::start_classes,
    ),
];

/// Controllers that `*` does not start, as in upstream.
const ON_DEMAND: &[&str] = &["bootstrap-signer-controller", "token-cleaner-controller"];

/// Controllers behind gates that are off in v1.36: name, alias, gate. Naming one is no error, and it is not
/// started, as upstream when the gate is off.
const GATED: &[(&str, &str, &str)] = &[
    (
        "podcertificaterequest-cleaner-controller",
        "podcertificaterequest-cleaner-controller",
        "PodCertificateRequest",
    ),
    ("podgroup-protection-controller", "podgroup-protection-controller", "GenericWorkload"),
    (
        "kube-apiserver-serving-clustertrustbundle-publisher-controller",
        "kube-apiserver-serving-clustertrustbundle-publisher-controller",
        "ClusterTrustBundle",
    ),
    ("storageversion-garbage-collector-controller", "storage-version-gc", "StorageVersionAPI"),
    ("storage-version-migrator-controller", "svm", "StorageVersionMigrator"),
    (
        "resourcepoolstatusrequest-controller",
        "resourcepoolstatusrequest-controller",
        "DRAResourcePoolStatus",
    ),
];

/// A name given in `Config::controllers` that no controller has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not in the list of known controllers")]
pub struct UnknownController(pub String);

/// The names that `Config::controllers` knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    CONTROLLERS.iter().map(|(name, ..)| *name)
}

/// Starts the selected controllers; they end with `tasks`.
pub fn run(informers: &Informers, tasks: &Tasks, config: Config) -> Result<(), UnknownController> {
    let selected = select(&config.controllers)?;
    let client = informers.client().clone();
    let context = Context {
        informers: informers.clone(),
        client,
        tasks: tasks.clone(),
        config: Arc::new(config),
    };
    for (name, start) in selected {
        tracing::debug!(controller = name, "starting");
        start(&context);
        figures::started(name);
    }
    Ok(())
}

fn select(wanted: &[String]) -> Result<Vec<(&'static str, Start)>, UnknownController> {
    let is = |text: &str, (name, alias, _): &(&str, &str, Start)| text == *name || text == *alias;
    for text in wanted.iter().filter(|text| *text != "*") {
        let plain = text.strip_prefix('-').unwrap_or(text);
        let gated = GATED.iter().find(|(name, alias, _)| plain == *name || plain == *alias);
        if let Some((name, _, gate)) = gated {
            if plain == text {
                tracing::warn!(controller = name, gate, "not started: its feature gate is off");
            }
        } else if !CONTROLLERS.iter().any(|row| is(plain, row)) {
            return Err(UnknownController(plain.to_owned()));
        }
    }
    let all = wanted.iter().any(|text| text == "*");
    let runs = |row: &&(&str, &str, Start)| {
        let named = wanted.iter().find(|text| is(text.trim_start_matches('-'), row));
        named.map_or(all && !ON_DEMAND.contains(&row.0), |text| !text.starts_with('-'))
    };
    Ok(CONTROLLERS.iter().filter(runs).map(|(name, _, start)| (*name, *start)).collect())
}

#[cfg(test)]
mod tests {
    use super::select;

    #[test]
    fn controllers_are_selected_by_name() {
        let count = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|s| (*s).to_owned()).collect();
            select(&list).map(|s| s.len())
        };
        let all = count(&["*"]).unwrap();
        assert_eq!(count(&["*", "-deployment-controller"]), Ok(all - 1));
        assert_eq!(count(&["deployment"]), Ok(1));
        assert_eq!(count(&["*", "tokencleaner"]), Ok(all + 1));
        assert!(count(&["nope"]).is_err());
        // Behind a gate that is off.
        assert_eq!(count(&["*", "podgroup-protection-controller"]), Ok(all));
        assert_eq!(count(&["-storage-version-gc", "*"]), Ok(all));
    }
}
