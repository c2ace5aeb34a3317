//! Sandboxes, containers, and the runtime itself.

use std::sync::Arc;

use ::runtime::RuntimeService;
use ::runtime::cri::*;
use futures::StreamExt as _;
use grpc::Code;
use grpc::server::{Methods, Status};

use super::refused;

/// Adds a method that asks `runtime`: its path below the service, and how.
macro_rules! ask {
    ($methods:expr, $runtime:expr, $name:literal, |$to:ident, $question:ident: $type:ty| $work:expr) => {{
        let runtime = $runtime.clone();
        $methods.unary(concat!("/runtime.v1.RuntimeService/", $name), move |$question: $type| {
            let $to = runtime.clone();
            async move { $work }
        })
    }};
}
pub(super) use ask;

pub(super) fn sandboxes(methods: Methods, runtime: &Arc<dyn RuntimeService>) -> Methods {
    let methods = ask!(methods, runtime, "RunPodSandbox", |to, asked: RunPodSandboxRequest| {
        let pod_sandbox_id = to.run_pod_sandbox(asked).await.map_err(refused)?;
        Ok(RunPodSandboxResponse { pod_sandbox_id })
    });
    let methods = ask!(methods, runtime, "StopPodSandbox", |to, asked: StopPodSandboxRequest| {
        to.stop_pod_sandbox(&asked.pod_sandbox_id).await.map_err(refused)?;
        Ok(StopPodSandboxResponse {})
    });
    let methods =
        ask!(methods, runtime, "RemovePodSandbox", |to, asked: RemovePodSandboxRequest| {
            to.remove_pod_sandbox(&asked.pod_sandbox_id).await.map_err(refused)?;
            Ok(RemovePodSandboxResponse {})
        });
    let methods =
        ask!(methods, runtime, "PodSandboxStatus", |to, asked: PodSandboxStatusRequest| {
            to.pod_sandbox_status(&asked.pod_sandbox_id, asked.verbose).await.map_err(refused)
        });
    let methods = ask!(methods, runtime, "ListPodSandbox", |to, asked: ListPodSandboxRequest| {
        let filter = asked.filter.unwrap_or_default();
        let items = to.list_pod_sandboxes(filter).await.map_err(refused)?;
        Ok(ListPodSandboxResponse { items })
    });
    ask!(
        methods,
        runtime,
        "UpdatePodSandboxResources",
        |to, asked: UpdatePodSandboxResourcesRequest| {
            to.update_pod_sandbox_resources(asked).await.map_err(refused)?;
            Ok(UpdatePodSandboxResourcesResponse {})
        }
    )
}

pub(super) fn containers(methods: Methods, runtime: &Arc<dyn RuntimeService>) -> Methods {
    let methods = ask!(methods, runtime, "CreateContainer", |to, asked: CreateContainerRequest| {
        let container_id = to.create_container(asked).await.map_err(refused)?;
        Ok(CreateContainerResponse { container_id })
    });
    let methods = ask!(methods, runtime, "StartContainer", |to, asked: StartContainerRequest| {
        to.start_container(&asked.container_id).await.map_err(refused)?;
        Ok(StartContainerResponse {})
    });
    let methods = ask!(methods, runtime, "StopContainer", |to, asked: StopContainerRequest| {
        to.stop_container(&asked.container_id, asked.timeout).await.map_err(refused)?;
        Ok(StopContainerResponse {})
    });
    let methods = ask!(methods, runtime, "RemoveContainer", |to, asked: RemoveContainerRequest| {
        to.remove_container(&asked.container_id).await.map_err(refused)?;
        Ok(RemoveContainerResponse {})
    });
    let methods = ask!(methods, runtime, "ListContainers", |to, asked: ListContainersRequest| {
        let filter = asked.filter.unwrap_or_default();
        let containers = to.list_containers(filter).await.map_err(refused)?;
        Ok(ListContainersResponse { containers })
    });
    let methods = ask!(methods, runtime, "ContainerStatus", |to, asked: ContainerStatusRequest| {
        to.container_status(&asked.container_id, asked.verbose).await.map_err(refused)
    });
    let methods = ask!(
        methods,
        runtime,
        "UpdateContainerResources",
        |to, asked: UpdateContainerResourcesRequest| {
            to.update_container_resources(asked).await.map_err(refused)?;
            Ok(UpdateContainerResourcesResponse {})
        }
    );
    let methods =
        ask!(methods, runtime, "ReopenContainerLog", |to, asked: ReopenContainerLogRequest| {
            to.reopen_container_log(&asked.container_id).await.map_err(refused)?;
            Ok(ReopenContainerLogResponse {})
        });
    ask!(methods, runtime, "ExecSync", |to, asked: ExecSyncRequest| to
        .exec_sync(asked)
        .await
        .map_err(refused))
}

pub(super) fn itself(methods: Methods, runtime: &Arc<dyn RuntimeService>) -> Methods {
    let methods = ask!(methods, runtime, "Version", |to, _asked: VersionRequest| {
        to.version().await.map_err(refused)
    });
    let methods = ask!(methods, runtime, "Status", |to, asked: StatusRequest| {
        to.status(asked.verbose).await.map_err(refused)
    });
    let methods = ask!(methods, runtime, "RuntimeConfig", |to, _asked: RuntimeConfigRequest| {
        to.runtime_config().await.map_err(refused)
    });
    let methods =
        ask!(methods, runtime, "UpdateRuntimeConfig", |to, asked: UpdateRuntimeConfigRequest| {
            let config = asked.runtime_config.unwrap_or_default();
            to.update_runtime_config(config).await.map_err(refused)?;
            Ok(UpdateRuntimeConfigResponse {})
        });
    let methods = methods.unary(
        "/runtime.v1.RuntimeService/CheckpointContainer",
        async |_: CheckpointContainerRequest| -> Result<CheckpointContainerResponse, Status> {
            Err(Status::new(Code::Unimplemented, "not supported: checkpoints of containers"))
        },
    );
    let runtime = runtime.clone();
    methods.streaming(
        "/runtime.v1.RuntimeService/GetContainerEvents",
        move |_: GetEventsRequest| {
            let runtime = runtime.clone();
            async move {
                let events = runtime.events().await.map_err(refused)?;
                Ok(events.map(|event| event.map_err(refused)))
            }
        },
    )
}
