//! The shared ledger of node ports is put right at start, and every few minutes.

use client::{Recorder, Tasks};

use crate::server::Server;
use strategy::allocate::Repair;

impl Server {
    /// Repairs the ledger; only with a store that is shared.
    pub(super) async fn repair_ports(
        &self,
        client: client::Client,
        tasks: &Tasks,
    ) -> Result<(), client::Error> {
        let resources = &self.parts.resources;
        if !resources.store.is_shared() {
            return Ok(());
        }
        let recorder = Recorder::new(client, tasks, "portallocator-repair-controller", "");
        let services = resources.collection_of("", "v1", "services");
        let repair = Repair::new(resources.store.clone(), services, recorder);
        repair.run(resources.allocators.clone(), tasks).await.map_err(|error| {
            let status = api::Status::unavailable(format!("node ports: {error}"));
            client::Error::Api(Box::new(status))
        })
    }
}
