//! Where pods come from: the API, a folder of manifests, a URL.
//!
//! Pods of a folder or a URL are static: the node runs them whether it reaches the API server or not.
//! The API shows each of them as a mirror pod, which the node keeps (`mirror`), and which nobody runs.

mod file;
mod manifest;
pub(crate) mod mirror;
mod pods;
mod references;
mod url;

use std::sync::Arc;

use client::{Change, Tasks};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use crate::kubelet::Shared;

pub(crate) use pods::{Pods, is_mirror};

/// Annotations of static pods and their mirrors, as upstream names them.
const HASH: &str = "kubernetes.io/config.hash";
const SEEN: &str = "kubernetes.io/config.seen";
const SOURCE: &str = "kubernetes.io/config.source";
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Longest manifest, and longest answer of a URL.
const MANIFEST_MAX: usize = 10 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    File,
    Url,
}

impl Source {
    /// As the annotation names it.
    fn name(self) -> &'static str {
        match self {
            Source::File => "file",
            Source::Url => "http",
        }
    }
}

/// Where changes of pods go.
#[derive(Clone)]
pub(crate) struct Sink {
    shared: Arc<Shared>,
    changes: mpsc::UnboundedSender<Change<Pod>>,
}

impl Sink {
    /// The source has these pods, and no others.
    fn replace(&self, source: Source, pods: Vec<Pod>) {
        for change in self.shared.pods.replace(source, pods) {
            // Nobody listens once the node ends.
            let _ended = self.changes.send(change);
        }
    }
}

/// Follows the sources of static pods. Files are read before this returns; no pod waits for a URL.
pub(crate) fn run(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    changes: mpsc::UnboundedSender<Change<Pod>>,
) {
    let sink = Sink { shared: shared.clone(), changes };
    let config = &shared.config;
    if let Some(path) = config.static_pods.path.clone() {
        let file = file::Folder { path, period: config.static_pods.file_check, sink: sink.clone() };
        file.read();
        let file = Arc::new(file);
        tasks.essential("static pods of files", move || file.clone().run());
    }
    if let Some(url) = config.static_pods.url.clone() {
        let fetcher = Arc::new(url::Fetcher::new(url, config, sink));
        tasks.essential("static pods of a URL", move || fetcher.clone().run());
    }
    let shared = shared.clone();
    tasks.essential("mirror pods", move || mirror::run(shared.clone()));
}
