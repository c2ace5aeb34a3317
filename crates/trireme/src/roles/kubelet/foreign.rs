//! A kubelet on another container runtime, behind its CRI socket.

use std::sync::Arc;

use ::cri::Client;
use ::runtime::cri::CgroupDriver;
use ::runtime::{Code, ImageService, RuntimeService};
use anyhow::{Context, Result, anyhow, bail};
use client::Tasks;

/// What a kubelet needs of a runtime.
pub(super) type Services = (Arc<dyn RuntimeService>, Arc<dyn ImageService>);

/// Endpoints that name no socket are told before anything else is looked at.
pub(super) fn check_endpoints(args: &super::Args) -> Result<()> {
    let given = [
        ("--container-runtime-endpoint", &args.container_runtime_endpoint),
        ("--image-service-endpoint", &args.image_service_endpoint),
    ];
    for (flag, endpoint) in given {
        let Some(endpoint) = endpoint else { continue };
        ::cri::check_endpoint(endpoint).map_err(|e| anyhow!(e.chain())).context(flag)?;
    }
    Ok(())
}

/// Connects to a runtime, and refuses one that this kubelet cannot work with. Images are its own unless another
/// endpoint has them.
pub(super) async fn runtime(
    endpoint: &str,
    images: Option<&str>,
    tasks: &Tasks,
) -> Result<Services> {
    let open = |endpoint: &str| Client::new(endpoint, tasks).map_err(|e| anyhow!(e.chain()));
    let runtime = open(endpoint).context("--container-runtime-endpoint")?;
    let images = match images {
        Some(images) => open(images).context("--image-service-endpoint")?,
        None => runtime.clone(),
    };
    check(&runtime).await.with_context(|| format!("the container runtime at {endpoint}"))?;
    Ok((Arc::new(runtime), Arc::new(images)))
}

async fn check(runtime: &dyn RuntimeService) -> Result<()> {
    let found = runtime.version().await.map_err(|e| anyhow!(e.chain()))?;
    eprintln!("containers run in {} {}", found.runtime_name, found.runtime_version);
    match runtime.runtime_config().await {
        Ok(config) => {
            let driver = config.linux.map_or(CgroupDriver::Cgroupfs as i32, |l| l.cgroup_driver);
            if driver != CgroupDriver::Cgroupfs as i32 {
                bail!("its cgroup driver is systemd; this kubelet works with cgroupfs only");
            }
            Ok(())
        }
        // Runtimes of before 2023 do not tell.
        Err(error) if error.code() == Code::Unimplemented => Ok(()),
        Err(error) => Err(anyhow!(error.chain())),
    }
}
