//! Arguments of plugins.

use std::time::Duration;

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::API_VERSION;
use crate::plugins::names;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Args {
    pub(crate) name: String,
    pub(crate) args: Value,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PluginArgs {
    pub(crate) preemption: PreemptionArgs,
    pub(crate) inter_pod_affinity: InterPodAffinityArgs,
    pub(crate) node_affinity: NodeAffinityArgs,
    pub(crate) balanced: BalancedArgs,
    pub(crate) fit: FitArgs,
    pub(crate) spread: SpreadArgs,
    pub(crate) volume_binding: VolumeBindingArgs,
    pub(crate) dynamic_resources: DynamicResourcesArgs,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PreemptionArgs {
    pub(crate) min_candidate_nodes_percentage: i64,
    pub(crate) min_candidate_nodes_absolute: i64,
}

impl Default for PreemptionArgs {
    fn default() -> PreemptionArgs {
        PreemptionArgs { min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct InterPodAffinityArgs {
    pub(crate) hard_pod_affinity_weight: i64,
    pub(crate) ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinityArgs {
    fn default() -> InterPodAffinityArgs {
        InterPodAffinityArgs {
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms_of_existing_pods: false,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodeAffinityArgs {
    pub(crate) added_affinity: Option<NodeAffinity>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResourceSpec {
    pub(crate) name: String,
    #[serde(default = "one")]
    pub(crate) weight: i64,
}

fn one() -> i64 {
    1
}

fn default_resources() -> Vec<ResourceSpec> {
    ["cpu", "memory"].map(|name| ResourceSpec { name: name.into(), weight: 1 }).to_vec()
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BalancedArgs {
    pub(crate) resources: Vec<ResourceSpec>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FitArgs {
    pub(crate) ignored_resources: Vec<String>,
    pub(crate) ignored_resource_groups: Vec<String>,
    pub(crate) scoring_strategy: ScoringStrategy,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ScoringStrategy {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) resources: Vec<ResourceSpec>,
    pub(crate) requested_to_capacity_ratio: Option<RatioParam>,
}

impl Default for ScoringStrategy {
    fn default() -> ScoringStrategy {
        ScoringStrategy {
            kind: "LeastAllocated".into(),
            resources: Vec::new(),
            requested_to_capacity_ratio: None,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RatioParam {
    pub(crate) shape: Vec<ShapePoint>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ShapePoint {
    pub(crate) utilization: i64,
    pub(crate) score: i64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SpreadArgs {
    pub(crate) default_constraints: Vec<TopologySpreadConstraint>,
    pub(crate) defaulting_type: String,
}

impl Default for SpreadArgs {
    fn default() -> SpreadArgs {
        SpreadArgs { default_constraints: Vec::new(), defaulting_type: "System".into() }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct VolumeBindingArgs {
    pub(crate) bind_timeout_seconds: i64,
    pub(crate) shape: Option<Vec<ShapePoint>>,
}

impl Default for VolumeBindingArgs {
    fn default() -> VolumeBindingArgs {
        VolumeBindingArgs { bind_timeout_seconds: 600, shape: None }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DynamicResourcesArgs {
    /// Zero for no limit.
    #[serde(deserialize_with = "crate::duration::required")]
    pub(crate) filter_timeout: Duration,
    #[serde(deserialize_with = "crate::duration::required")]
    pub(crate) binding_timeout: Duration,
}

impl Default for DynamicResourcesArgs {
    fn default() -> DynamicResourcesArgs {
        DynamicResourcesArgs {
            filter_timeout: Duration::from_secs(10),
            binding_timeout: Duration::from_secs(600),
        }
    }
}

impl PluginArgs {
    pub(crate) fn of(all: &[Args]) -> Result<PluginArgs, String> {
        let mut out = PluginArgs::default();
        for args in all {
            match args.name.as_str() {
                names::DEFAULT_PREEMPTION => out.preemption = decode(args)?,
                names::INTER_POD_AFFINITY => out.inter_pod_affinity = decode(args)?,
                names::NODE_AFFINITY => out.node_affinity = decode(args)?,
                names::NODE_RESOURCES_BALANCED_ALLOCATION => out.balanced = decode(args)?,
                names::NODE_RESOURCES_FIT => out.fit = decode(args)?,
                names::POD_TOPOLOGY_SPREAD => out.spread = decode(args)?,
                names::VOLUME_BINDING => out.volume_binding = decode(args)?,
                names::DYNAMIC_RESOURCES => out.dynamic_resources = decode(args)?,
                // Arguments of plugins that nobody knows are kept from nobody, as upstream.
                _ => {}
            }
        }
        if out.balanced.resources.is_empty() {
            out.balanced.resources = default_resources();
        }
        if out.fit.scoring_strategy.resources.is_empty() {
            out.fit.scoring_strategy.resources = default_resources();
        }
        let weighted = out.balanced.resources.iter_mut();
        for resource in weighted.chain(&mut out.fit.scoring_strategy.resources) {
            if resource.weight == 0 {
                resource.weight = 1;
            }
        }
        Ok(out)
    }
}

fn decode<T: DeserializeOwned>(args: &Args) -> Result<T, String> {
    let mut tree = args.args.clone();
    let wanted = format!("{}Args", args.name);
    if let Some(fields) = tree.as_object_mut() {
        let kind = fields.remove("kind");
        if kind.as_ref().is_some_and(|k| *k != wanted) {
            return Err(format!(
                "args for plugin {} were not of type {wanted}.kubescheduler.config.k8s.io, got {}",
                args.name,
                kind.as_ref().and_then(Value::as_str).unwrap_or("")
            ));
        }
        let version = fields.remove("apiVersion");
        if version.as_ref().is_some_and(|v| *v != API_VERSION) {
            return Err(format!(
                "no kind \"{wanted}\" is registered for version \"{}\"",
                version.as_ref().and_then(Value::as_str).unwrap_or("")
            ));
        }
    }
    if tree.is_null() {
        tree = Value::Object(serde_json::Map::new());
    }
    serde_json::from_value(tree)
        .map_err(|e| format!("strict decoding error: decoding args for plugin {}: {e}", args.name))
}
