//! Profiles made from a configuration.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Tasks};
use devices::Selectors;

use crate::config::{Config, FitArgs, PluginArgs, ProfileConfig, enabled_at};
use crate::extender::Extenders;
use crate::framework::{MAX_NODE_SCORE, Plugin, Points};
use crate::plugins::balanced_allocation::BalancedAllocation;
use crate::plugins::default_binder::DefaultBinder;
use crate::plugins::default_preemption::DefaultPreemption;
use crate::plugins::dynamic_resources::DynamicResources;
use crate::plugins::image_locality::ImageLocality;
use crate::plugins::inter_pod_affinity::InterPodAffinity;
use crate::plugins::names;
use crate::plugins::node_affinity::NodeAffinity;
use crate::plugins::node_declared_features::NodeDeclaredFeatures;
use crate::plugins::node_name::NodeName;
use crate::plugins::node_ports::NodePorts;
use crate::plugins::node_resources::WeightedResource;
use crate::plugins::node_resources_fit::{NodeResourcesFit, Strategy};
use crate::plugins::node_unschedulable::NodeUnschedulable;
use crate::plugins::node_volume_limits::NodeVolumeLimits;
use crate::plugins::pod_topology_spread::{DefaultConstraint, PodTopologySpread};
use crate::plugins::priority_sort::PrioritySort;
use crate::plugins::scheduling_gates::SchedulingGates;
use crate::plugins::taint_toleration::TaintToleration;
use crate::plugins::volume_binding::VolumeBinding;
use crate::plugins::volume_restrictions::VolumeRestrictions;
use crate::plugins::volume_zone::VolumeZone;
use crate::profile::{Counts, Order, Profile};
use crate::store::Listers;

/// The best score of the highest-ranking extender or shape (upstream's `MaxCustomPriorityScore`).
const SHAPE_SCORE_MAX: i64 = 10;

/// What plugins are made with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handle {
    pub(crate) listers: Arc<Listers>,
    pub(crate) client: Option<Client>,
    pub(crate) tasks: Option<Tasks>,
    pub(crate) extenders: Extenders,
}

pub(crate) fn profiles(config: &Config, handle: &Handle) -> Result<Vec<Arc<Profile>>, String> {
    let build = |profile: &ProfileConfig| {
        let built = build_profile(profile, handle);
        built.map(Arc::new).map_err(|why| {
            format!(
                "initializing profiles: creating profile for scheduler name {}: {why}",
                profile.name
            )
        })
    };
    config.profiles.iter().map(build).collect()
}

fn build_profile(config: &ProfileConfig, handle: &Handle) -> Result<Profile, String> {
    let mut plugins: Vec<Arc<dyn Plugin>> = Vec::new();
    for name in config.plugins.all() {
        if let Some(plugin) = plugin(name, &config.args, handle) {
            plugins.push(plugin);
        }
    }
    let order = order(config, &plugins)?;
    let counts = Counts::of(&config.name, &plugins, &order);
    Ok(Profile {
        counts,
        name: config.name.clone(),
        percentage_of_nodes_to_score: config.percentage_of_nodes_to_score,
        plugins,
        order,
        extenders: handle.extenders.clone(),
    })
}

fn order(config: &ProfileConfig, plugins: &[Arc<dyn Plugin>]) -> Result<Order, String> {
    let place = |name: &str| plugins.iter().position(|p| p.name() == name);
    let mut order = Order::default();
    let mut sorts = 0;
    for plugin in &config.plugins.multi_point.enabled {
        if place(&plugin.name).is_none() {
            return Err(format!("PreEnqueuePlugin \"{}\" does not exist", plugin.name));
        }
    }
    for (_, title, point, set) in config.plugins.points() {
        let speaks = |name: &str| place(name).is_some_and(|at| plugins[at].points().has(point));
        let mut places: Vec<(usize, i64)> = Vec::new();
        for enabled in enabled_at(&config.plugins, set, speaks) {
            let name = &enabled.name;
            let at = place(name).ok_or_else(|| format!("{title} \"{name}\" does not exist"))?;
            if !plugins[at].points().has(point) {
                return Err(format!("plugin \"{name}\" does not extend {title} plugin"));
            }
            if places.iter().any(|(other, _)| *other == at) {
                return Err(format!("plugin \"{name}\" already registered as \"{title}\""));
            }
            places.push((at, enabled.weight));
        }
        let plain = || places.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        match point {
            Points::PRE_ENQUEUE => order.pre_enqueue = plain(),
            Points::QUEUE_SORT => sorts = places.len(),
            Points::PRE_FILTER => order.pre_filter = plain(),
            Points::FILTER => order.filter = plain(),
            Points::POST_FILTER => order.post_filter = plain(),
            Points::SCORE => order.score = weights(config, plugins, &places)?,
            Points::RESERVE => order.reserve = plain(),
            Points::PRE_BIND => order.pre_bind = plain(),
            Points::BIND => order.bind = plain(),
            _ => {}
        }
    }
    if sorts != 1 {
        return Err(format!(
            "only one queue sort plugin required for profile with scheduler name \"{}\", but got {sorts}",
            config.name
        ));
    }
    if order.bind.is_empty() {
        return Err(format!(
            "at least one bind plugin is needed for profile with scheduler name \"{}\"",
            config.name
        ));
    }
    Ok(order)
}

