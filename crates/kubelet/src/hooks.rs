//! Lifecycle hooks: commands, requests and sleeps after a container's start and before its end.

use std::time::Duration;

use crate::exec;
use crate::kubelet::Shared;
use crate::probe::http;
use client::EventType;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};

/// Most that a hook after the start may take. Upstream has no limit; this one ends what would
/// otherwise hold its container up for ever.
pub(crate) const POST_START_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest output kept in a message, as a probe's.
const OUTPUT_MAX: usize = 10 << 10;

/// Runs a handler to its end, or until `limit` is over; the error is the sentence for the
/// container's message.
pub(crate) async fn run(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    id: &str,
    pod_ip: &str,
    handler: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let cmd = exec.command.clone().unwrap_or_default();
        let fail = |why: String, output: &str| {
            let name = crate::spec::described(pod);
            format!(
                "Exec lifecycle hook ({cmd:?}) for Container \"{}\" in Pod \"{name}\" failed - error: {why}, message: {output:?}",
                container.name
            )
        };
        let answer = exec::run(shared, id, cmd.clone(), limit).await;
        let mut answer = answer.map_err(|e| fail(e.to_string(), ""))?;
        if answer.exit_code != 0 {
            answer.stdout.append(&mut answer.stderr);
            answer.stdout.truncate(OUTPUT_MAX);
            let output = String::from_utf8_lossy(&answer.stdout).into_owned();
            let why =
                format!("command '{}' exited with {}: {output}", cmd.join(" "), answer.exit_code);
            return Err(fail(why, &output));
        }
        return Ok(());
    }
    if let Some(get) = &handler.http_get {
        return request(shared, pod, container, pod_ip, get, limit).await.map_err(|why| {
            format!(
                "HTTP lifecycle hook ({}) for Container \"{}\" in Pod \"{}\" failed - error: {why}",
                get.path.as_deref().unwrap_or(""),
                container.name,
                crate::spec::described(pod)
            )
        });
    }
    if let Some(sleep) = &handler.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    Err("invalid handler: no action".into())
}

/// Any answer will do. A server that was asked by TLS and has none is asked without.
async fn request(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    pod_ip: &str,
    get: &HTTPGetAction,
    limit: Duration,
) -> Result<(), String> {
    let mut target = http::Target::of(get, container, pod_ip, "lifecycle")?;
    let dialer = &*shared.dialer;
    match http::get(dialer, &target, limit).await {
        Ok(_) | Err(http::Failure::Body(_)) => Ok(()),
        Err(http::Failure::Request(why)) if why.ends_with(http::NOT_TLS) => {
            target.url.tls = false;
            if http::get(dialer, &target, limit).await.is_err() {
                return Err(why);
            }
            let text = format!(
                "request to HTTPS lifecycle hook {} got HTTP response, retry with HTTP succeeded",
                target.url.authority()
            );
            let about = crate::pod::pod_reference(pod);
            shared.recorder.event(&about, EventType::Warning, "LifecycleHTTPFallback", text);
            Ok(())
        }
        Err(http::Failure::Request(why)) => Err(why),
    }
}
