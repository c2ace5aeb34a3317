//! Makes sure that a container's image is on the node, as its pull policy says.

mod keyring;
mod logins;
mod name;
mod providers;
mod pulled;

use client::EventType;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use runtime::cri::{Image, ImageSpec, PodSandboxConfig, PullImageRequest};

use crate::kubelet::Shared;
use crate::objects::User;
use crate::spec::security::ImageUser;
use keyring::Login;
use name::Name;
pub use providers::ProviderFiles;
pub(crate) use providers::Providers;
pub(crate) use pulled::Pulled;

/// A pull that failed for no reason that has a name.
const ERR_PULL: &str = "ErrImagePull";

/// Whether a failure with this reason is a failed pull, after which pulls back off.
pub(crate) fn is_pull_error(reason: &str) -> bool {
    matches!(reason, ERR_PULL | "RegistryUnavailable" | "SignatureValidationFailed")
}

/// Whether the reason is told in the event of the failed start, instead of its message.
pub(crate) fn is_image_error(reason: &str) -> bool {
    let more = ["ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"];
    is_pull_error(reason) || more.contains(&reason)
}

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
    /// As the spec names it.
    pub(crate) image: String,
}

impl Failed {
    fn new(image: &str, reason: &'static str, message: String) -> Failed {
        Failed { reason, message, image: image.to_owned() }
    }
}

/// What is asked for.
pub(crate) struct Wanted<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) image: &'a str,
    pub(crate) policy: Option<&'a str>,
    pub(crate) about: &'a ObjectReference,
    pub(crate) user: &'a User,
    /// The error of the last pull, while there is to be no other.
    pub(crate) backing_off: Option<&'a str>,
    pub(crate) sandbox: PodSandboxConfig,
}

/// An image's name with all that it leaves out.
pub(crate) fn full_name(image: &str) -> Option<String> {
    Name::parse(image).ok().map(|name| name.full())
}

fn ready(image: Image) -> Ready {
    let user = ImageUser { uid: image.uid.map(|u| u.value), name: image.username };
    Ready { reference: image.id, user }
}

async fn present(shared: &Shared, spec: &ImageSpec) -> runtime::Result<Option<Image>> {
    Ok(shared.images.image_status(spec.clone(), false).await?.image)
}

pub(crate) async fn ensure(shared: &Shared, wanted: Wanted<'_>) -> Result<Ready, Failed> {
    let requested = wanted.image;
    let warn = |reason: &str, message: &str| {
        shared.recorder.event(wanted.about, EventType::Warning, reason, message);
    };
    let name = Name::parse(requested).map_err(|why| {
        let message = format!("Failed to apply default image tag {requested:?}: {why}");
        warn("InspectFailed", &message);
        Failed::new(requested, "InvalidImageName", message)
    })?;
    let image = name.with_tag(requested);
    let spec = ImageSpec { image: image.clone(), ..ImageSpec::default() };
    let default = if image.ends_with(":latest") { "Always" } else { "IfNotPresent" };
    let policy = wanted.policy.unwrap_or(default);
    let never = || {
        let message =
            format!("Container image {requested:?} is not present with pull policy of Never");
        warn("ErrImageNeverPull", &message);
        Failed::new(requested, "ErrImageNeverPull", message)
    };
    let mut logins = None;
    if policy != "Always" {
        match present(shared, &spec).await {
            Ok(Some(found)) => {
                let known = logins_of(shared, &wanted, &name).await?;
                let allowed =
                    shared.pulled.allows(&name.full(), &name.repository, &found.id, &known);
                logins = Some(known);
                if !allowed && policy == "Never" {
                    return Err(never());
                }
                if allowed {
                    let message = format!(
                        "Container image {requested:?} already present on machine and can be accessed by the pod"
                    );
                    shared.recorder.event(wanted.about, EventType::Normal, "Pulled", message);
                    return Ok(ready(found));
                }
            }
            Ok(None) if policy == "Never" => return Err(never()),
            Ok(None) => {}
            Err(error) => {
                // Upstream names the image that it found: none.
                let message = format!("Failed to inspect image \"\": {}", error.chain());
                warn("InspectFailed", &message);
                return Err(Failed::new(requested, "ImageInspectError", message));
            }
        }
    }
    let logins = match logins {
        Some(known) => known,
        None => logins_of(shared, &wanted, &name).await?,
    };
    pull(shared, wanted, &name, spec, logins).await
}

async fn logins_of(
    shared: &Shared,
    wanted: &Wanted<'_>,
    name: &Name,
) -> Result<Vec<Login>, Failed> {
    let found = logins::of(shared, wanted, &name.repository).await;
    // Upstream shows the sentence as the reason; reasons are words here.
    found.map_err(|message| Failed::new(wanted.image, ERR_PULL, message))
}