/// A point's own weight counts, else that of all points, else 1.
fn weights(
    config: &ProfileConfig,
    plugins: &[Arc<dyn Plugin>],
    places: &[(usize, i64)],
) -> Result<Vec<(usize, i64)>, String> {
    let mut total: i64 = 0;
    let mut out = Vec::new();
    for (at, own) in places {
        let name = plugins[*at].name();
        let everywhere = config.plugins.multi_point.enabled.iter().find(|p| p.name == name);
        let weight = match (*own, everywhere.map_or(0, |p| p.weight)) {
            (0, 0) => 1,
            (0, weight) | (weight, _) => weight,
        };
        total = weight
            .checked_mul(MAX_NODE_SCORE)
            .and_then(|score| total.checked_add(score))
            .filter(|total| *total <= i64::from(i32::MAX) * MAX_NODE_SCORE)
            .ok_or("score plugins: total score of Score plugins could overflow")?;
        out.push((*at, weight));
    }
    Ok(out)
}

fn plugin(name: &str, args: &PluginArgs, handle: &Handle) -> Option<Arc<dyn Plugin>> {
    let listers = || handle.listers.clone();
    let resources = |all: &[crate::config::ResourceSpec]| -> Vec<WeightedResource> {
        let of = |r: &crate::config::ResourceSpec| WeightedResource {
            name: r.name.clone(),
            weight: r.weight,
        };
        all.iter().map(of).collect()
    };
    Some(match name {
        names::SCHEDULING_GATES => Arc::new(SchedulingGates),
        names::PRIORITY_SORT => Arc::new(PrioritySort),
        names::NODE_UNSCHEDULABLE => Arc::new(NodeUnschedulable),
        names::NODE_NAME => Arc::new(NodeName),
        names::TAINT_TOLERATION => Arc::new(TaintToleration),
        names::NODE_AFFINITY => {
            Arc::new(NodeAffinity::new(args.node_affinity.added_affinity.clone()))
        }
        names::NODE_PORTS => Arc::new(NodePorts),
        names::NODE_RESOURCES_FIT => {
            let strategy = strategy(&args.fit);
            let mut ignored = handle.extenders.ignored_resources();
            ignored.extend(args.fit.ignored_resources.iter().cloned());
            let groups = args.fit.ignored_resource_groups.iter().cloned();
            let resources = resources(&args.fit.scoring_strategy.resources);
            Arc::new(NodeResourcesFit::new(strategy, resources, ignored, groups, listers()))
        }
        names::VOLUME_RESTRICTIONS => Arc::new(VolumeRestrictions { listers: listers() }),
        names::NODE_VOLUME_LIMITS => Arc::new(NodeVolumeLimits { listers: listers() }),
        names::VOLUME_BINDING => {
            let seconds = u64::try_from(args.volume_binding.bind_timeout_seconds).unwrap_or(0);
            Arc::new(VolumeBinding {
                listers: listers(),
                client: handle.client.clone(),
                bind_timeout: Duration::from_secs(seconds),
            })
        }
        names::VOLUME_ZONE => Arc::new(VolumeZone { listers: listers() }),
        names::POD_TOPOLOGY_SPREAD => Arc::new(spread(args, listers())),
        names::INTER_POD_AFFINITY => {
            let args = &args.inter_pod_affinity;
            Arc::new(InterPodAffinity {
                hard_pod_affinity_weight: args.hard_pod_affinity_weight,
                ignore_preferred_terms_of_existing_pods: args
                    .ignore_preferred_terms_of_existing_pods,
            })
        }
        names::DYNAMIC_RESOURCES => Arc::new(dynamic_resources(args, handle)),
        names::DEFAULT_PREEMPTION => {
            let count = |n: i64| usize::try_from(n).unwrap_or(0);
            let args = &args.preemption;
            Arc::new(DefaultPreemption::new(
                listers(),
                count(args.min_candidate_nodes_percentage),
                count(args.min_candidate_nodes_absolute),
            ))
        }
        names::NODE_RESOURCES_BALANCED_ALLOCATION => {
            Arc::new(BalancedAllocation::new(resources(&args.balanced.resources)))
        }
        names::IMAGE_LOCALITY => Arc::new(ImageLocality),
        names::NODE_DECLARED_FEATURES => Arc::new(NodeDeclaredFeatures),
        names::DEFAULT_BINDER => Arc::new(DefaultBinder { client: handle.client.clone() }),
        _ => return None,
    })
}

fn dynamic_resources(args: &PluginArgs, handle: &Handle) -> DynamicResources {
    DynamicResources {
        listers: handle.listers.clone(),
        client: handle.client.clone(),
        tasks: handle.tasks.clone(),
        selectors: Selectors::new(),
        filter_timeout: args.dynamic_resources.filter_timeout,
        binding_timeout: args.dynamic_resources.binding_timeout,
    }
}

fn strategy(args: &FitArgs) -> Strategy {
    let strategy = &args.scoring_strategy;
    match (strategy.kind.as_str(), &strategy.requested_to_capacity_ratio) {
        ("MostAllocated", _) => Strategy::MostAllocated,
        ("RequestedToCapacityRatio", Some(param)) => {
            let scale = MAX_NODE_SCORE / SHAPE_SCORE_MAX;
            let points = param.shape.iter().map(|p| (p.utilization, p.score * scale));
            Strategy::RequestedToCapacityRatio(points.collect())
        }
        _ => Strategy::LeastAllocated,
    }
}

fn spread(args: &PluginArgs, listers: Arc<Listers>) -> PodTopologySpread {
    if args.spread.defaulting_type == "System" {
        return PodTopologySpread::new(listers);
    }
    let constraint = |c: &k8s_openapi::api::core::v1::TopologySpreadConstraint| DefaultConstraint {
        topology_key: c.topology_key.clone(),
        max_skew: i64::from(c.max_skew),
        hard: c.when_unsatisfiable == "DoNotSchedule",
    };
    let list = args.spread.default_constraints.iter().map(constraint).collect();
    PodTopologySpread::with_defaults(listers, list)
}
