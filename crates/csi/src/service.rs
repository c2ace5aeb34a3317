//! The services as one table: from each row come the client's method, the method of the server's trait, and
//! its entry in the server's table of paths.

use std::sync::Arc;

use grpc::server::{Methods, Status};
use grpc::{CallError, Code};

use crate::Client;
use crate::v1::*;

/// As grpc-go answers for a service that does not implement the method.
fn unimplemented(method: &str) -> Status {
    Status::new(Code::Unimplemented, format!("method {method} not implemented"))
}

macro_rules! service {
    ($service:literal, $about:literal, $Trait:ident, $register:ident {
        $($method:ident $name:literal $Request:ident $Response:ident;)*
    }) => {
        #[doc = $about]
        ///
        /// Methods that are not implemented are answered with `Unimplemented`.
        pub trait $Trait: Send + Sync + 'static {
            $(fn $method(
                &self,
                request: $Request,
            ) -> impl Future<Output = Result<$Response, Status>> + Send {
                let _ = request;
                async { Err(unimplemented($name)) }
            })*
        }

        /// Adds the service's methods to a server's.
        pub fn $register<S: $Trait>(methods: Methods, service: &Arc<S>) -> Methods {
            $(let methods = {
                let service = service.clone();
                methods.unary(
                    concat!("/csi.v1.", $service, "/", $name),
                    move |request: $Request| {
                        let service = service.clone();
                        async move { service.$method(request).await }
                    },
                )
            };)*
            methods
        }

        impl Client {
            $(pub async fn $method(&self, request: &$Request) -> Result<$Response, CallError> {
                self.call(concat!("/csi.v1.", $service, "/", $name), request).await
            })*
        }
    };
}

service!("Identity", "Which driver this is and what it can do.", Identity, identity {
    get_plugin_info "GetPluginInfo" GetPluginInfoRequest GetPluginInfoResponse;
    get_plugin_capabilities "GetPluginCapabilities" GetPluginCapabilitiesRequest GetPluginCapabilitiesResponse;
    probe "Probe" ProbeRequest ProbeResponse;
});

service!("Controller", "Volumes and snapshots of the whole cluster.", Controller, controller {
    create_volume "CreateVolume" CreateVolumeRequest CreateVolumeResponse;
    delete_volume "DeleteVolume" DeleteVolumeRequest DeleteVolumeResponse;
    controller_publish_volume "ControllerPublishVolume" ControllerPublishVolumeRequest ControllerPublishVolumeResponse;
    controller_unpublish_volume "ControllerUnpublishVolume" ControllerUnpublishVolumeRequest ControllerUnpublishVolumeResponse;
    validate_volume_capabilities "ValidateVolumeCapabilities" ValidateVolumeCapabilitiesRequest ValidateVolumeCapabilitiesResponse;
    list_volumes "ListVolumes" ListVolumesRequest ListVolumesResponse;
    get_capacity "GetCapacity" GetCapacityRequest GetCapacityResponse;
    controller_get_capabilities "ControllerGetCapabilities" ControllerGetCapabilitiesRequest ControllerGetCapabilitiesResponse;
    create_snapshot "CreateSnapshot" CreateSnapshotRequest CreateSnapshotResponse;
    delete_snapshot "DeleteSnapshot" DeleteSnapshotRequest DeleteSnapshotResponse;
    list_snapshots "ListSnapshots" ListSnapshotsRequest ListSnapshotsResponse;
    get_snapshot "GetSnapshot" GetSnapshotRequest GetSnapshotResponse;
    controller_expand_volume "ControllerExpandVolume" ControllerExpandVolumeRequest ControllerExpandVolumeResponse;
    controller_get_volume "ControllerGetVolume" ControllerGetVolumeRequest ControllerGetVolumeResponse;
    controller_modify_volume "ControllerModifyVolume" ControllerModifyVolumeRequest ControllerModifyVolumeResponse;
});

service!("GroupController", "Snapshots of several volumes at one moment.", GroupController, group_controller {
    group_controller_get_capabilities "GroupControllerGetCapabilities" GroupControllerGetCapabilitiesRequest GroupControllerGetCapabilitiesResponse;
    create_volume_group_snapshot "CreateVolumeGroupSnapshot" CreateVolumeGroupSnapshotRequest CreateVolumeGroupSnapshotResponse;
    delete_volume_group_snapshot "DeleteVolumeGroupSnapshot" DeleteVolumeGroupSnapshotRequest DeleteVolumeGroupSnapshotResponse;
    get_volume_group_snapshot "GetVolumeGroupSnapshot" GetVolumeGroupSnapshotRequest GetVolumeGroupSnapshotResponse;
});

service!("Node", "Volumes on one node.", Node, node {
    node_stage_volume "NodeStageVolume" NodeStageVolumeRequest NodeStageVolumeResponse;
    node_unstage_volume "NodeUnstageVolume" NodeUnstageVolumeRequest NodeUnstageVolumeResponse;
    node_publish_volume "NodePublishVolume" NodePublishVolumeRequest NodePublishVolumeResponse;
    node_unpublish_volume "NodeUnpublishVolume" NodeUnpublishVolumeRequest NodeUnpublishVolumeResponse;
    node_get_volume_stats "NodeGetVolumeStats" NodeGetVolumeStatsRequest NodeGetVolumeStatsResponse;
    node_expand_volume "NodeExpandVolume" NodeExpandVolumeRequest NodeExpandVolumeResponse;
    node_get_capabilities "NodeGetCapabilities" NodeGetCapabilitiesRequest NodeGetCapabilitiesResponse;
    node_get_info "NodeGetInfo" NodeGetInfoRequest NodeGetInfoResponse;
});
