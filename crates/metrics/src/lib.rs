//! Resource metrics (`metrics.k8s.io`): the CPU time and memory that nodes and containers use, from what their
//! kubelets tell at `/metrics/resource`.
//!
//! Nothing is collected while nobody asks. Who asks gets figures of at most [`RESOLUTION`] age; when the last look
//! at a node is long ago, two looks are taken at once, so that the figures are of now and not of the time between.
//! Kubelets are reached through a port.

mod objects;
mod samples;
mod text;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

pub use objects::{GROUP, VERSION, node_metrics, pod_metrics, resources, table};
pub use samples::{ContainerUsage, NodeFigures, PodUsage, Usage};

use samples::{Sample, figures};

/// Age from which figures are made anew (metrics-server's `--metric-resolution`).
pub const RESOLUTION: Duration = Duration::from_secs(15);
/// Longest time between two looks of which a rate is made.
const SPAN_MAX: Duration = Duration::from_secs(90);
/// Time between two looks that are taken at once.
const SPAN_MIN: Duration = Duration::from_secs(1);
/// A kubelet that could not be asked is left alone for so long.
const REST: Duration = Duration::from_secs(5);
/// Kubelets that one request asks at a time.
const AT_A_TIME: usize = 32;

/// The way to kubelets.
pub trait Kubelets: Send + Sync {
    /// The text of a node's `/metrics/resource`, or why there is none. Bounded in time and size by whoever
    /// implements this.
    fn resources<'a>(
        &'a self,
        node: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;
}

/// The figures of all nodes.
pub struct ResourceMetrics {
    kubelets: Arc<dyn Kubelets>,
    nodes: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Node>>>>,
}

impl std::fmt::Debug for ResourceMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResourceMetrics")
    }
}

/// What is known of a node.
#[derive(Default)]
struct Node {
    last: Option<(Instant, Sample)>,
    figures: Arc<NodeFigures>,
    failed: Option<Instant>,
}

impl ResourceMetrics {
    pub fn new(kubelets: Arc<dyn Kubelets>) -> ResourceMetrics {
        ResourceMetrics { kubelets, nodes: Mutex::default() }
    }

    /// The figures of these nodes. One whose kubelet cannot be asked has none. `all` are the nodes that exist:
    /// of others nothing is kept.
    pub async fn of(&self, wanted: &[String], all: &[String]) -> HashMap<String, Arc<NodeFigures>> {
        let found = futures::stream::iter(self.entries(wanted, all))
            .map(|(name, node)| async move {
                let figures = self.look(&name, &node).await;
                (name, figures)
            })
            .buffer_unordered(AT_A_TIME);
        found.collect().await
    }

    fn entries(
        &self,
        wanted: &[String],
        all: &[String],
    ) -> Vec<(String, Arc<tokio::sync::Mutex<Node>>)> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() > all.len() {
            nodes.retain(|name, _| all.contains(name));
        }
        let mut entry =
            |name: &String| (name.clone(), nodes.entry(name.clone()).or_default().clone());
        wanted.iter().map(&mut entry).collect()
    }

    /// Those who ask at the same time wait for one look.
    async fn look(&self, name: &str, node: &tokio::sync::Mutex<Node>) -> Arc<NodeFigures> {
        let mut node = node.lock().await;
        let age = node.last.as_ref().map(|(at, _)| at.elapsed());
        let rests = node.failed.is_some_and(|at| at.elapsed() < REST);
        if rests || age.is_some_and(|age| age < RESOLUTION) {
            return node.figures.clone();
        }
        if age.is_none_or(|age| age > SPAN_MAX) {
            node.last = None;
            self.take(name, &mut node).await;
            if node.failed.is_none() {
                tokio::time::sleep(SPAN_MIN).await;
            }
        }
        if node.failed.is_none_or(|at| at.elapsed() >= REST) {
            self.take(name, &mut node).await;
        }
        node.figures.clone()
    }

    /// One look at a node.
    async fn take(&self, name: &str, node: &mut Node) {
        let told = self.kubelets.resources(name).await;
        let sample = told.and_then(|text| Sample::read(&text));
        match sample {
            Ok(sample) => {
                let before = node.last.take().map(|(_, sample)| sample);
                node.figures = Arc::new(figures(before.as_ref(), &sample));
                node.last = Some((Instant::now(), sample));
                node.failed = None;
            }
            Err(_) => {
                *node = Node { failed: Some(Instant::now()), ..Node::default() };
            }
        }
    }
}

#[cfg(test)]
mod tests;
