//! Lifecycle hooks: commands, requests and sleeps after a container's start and before its end.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use runtime::cri::ExecSyncRequest;

use crate::kubelet::Shared;
use crate::probe::http;

/// Runs a handler to its end; the error is the sentence for the container's message.
pub(crate) async fn run(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    id: &str,
    pod_ip: &str,
    handler: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let cmd = exec.command.clone().unwrap_or_default();
        let request = ExecSyncRequest { container_id: id.into(), cmd: cmd.clone(), timeout: 0 };
        let fail = |why: String, output: &str| {
            let name = crate::spec::described(pod);
            format!(
                "Exec lifecycle hook ({cmd:?}) for Container \"{}\" in Pod \"{name}\" failed - error: {why}, message: {output:?}",
                container.name
            )
        };
        let answer = shared.runtime.exec_sync(request).await;
        let answer = answer.map_err(|e| fail(e.chain(), ""))?;
        if answer.exit_code != 0 {
            let output = String::from_utf8_lossy(&answer.stdout).into_owned()
                + &String::from_utf8_lossy(&answer.stderr);
            let why =
                format!("command '{}' exited with {}: {output}", cmd.join(" "), answer.exit_code);
            return Err(fail(why, &output));
        }
        return Ok(());
    }
    if let Some(get) = &handler.http_get {
        let target = http::Target::of(get, container, pod_ip)?;
        let answer = http::get(shared, &target, &[]).await?;
        return match answer.status {
            200..400 => Ok(()),
            code => Err(format!("Http lifecycle hook failed: HTTP status {code}")),
        };
    }
    if let Some(sleep) = &handler.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    Err("invalid handler: no action".into())
}
