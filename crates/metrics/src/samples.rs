//! What a kubelet told at one moment, and what two such moments say. Pure.

use std::collections::BTreeMap;

use crate::text::Line;

/// Most containers that are read of one node; upstream supports 110 pods on one.
const CONTAINERS_MAX: usize = 20_000;
/// Shortest life of a container, in milliseconds, from whose start a rate is made.
const LIFE_MIN: i64 = 1000;

/// Counters at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Point {
    /// Milliseconds since 1970.
    at: i64,
    /// CPU time used so far, in seconds.
    cpu: Option<f64>,
    /// Working set, in bytes.
    memory: Option<f64>,
    /// When it was started, in seconds since 1970.
    started: Option<f64>,
}

type Key = (String, String);

/// What a kubelet told.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    node: Point,
    /// Containers of pods by namespace and name.
    pods: BTreeMap<Key, BTreeMap<String, Point>>,
}

/// What is used, over a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Billionths of a core.
    pub cpu: u64,
    /// Working set, in bytes.
    pub memory: u64,
    /// End of the time, in milliseconds since 1970.
    pub at: i64,
    /// Its length, in milliseconds.
    pub window: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUsage {
    pub name: String,
    pub usage: Usage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodUsage {
    /// By name.
    pub containers: Vec<ContainerUsage>,
}

/// What a node and its pods use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFigures {
    pub node: Option<Usage>,
    /// By namespace and name.
    pub pods: BTreeMap<(String, String), PodUsage>,
}

impl Sample {
    pub(crate) fn read(text: &str) -> Result<Sample, String> {
        let mut sample = Sample::default();
        let mut count = 0;
        for line in text.lines() {
            let Some(line) = Line::read(line)? else { continue };
            let Some(point) = sample.point(&line, &mut count)? else { continue };
            match line.name.rsplit_once('_') {
                _ if line.name.ends_with("cpu_usage_seconds_total") => point.cpu = Some(line.value),
                Some((_, "bytes")) => point.memory = Some(line.value),
                _ => point.started = Some(line.value),
            }
            // CPU time decides: rates are made of it.
            if let Some(at) = line.at
                && (point.at == 0 || line.name.ends_with("cpu_usage_seconds_total"))
            {
                point.at = at;
            }
        }
        Ok(sample)
    }

    fn point(&mut self, line: &Line<'_>, count: &mut usize) -> Result<Option<&mut Point>, String> {
        match line.name {
            "node_cpu_usage_seconds_total" | "node_memory_working_set_bytes" => {
                Ok(Some(&mut self.node))
            }
            "container_cpu_usage_seconds_total"
            | "container_memory_working_set_bytes"
            | "container_start_time_seconds" => {
                let of = |label| line.label(label).filter(|value| !value.is_empty());
                let names = (of("namespace"), of("pod"), of("container"));
                let (Some(namespace), Some(pod), Some(container)) = names else { return Ok(None) };
                let pod = self.pods.entry((namespace.to_owned(), pod.to_owned())).or_default();
                *count += usize::from(!pod.contains_key(container));
                if *count > CONTAINERS_MAX {
                    return Err(format!("more than {CONTAINERS_MAX} containers"));
                }
                Ok(Some(pod.entry(container.to_owned()).or_default()))
            }
            _ => Ok(None),
        }
    }
}

/// The figures between two moments. A pod of which a container cannot be told is left out, as
/// metrics-server leaves it out.
pub(crate) fn figures(before: Option<&Sample>, now: &Sample) -> NodeFigures {
    let node = before.and_then(|before| usage(Some(&before.node), &now.node));
    let of_pod = |(key, containers): (&Key, &BTreeMap<String, Point>)| {
        let before = before.and_then(|before| before.pods.get(key));
        let one = |(name, point): (&String, &Point)| {
            let usage = usage(before.and_then(|pod| pod.get(name)), point)?;
            Some(ContainerUsage { name: name.clone(), usage })
        };
        let containers = containers.iter().map(one).collect::<Option<Vec<_>>>()?;
        Some((key.clone(), PodUsage { containers }))
    };
    NodeFigures { node, pods: now.pods.iter().filter_map(of_pod).collect() }
}

fn usage(before: Option<&Point>, now: &Point) -> Option<Usage> {
    let (cpu, memory) = (now.cpu?, now.memory?);
    let start = now.started.map(|seconds| (seconds * 1000.0) as i64);
    // One that was started since then has used nothing before its start.
    let before = before.filter(|before| start.is_none_or(|start| start <= before.at));
    let (from, used) = match (before, start) {
        (Some(before), _) => (before.at, cpu - before.cpu?),
        (None, Some(start)) if now.at - start >= LIFE_MIN && is_fresh(now.at - start) => {
            (start, cpu)
        }
        _ => return None,
    };
    let window = now.at - from;
    if window <= 0 || used < 0.0 {
        return None;
    }
    let cpu = (used * 1e9 / (window as f64 / 1000.0)) as u64;
    Some(Usage { cpu, memory: memory as u64, at: now.at, window })
}

/// Whether the time since a start is short enough to be a window.
fn is_fresh(life: i64) -> bool {
    life <= i64::try_from(crate::SPAN_MAX.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{CONTAINERS_MAX, Sample};

    #[test]
    fn a_kubelet_that_tells_of_too_many_containers_is_not_believed() {
        let line = |pod: usize, name: &str| {
            format!("{name}{{container=\"c\",namespace=\"n\",pod=\"p{pod}\"}} 1 1000\n")
        };
        let mut text: String =
            (0..CONTAINERS_MAX).map(|pod| line(pod, "container_cpu_usage_seconds_total")).collect();
        // What is told of a container twice is one container.
        text += &line(0, "container_memory_working_set_bytes");
        assert!(Sample::read(&text).is_ok());
        text += &line(CONTAINERS_MAX, "container_cpu_usage_seconds_total");
        let refused = Sample::read(&text).expect_err("too many");
        assert_eq!(refused, "more than 20000 containers");
    }
}