async fn pull(
    shared: &Shared,
    wanted: Wanted<'_>,
    name: &Name,
    spec: ImageSpec,
    logins: Vec<Login>,
) -> Result<Ready, Failed> {
    let (requested, full) = (wanted.image, name.full());
    let normal = |reason: &str, message: String| {
        shared.recorder.event(wanted.about, EventType::Normal, reason, message);
    };
    if let Some(last) = wanted.backing_off {
        let message = format!("Back-off pulling image {requested:?}");
        normal("BackOff", message.clone());
        let message = if last.is_empty() { message } else { format!("{message}: {last}") };
        return Err(Failed::new(requested, "ImagePullBackOff", message));
    }
    normal("Pulling", format!("Pulling image {requested:?}"));
    let begun = std::time::Instant::now();
    let before = present(shared, &spec).await.ok().flatten().map(|image| image.id);
    let pulled = match shared.pulled.announce(&full, before.as_deref().unwrap_or("")) {
        Ok(()) => try_logins(shared, &wanted, &spec, logins).await,
        Err(error) => Err(format!("failed to record image pull intent: {error}")),
    };
    let (image, login) = pulled.map_err(|error| {
        shared.pulled.failed(&full);
        let text = format!("Failed to pull image {requested:?}: {error}");
        shared.recorder.event(wanted.about, EventType::Warning, "Failed", text);
        classify(requested, error)
    })?;
    let done = shared.pulled.done(&full, &name.repository, &image, login.as_ref());
    if let Err(error) = done {
        // Until it can be written, the image is pulled for every pod.
        tracing::warn!(%error, image = requested, "pulled image not recorded");
    }
    let shown = go_millis(begun.elapsed());
    normal(
        "Pulled",
        format!(
            "Successfully pulled image {requested:?} in {shown} ({shown} including waiting). Image size: {} bytes.",
            image.size
        ),
    );
    Ok(ready(image))
}

/// With each login in turn, or without one; the error is what every one of them met.
async fn try_logins(
    shared: &Shared,
    wanted: &Wanted<'_>,
    spec: &ImageSpec,
    logins: Vec<Login>,
) -> Result<(Image, Option<Login>), String> {
    let mut errors: Vec<String> = Vec::new();
    let anonymous = logins.is_empty().then_some(None);
    for login in logins.into_iter().map(Some).chain(anonymous) {
        let request = PullImageRequest {
            image: Some(spec.clone()),
            auth: login.as_ref().map(|login| login.auth.clone()),
            sandbox_config: Some(wanted.sandbox.clone()),
        };
        match shared.images.pull_image(request).await {
            Ok(reference) => {
                let image = pulled(shared, reference).await.map_err(|e| e.chain())?;
                return Ok((image, login));
            }
            Err(error) => {
                let text = error.chain();
                if !errors.contains(&text) {
                    errors.push(text);
                }
            }
        }
    }
    match errors.as_slice() {
        [one] => Err(one.clone()),
        all => Err(format!("[{}]", all.join(", "))),
    }
}

async fn pulled(shared: &Shared, reference: String) -> runtime::Result<Image> {
    let spec = ImageSpec { image: reference.clone(), ..ImageSpec::default() };
    let found = present(shared, &spec).await?;
    Ok(found.unwrap_or(Image { id: reference, ..Image::default() }))
}

/// What a runtime's error means: it may begin with the name of a kind that has words of its own.
fn classify(image: &str, error: String) -> Failed {
    let kinds = [
        ("RegistryUnavailable", "the registry is unavailable"),
        ("SignatureValidationFailed", "the signature validation failed"),
    ];
    for (reason, words) in kinds {
        if let Some(rest) = error.strip_prefix(reason) {
            let message = format!("image pull failed for {image} because {words}{rest}");
            return Failed::new(image, reason, message);
        }
    }
    Failed::new(image, ERR_PULL, error)
}

/// A duration as Go prints it, to the millisecond: `5ms`, `1.5s`, `2m3.004s`.
fn go_millis(took: std::time::Duration) -> String {
    let ms = took.as_millis();
    if ms < 1000 {
        return if ms == 0 { "0s".into() } else { format!("{ms}ms") };
    }
    let seconds = format!("{}.{:03}", ms / 1000 % 60, ms % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match (ms / 3_600_000, ms / 60_000 % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, m) => format!("{m}m{seconds}s"),
        (h, m) => format!("{h}h{m}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_pull_errors_have_their_own_reasons() {
        let failed = classify("i:1", "RegistryUnavailable: no route".into());
        assert_eq!(failed.reason, "RegistryUnavailable");
        let said = "image pull failed for i:1 because the registry is unavailable: no route";
        assert_eq!(failed.message, said);
        let failed = classify("i:1", "SignatureValidationFailed".into());
        assert_eq!(failed.reason, "SignatureValidationFailed");
        let said = "image pull failed for i:1 because the signature validation failed";
        assert_eq!(failed.message, said);
        let failed = classify("i:1", "a RegistryUnavailable".into());
        assert_eq!((failed.reason, &*failed.message), (ERR_PULL, "a RegistryUnavailable"));
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (ms, shown) in
            [(0, "0s"), (5, "5ms"), (1500, "1.5s"), (60_000, "1m0s"), (3_723_004, "1h2m3.004s")]
        {
            assert_eq!(go_millis(std::time::Duration::from_millis(ms)), shown);
        }
    }
}
