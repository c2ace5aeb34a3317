//! Scores: which of the nodes that would do is best. Each plugin gives 0 to 100; the weights are
//! upstream's defaults.

use k8s_openapi::api::core::v1::{Container, Taint};

use crate::cluster::{Cluster, NodeInfo};
use crate::interpod::preferences;
use crate::matching::{term_matches, tolerates};
use crate::pod::PodInfo;
use crate::spread::soft_scores;

/// The best score of one plugin.
const MAX: i64 = 100;
/// Image bytes below which locality does not count, and per container at which it counts fully
/// (upstream's 23 MB and 1000 MB).
const IMAGE_MIN: i64 = 23 * 1024 * 1024;
const IMAGE_MAX_PER_CONTAINER: i64 = 1000 * 1024 * 1024;

/// The sum of all scores, in the order of `nodes`.
pub(crate) fn totals(cluster: &Cluster, pod: &PodInfo, nodes: &[(&str, &NodeInfo)]) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    let mut add = |weight: i64, scores: Vec<i64>| {
        totals.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
    };
    add(1, nodes.iter().map(|(_, info)| least_allocated(pod, info)).collect());
    add(1, nodes.iter().map(|(_, info)| balanced(pod, info)).collect());
    add(1, image_scores(cluster, pod, nodes));
    add(3, inverted(nodes.iter().map(|(_, info)| soft_taints(pod, info)).collect()));
    add(2, scaled(nodes.iter().map(|(_, info)| preferred_affinity(pod, info)).collect()));
    if let Some(raw) = soft_scores(cluster, pod, nodes) {
        add(2, spread_normalised(&raw));
    }
    if let Some(weights) = preferences(cluster, pod) {
        let sum = |info: &NodeInfo| {
            let here = weights.iter().filter(|((key, value), _)| info.label(key) == Some(value));
            here.map(|(_, weight)| weight).sum()
        };
        add(2, stretched(nodes.iter().map(|(_, info)| sum(info)).collect()));
    }
    totals
}

fn least_allocated(pod: &PodInfo, info: &NodeInfo) -> i64 {
    let share = |have: i64, used: i64| {
        if have > 0 && used <= have { (have - used).saturating_mul(MAX) / have } else { 0 }
    };
    let (have, used, asked) = (&info.allocatable, &info.estimated, &pod.estimate);
    let cpu = share(have.milli_cpu, used.milli_cpu + asked.milli_cpu);
    let memory = share(have.memory, used.memory + asked.memory);
    (cpu + memory) / 2
}

/// Best where cpu and memory are used alike.
fn balanced(pod: &PodInfo, info: &NodeInfo) -> i64 {
    let fraction = |have: i64, used: i64| match have {
        0 => 1.0,
        have => (used as f64 / have as f64).min(1.0),
    };
    let (have, used, asked) = (&info.allocatable, &info.requested, &pod.requests);
    let cpu = fraction(have.milli_cpu, used.milli_cpu + asked.milli_cpu);
    let memory = fraction(have.memory, used.memory + asked.memory);
    ((1.0 - (cpu - memory).abs() / 2.0) * MAX as f64) as i64
}

fn soft_taints(pod: &PodInfo, info: &NodeInfo) -> i64 {
    let spec = info.node.as_ref().and_then(|n| n.spec.as_ref());
    let taints = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let untolerated =
        |t: &&Taint| t.effect == "PreferNoSchedule" && !tolerates(pod.tolerations(), t);
    i64::try_from(taints.iter().filter(untolerated).count()).unwrap_or(i64::MAX)
}

fn preferred_affinity(pod: &PodInfo, info: &NodeInfo) -> i64 {
    let affinity = pod.pod.spec.as_ref().and_then(|s| s.affinity.as_ref());
    let affinity = affinity.and_then(|a| a.node_affinity.as_ref());
    let terms =
        affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
    let (Some(terms), Some(node)) = (terms, &info.node) else { return 0 };
    let hits = terms.iter().filter(|t| term_matches(&t.preference, node));
    hits.map(|t| i64::from(t.weight)).sum()
}

fn image_scores(cluster: &Cluster, pod: &PodInfo, nodes: &[(&str, &NodeInfo)]) -> Vec<i64> {
    let spec = pod.pod.spec.as_ref();
    let containers: Vec<&Container> = spec
        .into_iter()
        .flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers))
        .collect();
    // What is on every node or only one node is no reason to choose; look no further with one.
    if nodes.len() < 2 || containers.is_empty() {
        return vec![0; nodes.len()];
    }
    let all = cluster.ready_nodes().count().max(1) as i64;
    let names: Vec<String> =
        containers.iter().filter_map(|c| c.image.as_deref().map(normalised)).collect();
    let sizes: Vec<Vec<i64>> = nodes
        .iter()
        .map(|(_, info)| names.iter().map(|name| image_size(info, name)).collect())
        .collect();
    let spread = |i: usize| sizes.iter().filter(|s| s[i] > 0).count() as i64;
    let spreads: Vec<i64> = (0..names.len()).map(spread).collect();
    let most = IMAGE_MAX_PER_CONTAINER * containers.len() as i64;
    let score = |sizes: &Vec<i64>| {
        let sum: i64 = sizes.iter().zip(&spreads).map(|(size, n)| size / all * n).sum();
        (sum.clamp(IMAGE_MIN, most) - IMAGE_MIN) * MAX / (most - IMAGE_MIN)
    };
    sizes.iter().map(score).collect()
}

fn image_size(info: &NodeInfo, name: &str) -> i64 {
    let status = info.node.as_ref().and_then(|n| n.status.as_ref());
    let images = status.and_then(|s| s.images.as_deref()).unwrap_or_default();
    let found = images.iter().find(|i| i.names.iter().flatten().any(|n| n == name));
    found.and_then(|i| i.size_bytes).unwrap_or(0)
}

fn normalised(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// The greatest becomes 100.
fn scaled(raw: Vec<i64>) -> Vec<i64> {
    match raw.iter().max() {
        Some(&max) if max > 0 => raw.into_iter().map(|s| s * MAX / max).collect(),
        _ => raw,
    }
}

/// The greatest becomes 0, none becomes 100.
fn inverted(raw: Vec<i64>) -> Vec<i64> {
    scaled(raw).into_iter().map(|s| MAX - s).collect()
}

/// The least becomes 0 and the greatest 100.
fn stretched(raw: Vec<i64>) -> Vec<i64> {
    let (min, max) =
        (raw.iter().min().copied().unwrap_or(0), raw.iter().max().copied().unwrap_or(0));
    let stretch = |s: i64| if max > min { (s - min) * MAX / (max - min) } else { 0 };
    raw.into_iter().map(stretch).collect()
}

fn spread_normalised(raw: &[Option<i64>]) -> Vec<i64> {
    let known = || raw.iter().flatten().copied();
    let (min, max) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
    let score = |s: &Option<i64>| match s {
        None => 0,
        Some(_) if max == 0 => MAX,
        Some(s) => MAX * (max + min - s) / max,
    };
    raw.iter().map(score).collect()
}
