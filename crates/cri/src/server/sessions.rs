//! Exec, attach and port-forward: checked, and answered with a URL (k8s.io/kubelet `pkg/cri/streaming`).

use std::sync::Arc;

use ::runtime::cri::*;
use ::runtime::{RuntimeService, StreamOptions};
use grpc::Code;
use grpc::server::{Methods, Status};

use super::streaming::{Session, Streaming};

fn invalid(why: &str) -> Status {
    Status::new(Code::InvalidArgument, why)
}

/// Streams that can be opened together.
fn checked(container: &str, streams: StreamOptions) -> Result<StreamOptions, Status> {
    let StreamOptions { stdin, stdout, stderr, tty } = streams;
    if container.is_empty() {
        return Err(invalid("missing required container_id"));
    }
    if tty && stderr {
        return Err(invalid("tty and stderr cannot both be true"));
    }
    if !(stdin || stdout || stderr) {
        return Err(invalid("one of stdin, stdout, or stderr must be set"));
    }
    Ok(streams)
}

pub(super) fn add(
    methods: Methods,
    runtime: &Arc<dyn RuntimeService>,
    streaming: &Arc<Streaming>,
) -> Methods {
    let (to, at) = (runtime.clone(), streaming.clone());
    let methods = methods.unary("/runtime.v1.RuntimeService/Exec", move |asked: ExecRequest| {
        let (to, at) = (to.clone(), at.clone());
        async move {
            let ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = asked;
            let wanted = StreamOptions { stdin, stdout, stderr, tty };
            let streams = checked(&container_id, wanted)?;
            running(&*to, &container_id).await?;
            let url = at.open(Session::Exec { container: container_id, command: cmd, streams })?;
            Ok(ExecResponse { url })
        }
    });
    let (to, at) = (runtime.clone(), streaming.clone());
    let methods =
        methods.unary("/runtime.v1.RuntimeService/Attach", move |asked: AttachRequest| {
            let (to, at) = (to.clone(), at.clone());
            async move {
                let AttachRequest { container_id, stdin, tty, stdout, stderr } = asked;
                let wanted = StreamOptions { stdin, stdout, stderr, tty };
                let streams = checked(&container_id, wanted)?;
                running(&*to, &container_id).await?;
                let url = at.open(Session::Attach { container: container_id, streams })?;
                Ok(AttachResponse { url })
            }
        });
    let (to, at) = (runtime.clone(), streaming.clone());
    methods.unary("/runtime.v1.RuntimeService/PortForward", move |asked: PortForwardRequest| {
        let (to, at) = (to.clone(), at.clone());
        async move {
            if asked.pod_sandbox_id.is_empty() {
                return Err(invalid("missing required pod_sandbox_id"));
            }
            to.pod_sandbox_status(&asked.pod_sandbox_id, false).await.map_err(super::refused)?;
            let url = at.open(Session::PortForward { sandbox: asked.pod_sandbox_id })?;
            Ok(PortForwardResponse { url })
        }
    })
}

async fn running(runtime: &dyn RuntimeService, container: &str) -> Result<(), Status> {
    let status = runtime.container_status(container, false).await.map_err(super::refused)?;
    let state = status.status.map_or(ContainerState::Unknown, |status| status.state());
    match state {
        ContainerState::Running => Ok(()),
        _ => Err(Status::new(Code::Unknown, format!("container {container:?} is not running"))),
    }
}
