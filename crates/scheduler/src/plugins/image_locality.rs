//! ImageLocality: nodes that have the pod's images already are better, the more so the larger the images
//! and the more nodes have them.

use super::names;
use crate::framework::{Cycle, MAX_NODE_SCORE, Plugin, Points, Preparing};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// Image bytes below which locality does not count, and at which, per container, it counts fully
/// (upstream's `minThreshold` and `maxContainerThreshold`).
const BYTES_MIN: i64 = 23 * 1024 * 1024;
const BYTES_MAX_PER_CONTAINER: i64 = 1000 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct ImageLocality;

/// The pod's images that some node has.
#[derive(Debug, Clone)]
struct Images {
    names: Vec<String>,
    containers: i64,
}

fn images(pod: &PodInfo) -> (Vec<String>, i64) {
    let Some(spec) = pod.spec() else { return (Vec::new(), 0) };
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let count = containers.clone().count();
    let volumes =
        spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref()?.reference.as_ref());
    let names = containers.filter_map(|c| c.image.as_ref()).chain(volumes);
    (names.map(|name| normalized(name)).collect(), i64::try_from(count).unwrap_or(i64::MAX))
}

/// With the tag that is meant when none is given.
fn normalized(image: &str) -> String {
    match (image.rfind(':'), image.rfind('/')) {
        (Some(colon), slash) if slash.is_none_or(|slash| colon > slash) => image.to_owned(),
        _ => format!("{image}:latest"),
    }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        names::IMAGE_LOCALITY
    }

    fn points(&self) -> Points {
        Points::PRE_SCORE.and(Points::SCORE)
    }

    fn pre_score(&self, cycle: &mut Preparing<'_>, _: &[u32]) -> bool {
        let (mut names, containers) = images(cycle.pod);
        names.retain(|name| cycle.snapshot.image(name).is_some());
        let any = !names.is_empty();
        cycle.state.set(Images { names, containers });
        any
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let Some(images) = cycle.state.get::<Images>() else { return 0 };
        let nodes = cycle.snapshot.len().max(1) as f64;
        let scaled = |name: &String| {
            let having = cycle.snapshot.image(name)?;
            let size = *having.get(&node.slot)?;
            Some((size as f64 * (having.len() as f64 / nodes)) as i64)
        };
        let sum: i64 = images.names.iter().filter_map(scaled).sum();
        let most = BYTES_MAX_PER_CONTAINER.saturating_mul(images.containers).max(BYTES_MIN + 1);
        (sum.clamp(BYTES_MIN, most) - BYTES_MIN) * MAX_NODE_SCORE / (most - BYTES_MIN)
    }
}
