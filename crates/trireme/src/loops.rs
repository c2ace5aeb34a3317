//! The loops of the control plane: controllers and scheduler on shared informers.

use std::sync::Arc;

use anyhow::Result;
use client::{Informers, Tasks};
use pki::Authority;

use crate::control_plane::ControlPlane;
use crate::pki_files::PkiFiles;

/// Starts what this build has; all of them share informers.
pub(crate) async fn start(
    plane: &ControlPlane,
    informers: &Informers,
    pki: &PkiFiles,
    tasks: &Tasks,
) -> Result<()> {
    let config = controllers::Config {
        // Bootstrap tokens sign and expire, as in clusters that kubeadm makes.
        controllers: ["*", "bootstrapsigner", "tokencleaner"].map(str::to_owned).to_vec(),
        cluster_ca_pem: pki.ca_pem().to_owned(),
        authority: Some(Arc::new(Authority::load(pki.ca.pem().clone())?)),
        tokens: Some(Arc::new(pki.tokens()?)),
        ..controllers::Config::default()
    };
    controllers::run(informers, tasks, config)?;
    // What it reads is shared; what it writes, it writes as itself.
    let client = plane.client("system:kube-scheduler", &[], "kube-scheduler");
    let setup = scheduler::Setup { client: Some(client), ..scheduler::Setup::default() };
    setup.start(informers, tasks).map_err(anyhow::Error::msg)
}
