//! Which plugins a profile has at which extension point.

use serde::Deserialize;

use crate::framework::Points;
use crate::plugins::names;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EnabledPlugin {
    pub(crate) name: String,
    pub(crate) weight: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PluginSet {
    pub(crate) enabled: Vec<EnabledPlugin>,
    /// `*` for all.
    pub(crate) disabled: Vec<EnabledPlugin>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Plugins {
    pub(crate) pre_enqueue: PluginSet,
    pub(crate) queue_sort: PluginSet,
    pub(crate) pre_filter: PluginSet,
    pub(crate) filter: PluginSet,
    pub(crate) post_filter: PluginSet,
    /// A plugin that scores prepares itself: this set only has to be valid.
    pub(crate) pre_score: PluginSet,
    pub(crate) score: PluginSet,
    pub(crate) reserve: PluginSet,
    pub(crate) permit: PluginSet,
    pub(crate) pre_bind: PluginSet,
    pub(crate) bind: PluginSet,
    pub(crate) post_bind: PluginSet,
    pub(crate) multi_point: PluginSet,
}

pub(crate) fn default_plugins() -> Plugins {
    const DEFAULTS: [(&str, i64); 20] = [
        (names::SCHEDULING_GATES, 0),
        (names::PRIORITY_SORT, 0),
        (names::NODE_UNSCHEDULABLE, 0),
        (names::NODE_NAME, 0),
        (names::TAINT_TOLERATION, 3),
        (names::NODE_AFFINITY, 2),
        (names::NODE_PORTS, 0),
        (names::NODE_RESOURCES_FIT, 1),
        (names::VOLUME_RESTRICTIONS, 0),
        (names::NODE_VOLUME_LIMITS, 0),
        (names::VOLUME_BINDING, 0),
        (names::VOLUME_ZONE, 0),
        (names::POD_TOPOLOGY_SPREAD, 2),
        (names::INTER_POD_AFFINITY, 2),
        (names::DYNAMIC_RESOURCES, 2),
        (names::DEFAULT_PREEMPTION, 0),
        (names::NODE_RESOURCES_BALANCED_ALLOCATION, 1),
        (names::IMAGE_LOCALITY, 1),
        (names::DEFAULT_BINDER, 0),
        (names::NODE_DECLARED_FEATURES, 0),
    ];
    let plugin = |(name, weight): (&str, i64)| EnabledPlugin { name: name.into(), weight };
    let multi_point = PluginSet { enabled: DEFAULTS.map(plugin).to_vec(), disabled: Vec::new() };
    Plugins { multi_point, ..Plugins::default() }
}

impl PluginSet {
    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|p| p.name == name)
    }

    /// Re-configured plugins keep their place, others follow.
    fn merged_with(mut self, custom: &PluginSet) -> PluginSet {
        self.disabled.extend(custom.disabled.iter().cloned());
        if self.disables("*") {
            self.enabled.clear();
        }
        let disabled = std::mem::take(&mut self.enabled);
        self.enabled = disabled.into_iter().filter(|p| !self.disables(&p.name)).collect();
        let mut replaced = vec![false; custom.enabled.len()];
        for plugin in &mut self.enabled {
            let found = custom.enabled.iter().rposition(|c| c.name == plugin.name);
            if let Some(at) = found {
                *plugin = custom.enabled[at].clone();
                replaced[at] = true;
            }
        }
        let added = custom.enabled.iter().zip(replaced).filter(|(_, replaced)| !replaced);
        self.enabled.extend(added.map(|(plugin, _)| plugin.clone()));
        self
    }
}

impl Plugins {
    pub(crate) fn merged_with(self, custom: &Plugins) -> Plugins {
        Plugins {
            pre_enqueue: self.pre_enqueue.merged_with(&custom.pre_enqueue),
            queue_sort: self.queue_sort.merged_with(&custom.queue_sort),
            pre_filter: self.pre_filter.merged_with(&custom.pre_filter),
            filter: self.filter.merged_with(&custom.filter),
            post_filter: self.post_filter.merged_with(&custom.post_filter),
            pre_score: self.pre_score.merged_with(&custom.pre_score),
            score: self.score.merged_with(&custom.score),
            reserve: self.reserve.merged_with(&custom.reserve),
            permit: self.permit.merged_with(&custom.permit),
            pre_bind: self.pre_bind.merged_with(&custom.pre_bind),
            bind: self.bind.merged_with(&custom.bind),
            post_bind: self.post_bind.merged_with(&custom.post_bind),
            multi_point: self.multi_point.merged_with(&custom.multi_point),
        }
    }

    /// The sets of single extension points, with their upstream names.
    pub(crate) fn points(&self) -> [(&'static str, &'static str, Points, &PluginSet); 12] {
        [
            ("preEnqueue", "PreEnqueuePlugin", Points::PRE_ENQUEUE, &self.pre_enqueue),
            ("queueSort", "QueueSortPlugin", Points::QUEUE_SORT, &self.queue_sort),
            ("preFilter", "PreFilterPlugin", Points::PRE_FILTER, &self.pre_filter),
            ("filter", "FilterPlugin", Points::FILTER, &self.filter),
            ("postFilter", "PostFilterPlugin", Points::POST_FILTER, &self.post_filter),
            ("preScore", "PreScorePlugin", Points::PRE_SCORE, &self.pre_score),
            ("score", "ScorePlugin", Points::SCORE, &self.score),
            ("reserve", "ReservePlugin", Points::RESERVE, &self.reserve),
            ("permit", "PermitPlugin", Points::PERMIT, &self.permit),
            ("preBind", "PreBindPlugin", Points::PRE_BIND, &self.pre_bind),
            ("bind", "BindPlugin", Points::BIND, &self.bind),
            ("postBind", "PostBindPlugin", Points::POST_BIND, &self.post_bind),
        ]
    }

    /// Every plugin that is enabled somewhere, once.
    pub(crate) fn all(&self) -> Vec<&str> {
        let sets = self.points().map(|(_, _, _, set)| set);
        let enabled = std::iter::once(&self.multi_point).chain(sets).flat_map(|s| &s.enabled);
        let mut names: Vec<&str> = Vec::new();
        for plugin in enabled {
            if !names.contains(&plugin.name.as_str()) {
                names.push(&plugin.name);
            }
        }
        names
    }
}

/// The plugins at one extension point, in their order: those of the point that re-configure one of all
/// points, then those of all points that have something to say there, then the point's others.
pub(crate) fn enabled_at<'a>(
    plugins: &'a Plugins,
    set: &'a PluginSet,
    speaks: impl Fn(&str) -> bool,
) -> Vec<&'a EnabledPlugin> {
    let everywhere: Vec<&EnabledPlugin> = match set.disables("*") {
        true => Vec::new(),
        false => plugins
            .multi_point
            .enabled
            .iter()
            .filter(|p| speaks(&p.name) && !set.disables(&p.name))
            .collect(),
    };
    let overrides = |p: &&EnabledPlugin| everywhere.iter().any(|e| e.name == p.name);
    let (first, last): (Vec<_>, Vec<_>) = set.enabled.iter().partition(overrides);
    let middle = everywhere.iter().filter(|e| !set.enabled.iter().any(|p| p.name == e.name));
    first.into_iter().chain(middle.copied()).chain(last).collect()
}
