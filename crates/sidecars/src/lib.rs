//! The controllers that upstream runs beside a CSI driver, for a driver that each node has for itself:
//! provisioner, resizer, snapshot controller and the publisher of free capacity (kubernetes-csi's
//! external-provisioner with `--node-deployment`, external-resizer and external-snapshotter).
//!
//! They run on the driver's node, because only there its socket is: each looks at claims whose
//! `volume.kubernetes.io/selected-node` is its node, and at volumes whose node affinity is.

mod capacity;
mod claims;
mod context;
mod metadata;
mod provisioner;
mod resizer;
mod snapshotter;

use std::sync::Arc;

use client::{Informers, Tasks};

pub use context::Config;
use context::Context;
pub use snapshotter::{
    VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent, snapshot_definitions,
};

/// Starts all of them. They begin when the driver answers; those of snapshots when their definitions
/// ([`snapshot_definitions`]) are served.
pub fn start(informers: &Informers, tasks: &Tasks, config: Config) {
    let (informers, own) = (informers.clone(), tasks.clone());
    let config = Arc::new(config);
    tasks.required("storage sidecars", async move {
        let context = Context::of_driver(informers, own, config).await;
        tokio::join!(
            provisioner::run(&context),
            resizer::run(&context),
            snapshotter::run(&context),
            capacity::run(&context),
        );
    });
}
