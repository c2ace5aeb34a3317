//! A profile: the plugins that pods of one scheduler name go through, by extension point.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::event::ClusterEvent;
use crate::extender::Extenders;
use crate::figures::{self, Evaluations};
use crate::framework::{
    Code, Cycle, CycleState, Filters, Gap, Plugin, PreFilter, Preparing, Status, Verdict, Victims,
};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// Places of plugins in [`Profile::plugins`], by extension point and in their order there.
#[derive(Debug, Default)]
pub(crate) struct Order {
    pub(crate) pre_enqueue: Vec<usize>,
    pub(crate) pre_filter: Vec<usize>,
    pub(crate) filter: Vec<usize>,
    pub(crate) post_filter: Vec<usize>,
    /// With weights.
    pub(crate) score: Vec<(usize, i64)>,
    pub(crate) reserve: Vec<usize>,
    pub(crate) pre_bind: Vec<usize>,
    pub(crate) bind: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) name: String,
    /// How many of the nodes, in percent, are looked for; 0 lets it follow the cluster's size.
    pub(crate) percentage_of_nodes_to_score: usize,
    pub(crate) plugins: Vec<Arc<dyn Plugin>>,
    pub(crate) order: Order,
    pub(crate) extenders: Extenders,
    pub(crate) counts: Counts,
}

/// How often plugins were asked, by their place in [`Profile::plugins`].
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) pre_filter: Vec<Evaluations>,
    pub(crate) filter: Vec<Evaluations>,
    pub(crate) pre_score: Vec<Evaluations>,
    pub(crate) score: Vec<Evaluations>,
}

impl Counts {
    pub(crate) fn of(profile: &str, plugins: &[Arc<dyn Plugin>], order: &Order) -> Counts {
        let scores = |at: usize| order.score.iter().any(|(place, _)| *place == at);
        let each = |point: &str, speaks: &dyn Fn(usize) -> bool| {
            let of = |(at, plugin): (usize, &Arc<dyn Plugin>)| {
                Evaluations::of(plugin.name(), point, profile, speaks(at))
            };
            plugins.iter().enumerate().map(of).collect()
        };
        Counts {
            pre_filter: each("PreFilter", &|at| order.pre_filter.contains(&at)),
            filter: each("Filter", &|at| order.filter.contains(&at)),
            pre_score: each("PreScore", &scores),
            score: each("Score", &scores),
        }
    }
}

/// What PreFilter leaves to Filter.
pub(crate) enum Narrowed {
    All,
    /// Only these nodes, because of these plugins.
    To(BTreeSet<String>, Vec<&'static str>),
}

/// A filter that has something to say about a pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filtering<'a> {
    pub(crate) plugin: &'a Arc<dyn Plugin>,
    count: &'a Evaluations,
}

impl Filtering<'_> {
    pub(crate) fn run(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        self.count.add(1);
        self.plugin.filter(cycle, node)
    }
}

