//! The loops of the control plane: controllers and scheduler on shared informers.

use std::sync::Arc;

use anyhow::Result;
use apiserver::HealthCheck;
use client::{Informers, Tasks};
use pki::Authority;

use crate::component_checks::InProcess;
use crate::control_plane::ControlPlane;
use crate::pki_files::PkiFiles;

/// The loops of one control plane, each with a health of its own.
pub(crate) struct Loops {
    controllers: Tasks,
    scheduler: Tasks,
}

impl Loops {
    /// They end with `tasks`. Nothing runs yet.
    pub(crate) fn new(tasks: &Tasks) -> Loops {
        Loops { controllers: tasks.part(), scheduler: tasks.part() }
    }

    /// Whether they are well.
    pub(crate) fn checks(&self) -> Vec<Arc<dyn HealthCheck>> {
        let check = |name, tasks: &Tasks| {
            Arc::new(InProcess { name, health: tasks.health().clone() }) as Arc<dyn HealthCheck>
        };
        vec![check("controller-manager", &self.controllers), check("scheduler", &self.scheduler)]
    }

    /// Starts what this build has; all of them share informers.
    pub(crate) async fn start(
        &self,
        plane: &ControlPlane,
        informers: &Informers,
        pki: &PkiFiles,
    ) -> Result<()> {
        let config = controllers::Config {
            // Bootstrap tokens sign and expire, as in clusters that kubeadm makes.
            controllers: ["*", "bootstrapsigner", "tokencleaner"].map(str::to_owned).to_vec(),
            cluster_ca_pem: pki.ca_pem().to_owned(),
            authority: Some(Arc::new(Authority::load(pki.ca.pem().clone())?)),
            tokens: Some(Arc::new(pki.tokens()?)),
            ..controllers::Config::default()
        };
        controllers::run(informers, &self.controllers, config)?;
        // What it reads is shared; what it writes, it writes as itself.
        let client = plane.client("system:kube-scheduler", &[], "kube-scheduler");
        let setup = scheduler::Setup { client: Some(client), ..scheduler::Setup::default() };
        setup.start(informers, &self.scheduler).map_err(anyhow::Error::msg)
    }
}
