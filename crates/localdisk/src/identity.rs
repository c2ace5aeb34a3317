//! Which driver this is.

use csi::server::Identity;
use csi::v1::*;
use grpc::server::Status;

use crate::Driver;

/// The driver's name, as storage classes have it (`provisioner`).
pub const NAME: &str = "local.csi.trireme.dev";
/// The label of nodes that says where a volume is.
pub const TOPOLOGY_KEY: &str = "topology.local.csi.trireme.dev/node";

impl Identity for Driver {
    async fn get_plugin_info(
        &self,
        _: GetPluginInfoRequest,
    ) -> Result<GetPluginInfoResponse, Status> {
        let vendor_version = self.inner.config.version.clone();
        Ok(GetPluginInfoResponse { name: NAME.into(), vendor_version, ..Default::default() })
    }

    async fn get_plugin_capabilities(
        &self,
        _: GetPluginCapabilitiesRequest,
    ) -> Result<GetPluginCapabilitiesResponse, Status> {
        let service = |kind: PluginServiceType| {
            PluginCapabilityKind::Service(PluginService { kind: kind as i32 })
        };
        let online = VolumeExpansion { kind: VolumeExpansionType::Online as i32 };
        let all = [
            service(PluginServiceType::ControllerService),
            service(PluginServiceType::GroupControllerService),
            service(PluginServiceType::VolumeAccessibilityConstraints),
            PluginCapabilityKind::VolumeExpansion(online),
        ];
        let capabilities = all.into_iter().map(|kind| PluginCapability { kind: Some(kind) });
        Ok(GetPluginCapabilitiesResponse { capabilities: capabilities.collect() })
    }

    async fn probe(&self, _: ProbeRequest) -> Result<ProbeResponse, Status> {
        Ok(ProbeResponse { ready: Some(true) })
    }
}
