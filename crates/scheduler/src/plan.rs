//! One pod, the cluster as it is: the node it goes to, or why there is none.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{Cluster, NodeInfo};
use crate::filter::{Filter, Prepared, Refusal};
use crate::pod::PodInfo;
use crate::preempt::{self, Victims};
use crate::score;

/// Fewer nodes than this are all looked at (upstream's minFeasibleNodesToFind).
const SAMPLE_MIN: usize = 100;

/// No node would do.
#[derive(Debug, PartialEq)]
pub(crate) struct Unfit {
    pub(crate) message: String,
    /// The filters that refused nodes: only what concerns them can change the answer.
    pub(crate) filters: BTreeSet<Filter>,
    /// Pods whose end would make room, and where.
    pub(crate) victims: Option<Victims>,
}

/// The best node for the pod.
pub(crate) fn choose(cluster: &mut Cluster, pod: &PodInfo) -> Result<String, Unfit> {
    let total = cluster.ready_nodes().count();
    if total == 0 {
        return Err(Unfit {
            message: "no nodes available to schedule pods".into(),
            filters: BTreeSet::new(),
            victims: None,
        });
    }
    let (chosen, looked_at) = {
        let prepared = Prepared::new(cluster, pod);
        let (feasible, refused, looked_at) = feasible(&prepared, total);
        let chosen = match feasible.as_slice() {
            [] => return Err(unfit(&prepared, total, refused)),
            [(only, _)] => (*only).to_owned(),
            _ => best(cluster, pod, &feasible),
        };
        (chosen, looked_at)
    };
    cluster.next_start = (cluster.next_start + looked_at) % total;
    Ok(chosen)
}

type Found<'a> = (Vec<(&'a str, &'a NodeInfo)>, BTreeMap<&'a str, Refusal>, usize);

/// Looks at nodes from where the last search ended, until there are enough to choose from.
fn feasible<'a>(prepared: &Prepared<'a>, total: usize) -> Found<'a> {
    let enough = sample(total);
    let start = prepared.cluster.next_start % total;
    let (mut found, mut refused, mut looked_at) = (Vec::new(), BTreeMap::new(), 0);
    let nodes = prepared.cluster.ready_nodes();
    let again = prepared.cluster.ready_nodes();
    for (name, info) in nodes.skip(start).chain(again.take(start)) {
        looked_at += 1;
        match prepared.check(name, info) {
            Ok(()) => found.push((name.as_str(), info)),
            Err(refusal) => drop(refused.insert(name.as_str(), refusal)),
        }
        if found.len() >= enough {
            break;
        }
    }
    (found, refused, looked_at)
}

/// How many feasible nodes are enough: all up to 100, then 50 % falling to 5 % with size.
fn sample(total: usize) -> usize {
    if total < SAMPLE_MIN {
        return total;
    }
    let percent = 50usize.saturating_sub(total / 125).max(5);
    (total * percent / 100).max(SAMPLE_MIN)
}

fn best(cluster: &Cluster, pod: &PodInfo, feasible: &[(&str, &NodeInfo)]) -> String {
    let totals = score::totals(cluster, pod, feasible);
    // Among equals the first found: the search's moving start spreads them.
    let best = totals.iter().enumerate().max_by_key(|(i, total)| (**total, usize::MAX - i));
    feasible[best.map_or(0, |(i, _)| i)].0.to_owned()
}

fn unfit(prepared: &Prepared<'_>, total: usize, refused: BTreeMap<&str, Refusal>) -> Unfit {
    let mut message = format!("0/{total} nodes are available: {}", histogram(&refused));
    let victims = match preempt::plan(prepared, total, &refused) {
        Ok(victims) => Some(victims),
        Err(why) => {
            message += &format!(" preemption: {why}");
            None
        }
    };
    let filters = refused.values().map(|r| r.filter).collect();
    Unfit { message, filters, victims }
}

fn histogram(refused: &BTreeMap<&str, Refusal>) -> String {
    tally(refused.values().flat_map(|r| &r.reasons).map(String::as_str))
}

/// `1 reason a, 2 reason b.`, sorted as text.
pub(crate) fn tally<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    reasons.for_each(|reason| *counts.entry(reason).or_insert(0) += 1);
    let mut lines: Vec<String> =
        counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    lines.sort();
    lines.join(", ") + "."
}