impl Profile {
    fn of<'a>(&'a self, places: &'a [usize]) -> impl Iterator<Item = (usize, &'a Arc<dyn Plugin>)> {
        places.iter().map(|at| (*at, &self.plugins[*at]))
    }

    /// The filters that have something to say about the pod.
    pub(crate) fn filters<'a>(
        &'a self,
        state: &'a CycleState,
    ) -> impl Iterator<Item = Filtering<'a>> {
        let speaks = |(at, _): &(usize, &Arc<dyn Plugin>)| state.skip_filter & (1 << at) == 0;
        let filtering = |(at, plugin)| Filtering { plugin, count: &self.counts.filter[at] };
        self.of(&self.order.filter).filter(speaks).map(filtering)
    }

    pub(crate) fn post_filters(&self) -> impl Iterator<Item = &Arc<dyn Plugin>> {
        self.of(&self.order.post_filter).map(|(_, plugin)| plugin)
    }

    /// The plugin that keeps the pod out of the queue, and why.
    pub(crate) fn gate(&self, pod: &PodInfo) -> Option<(&'static str, String)> {
        let mut plugins = self.of(&self.order.pre_enqueue);
        plugins.find_map(|(_, plugin)| Some((plugin.name(), plugin.pre_enqueue(pod).err()?)))
    }

    /// Runs PreFilter. A rejection that preemption may lift lets the others run, too.
    pub(crate) fn pre_filter(&self, cycle: &mut Preparing<'_>) -> Result<Narrowed, Arc<Status>> {
        let start = Instant::now();
        let narrowed = self.run_pre_filter(cycle);
        figures::ran("PreFilter", figures::code_of(&narrowed), &self.name, start);
        narrowed
    }

    fn run_pre_filter(&self, cycle: &mut Preparing<'_>) -> Result<Narrowed, Arc<Status>> {
        let mut rejected = None;
        let mut narrowed: Option<BTreeSet<String>> = None;
        let mut narrowing = Vec::new();
        for (at, plugin) in self.of(&self.order.pre_filter) {
            let answer = plugin.pre_filter(cycle);
            if !matches!(answer, PreFilter::Skip) {
                self.counts.pre_filter[at].add(1);
            }
            match answer {
                PreFilter::Skip => cycle.state.skip_filter |= 1 << at,
                PreFilter::Continue => {}
                PreFilter::Nodes(names) => {
                    narrowing.push(plugin.name());
                    narrowed = Some(match narrowed {
                        None => names,
                        Some(before) => &before & &names,
                    });
                }
                PreFilter::Reject(status) if status.code == Code::Unschedulable => {
                    rejected = Some(status);
                }
                PreFilter::Reject(status) => return Err(status),
            }
            if narrowed.as_ref().is_some_and(BTreeSet::is_empty) {
                return Err(nothing_left(&mut narrowing));
            }
        }
        match (rejected, narrowed) {
            (Some(status), _) => Err(status),
            (None, Some(names)) => Ok(Narrowed::To(names, narrowing)),
            (None, None) => Ok(Narrowed::All),
        }
    }

    /// All filters on a node as it stands.
    pub(crate) fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        self.filters(cycle.state).try_for_each(|filter| filter.run(cycle, node))
    }

    /// What every filter that rejects the node would have changed.
    pub(crate) fn gaps(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Vec<Gap> {
        let filters = self.filters(cycle.state).map(|filter| filter.plugin);
        let rejecting = filters.filter(|p| p.filter(cycle, node).is_err());
        let unknown = |name: &str| Gap { distance: 3.0, remedy: format!("satisfy {name}") };
        rejecting.map(|p| p.gap(cycle, node).unwrap_or_else(|| unknown(p.name()))).collect()
    }

    /// Whether the event is reason to try a pod again that these plugins rejected.
    pub(crate) fn is_worth_requeuing(
        &self,
        pod: &PodInfo,
        rejectors: &BTreeSet<&'static str>,
        event: &ClusterEvent,
    ) -> bool {
        let interested =
            |p: &&Arc<dyn Plugin>| p.events().iter().any(|interest| event.matches(*interest));
        let mut interested = self.plugins.iter().filter(interested);
        interested.any(|p| rejectors.contains(p.name()) && p.queueing_hint(pod, event))
    }

    /// Runs Reserve; on a rejection, what was reserved is given back.
    pub(crate) fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Verdict {
        let start = Instant::now();
        let reserved =
            self.of(&self.order.reserve).try_for_each(|(_, p)| p.reserve(state, pod, node));
        figures::ran("Reserve", figures::code_of(&reserved), &self.name, start);
        reserved.inspect_err(|_| self.unreserve(state, pod, node))
    }

    pub(crate) fn unreserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) {
        for at in self.order.reserve.iter().rev() {
            self.plugins[*at].unreserve(state, pod, node);
        }
    }

    /// Runs PreBind and Bind.
    pub(crate) async fn bind(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<(), String> {
        let told = |point, start, result: Result<(), String>| {
            let status = if result.is_ok() { "Success" } else { "Error" };
            figures::ran(point, status, &self.name, start);
            result
        };
        let start = Instant::now();
        told("PreBind", start, self.pre_bind(state, pod, node).await)?;
        let start = Instant::now();
        told("Bind", start, self.run_bind(pod, node).await)
    }

    async fn pre_bind(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &str,
    ) -> Result<(), String> {
        for (_, plugin) in self.of(&self.order.pre_bind) {
            plugin
                .pre_bind(state, pod, node)
                .await
                .map_err(|why| format!("running PreBind plugin \"{}\": {why}", plugin.name()))?;
        }
        Ok(())
    }

    async fn run_bind(&self, pod: &PodInfo, node: &str) -> Result<(), String> {
        if let Some(bound) = self.extenders.bind(pod, node).await {
            return bound;
        }
        match self.of(&self.order.bind).next() {
            None => Err("no bind plugin is enabled".into()),
            Some((_, plugin)) => {
                let bound = plugin.bind(pod, node).await;
                bound.map_err(|e| format!("running Bind plugin \"{}\": {e}", plugin.name()))
            }
        }
    }
}

fn nothing_left(plugins: &mut [&'static str]) -> Arc<Status> {
    plugins.sort_unstable();
    let why = match &*plugins {
        [one] => format!("node(s) didn't satisfy plugin {one}"),
        all => format!("node(s) didn't satisfy plugin(s) [{}] simultaneously", all.join(" ")),
    };
    let plugin = plugins.first().copied().unwrap_or("");
    Arc::new(Status { code: Code::Unresolvable, plugin, reasons: vec![why.into()] })
}

impl Filters for Profile {
    /// Pods nominated for the node that this one must yield to are tried there first; the filters must
    /// pass with and without them.
    fn check(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Verdict {
        let nominated = &cycle.snapshot.nominated;
        if nominated.is_empty() || nominated.ahead_of(cycle.pod, &node.name).next().is_none() {
            return self.filter(cycle, node);
        }
        let (mut state, mut filled) = (cycle.state.clone(), node.clone());
        for other in nominated.ahead_of(cycle.pod, &node.name) {
            filled.add(other.clone());
            self.add_pod(cycle, &mut state, other, &filled);
        }
        self.filter(&Cycle { state: &state, ..*cycle }, &filled)?;
        self.filter(cycle, node)
    }

    fn add_pod(&self, cycle: &Cycle<'_>, state: &mut CycleState, pod: &PodInfo, node: &NodeInfo) {
        for (at, plugin) in self.of(&self.order.pre_filter) {
            if state.skip_filter & (1 << at) == 0 {
                plugin.add_pod(cycle, state, pod, node);
            }
        }
    }

    fn remove_pod(
        &self,
        cycle: &Cycle<'_>,
        state: &mut CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
    ) {
        for (at, plugin) in self.of(&self.order.pre_filter) {
            if state.skip_filter & (1 << at) == 0 {
                plugin.remove_pod(cycle, state, pod, node);
            }
        }
    }

    fn extend_preemption(
        &self,
        pod: &PodInfo,
        candidates: Vec<Victims>,
        snapshot: &Snapshot,
    ) -> Result<Vec<Victims>, String> {
        self.extenders.preempt(pod, candidates, snapshot)
    }
}
