//! Makes sure that a container's image is on the node, as its pull policy says.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Secret};
use runtime::cri::{AuthConfig, Image, ImageSpec, PodSandboxConfig, PullImageRequest};
use serde::Deserialize;

use crate::kubelet::Shared;
use crate::objects::User;
use crate::spec::security::ImageUser;
use crate::spec::{namespace_of, spec_of};

/// An image that can be run.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) reference: String,
    pub(crate) user: ImageUser,
}

/// Why it cannot; the reason is what `state.waiting` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What is asked for.
pub(crate) struct Wanted<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) about: &'a ObjectReference,
    pub(crate) user: &'a User,
    /// No pull before this, and the error of the last one.
    pub(crate) backing_off: Option<(Timestamp, String)>,
    pub(crate) sandbox: PodSandboxConfig,
}

/// `name` → `name:latest`.
fn with_tag(image: &str) -> Option<String> {
    if image.is_empty() || image.contains(char::is_whitespace) {
        return None;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.contains(':') || last.contains('@') {
        true => Some(image.to_owned()),
        false => Some(format!("{image}:latest")),
    }
}

fn ready(image: Image) -> Ready {
    let user = ImageUser { uid: image.uid.map(|u| u.value), name: image.username };
    Ready { reference: image.id, user }
}

async fn present(shared: &Shared, spec: &ImageSpec) -> runtime::Result<Option<Image>> {
    Ok(shared.images.image_status(spec.clone(), false).await?.image)
}

pub(crate) async fn ensure(shared: &Shared, wanted: Wanted<'_>) -> Result<Ready, Failed> {
    let requested = wanted.container.image.as_deref().unwrap_or("");
    let warn = |reason: &str, message: &str| {
        shared.recorder.event(wanted.about, EventType::Warning, reason, message);
    };
    let Some(image) = with_tag(requested) else {
        let message = format!(
            "Failed to apply default image tag \"{requested}\": couldn't parse image name \"{requested}\": invalid reference format"
        );
        warn("InspectFailed", &message);
        return Err(Failed { reason: "InvalidImageName", message });
    };
    let spec = ImageSpec { image: image.clone(), ..ImageSpec::default() };
    let default = if image.ends_with(":latest") { "Always" } else { "IfNotPresent" };
    let policy = wanted.container.image_pull_policy.as_deref().unwrap_or(default);
    if policy != "Always" {
        match present(shared, &spec).await {
            Ok(Some(found)) => {
                let message = format!(
                    "Container image \"{requested}\" already present on machine and can be accessed by the pod"
                );
                shared.recorder.event(wanted.about, EventType::Normal, "Pulled", message);
                return Ok(ready(found));
            }
            Ok(None) if policy == "Never" => {
                let message = format!(
                    "Container image \"{requested}\" is not present with pull policy of Never"
                );
                warn("ErrImageNeverPull", &message);
                return Err(Failed { reason: "ErrImageNeverPull", message });
            }
            Ok(None) => {}
            Err(error) => {
                let message = format!("Failed to inspect image \"{image}\": {}", error.chain());
                warn("InspectFailed", &message);
                return Err(Failed { reason: "ImageInspectError", message });
            }
        }
    }
    pull(shared, wanted, requested, spec).await
}

async fn pull(
    shared: &Shared,
    wanted: Wanted<'_>,
    requested: &str,
    spec: ImageSpec,
) -> Result<Ready, Failed> {
    let normal = |reason: &str, message: String| {
        shared.recorder.event(wanted.about, EventType::Normal, reason, message);
    };
    if let Some((_, last)) = &wanted.backing_off {
        let message = format!("Back-off pulling image \"{requested}\"");
        normal("BackOff", message.clone());
        let message =
            if last.is_empty() { message } else { format!("{message}: ErrImagePull: {last}") };
        return Err(Failed { reason: "ImagePullBackOff", message });
    }
    normal("Pulling", format!("Pulling image \"{requested}\""));
    let begun = std::time::Instant::now();
    let auth = credentials(shared, &wanted, &spec.image).await;
    let failed = |error: &runtime::Error| {
        let message = error.chain();
        let text = format!("Failed to pull image \"{requested}\": {message}");
        shared.recorder.event(wanted.about, EventType::Warning, "Failed", text);
        Failed { reason: "ErrImagePull", message }
    };
    let request = PullImageRequest {
        image: Some(spec.clone()),
        auth,
        sandbox_config: Some(wanted.sandbox.clone()),
    };
    let reference = shared.images.pull_image(request).await.map_err(|e| failed(&e))?;
    let pulled = ImageSpec { image: reference.clone(), ..ImageSpec::default() };
    let found = present(shared, &pulled).await.map_err(|e| failed(&e))?;
    let image = found.unwrap_or(Image { id: reference, ..Image::default() });
    let took = begun.elapsed();
    let shown = match took.as_millis() {
        ms @ 0..1000 => format!("{ms}ms"),
        ms => format!("{}.{:03}s", ms / 1000, ms % 1000),
    };
    normal(
        "Pulled",
        format!(
            "Successfully pulled image \"{requested}\" in {shown} ({shown} including waiting). Image size: {} bytes.",
            image.size
        ),
    );
    Ok(ready(image))
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerAuth {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

/// The first of the pod's pull secrets that names the image's registry.
async fn credentials(shared: &Shared, wanted: &Wanted<'_>, image: &str) -> Option<AuthConfig> {
    let spec = spec_of(wanted.pod);
    let mut missing = Vec::new();
    let mut chosen = None;
    for secret in spec.image_pull_secrets.iter().flatten() {
        let namespace = namespace_of(wanted.pod);
        match shared.objects.secret(wanted.user, namespace, &secret.name).await {
            Ok(Some(found)) => chosen = chosen.or_else(|| matching(&found, image)),
            _ => missing.push(secret.name.clone()),
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        shared.recorder.event(
            wanted.about,
            EventType::Warning,
            "FailedToRetrieveImagePullSecret",
            message,
        );
    }
    chosen
}

fn matching(secret: &Arc<Secret>, image: &str) -> Option<AuthConfig> {
    let data = secret.data.as_ref()?;
    let auths = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
        (Some(json), _) => serde_json::from_slice::<DockerConfig>(&json.0).ok()?.auths,
        (None, Some(json)) => serde_json::from_slice(&json.0).ok()?,
        _ => return None,
    };
    let first = image.split('/').next().unwrap_or("");
    let named = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let host = if named { first } else { "docker.io" };
    let (server, auth) = auths.into_iter().find(|(server, _)| {
        let bare = server.trim_start_matches("https://").trim_start_matches("http://");
        let bare = bare.split('/').next().unwrap_or("");
        bare == host || (host == "docker.io" && bare == "index.docker.io")
    })?;
    let (mut username, mut password) = (auth.username, auth.password);
    let decoded = STANDARD.decode(&auth.auth).ok().and_then(|b| String::from_utf8(b).ok());
    if let Some((user, pass)) = decoded.as_deref().and_then(|d| d.split_once(':')) {
        username = user.to_owned();
        password = pass.to_owned();
    }
    Some(AuthConfig {
        username,
        password,
        server_address: server,
        identity_token: auth.identitytoken,
        ..AuthConfig::default()
    })
}
