//! What happens with one legacy token.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, Secret, ServiceAccount, Volume};

use crate::meta::uid;

pub(super) const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// The day on which an API server last saw the token.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// The day since which API servers refuse the token.
pub(super) const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Keep,
    /// Mark it as invalid since this day.
    Invalidate(String),
    Delete,
}

/// The dates that decide.
#[derive(Debug)]
pub(super) struct Window {
    now: Timestamp,
    /// Tokens made, used or invalidated at this time or later stay.
    oldest: Timestamp,
}

impl Window {
    /// None while use was not tracked for `unused_max`; the first day does not count, because it was not
    /// tracked as a whole.
    pub(super) fn new(
        since: Option<&str>,
        now: Timestamp,
        unused_max: Duration,
    ) -> Result<Option<Window>, String> {
        let since = since.ok_or("configMap does not have since label")?;
        let since = date(since)
            .and_then(|day| day.tomorrow().ok())
            .and_then(|day| day.to_zoned(TimeZone::UTC).ok())
            .ok_or_else(|| format!("error parsing trackedSince time: {since:?}"))?;
        let longest = SignedDuration::try_from(unused_max).map_err(|error| error.to_string())?;
        let Ok(oldest) = now.checked_sub(longest) else { return Ok(None) };
        Ok((oldest >= since.timestamp()).then_some(Window { now, oldest }))
    }

    /// `mounted` says whether a pod uses the Secret.
    pub(super) fn step(
        &self,
        secret: &Secret,
        account: Option<&ServiceAccount>,
        mounted: impl FnOnce() -> bool,
    ) -> Step {
        let meta = &secret.metadata;
        let young = meta.creation_timestamp.as_ref().is_none_or(|t| t.0 >= self.oldest);
        if secret.type_.as_deref() != Some(TYPE) || young || meta.deletion_timestamp.is_some() {
            return Step::Keep;
        }
        let label = |key: &str| meta.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
        // A token that was never used has no label. One whose label cannot be read may be in use.
        match label(LAST_USED) {
            Some(used) if date(used).is_none_or(|day| day >= self.oldest_day()) => {
                return Step::Keep;
            }
            _ => {}
        }
        // Only Secrets that their account names were generated; the others belong to users.
        if !account.is_some_and(|account| names(account, secret)) || mounted() {
            return Step::Keep;
        }
        match label(INVALID_SINCE).and_then(date) {
            None => Step::Invalidate(day(self.now).to_string()),
            Some(day) if day >= self.oldest_day() => Step::Keep,
            Some(_) => Step::Delete,
        }
    }

    fn oldest_day(&self) -> Date {
        day(self.oldest)
    }
}

fn day(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// A day as labels have it: `2006-01-02` and nothing else.
fn date(text: &str) -> Option<Date> {
    let day: Date = text.parse().ok()?;
    (day.to_string() == text).then_some(day)
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let all = secret.metadata.annotations.as_ref();
    all.and_then(|all| all.get(key)).map_or("", String::as_str)
}

/// The name of the account that the token is of.
pub(super) fn account_of(secret: &Secret) -> &str {
    annotation(secret, ACCOUNT)
}

fn names(account: &ServiceAccount, secret: &Secret) -> bool {
    let own = annotation(secret, ACCOUNT_UID);
    (own.is_empty() || own == uid(&account.metadata))
        && account.secrets.iter().flatten().any(|named| named.name == secret.metadata.name)
}

/// Names of the Secrets that the pod's spec refers to.
pub(super) fn secrets_of(pod: &Pod) -> impl Iterator<Item = &str> {
    let spec = pod.spec.as_ref();
    let pulls = spec.into_iter().flat_map(|s| s.image_pull_secrets.iter().flatten());
    let pulls = pulls.map(|reference| reference.name.as_str());
    let containers = spec.into_iter().flat_map(|s| {
        s.init_containers.iter().flatten().chain(&s.containers).flat_map(secrets_of_container)
    });
    let debuggers = spec.into_iter().flat_map(|s| s.ephemeral_containers.iter().flatten());
    let debuggers = debuggers.flat_map(|c| environment(c.env.as_deref(), c.env_from.as_deref()));
    let volumes = spec.into_iter().flat_map(|s| s.volumes.iter().flatten());
    pulls.chain(containers).chain(debuggers).chain(volumes.flat_map(secrets_of_volume))
}

fn secrets_of_container(container: &Container) -> impl Iterator<Item = &str> {
    environment(container.env.as_deref(), container.env_from.as_deref())
}

fn environment<'a>(
    env: Option<&'a [k8s_openapi::api::core::v1::EnvVar]>,
    sources: Option<&'a [k8s_openapi::api::core::v1::EnvFromSource]>,
) -> impl Iterator<Item = &'a str> {
    let whole = sources.unwrap_or_default().iter().filter_map(|s| s.secret_ref.as_ref());
    let keys = env.unwrap_or_default().iter();
    let keys = keys.filter_map(|e| e.value_from.as_ref()?.secret_key_ref.as_ref());
    whole.map(|s| s.name.as_str()).chain(keys.map(|s| s.name.as_str()))
}

fn secrets_of_volume(volume: &Volume) -> Vec<&str> {
    let v = volume;
    let local = [
        v.cephfs.as_ref().and_then(|s| s.secret_ref.as_ref()),
        v.cinder.as_ref().and_then(|s| s.secret_ref.as_ref()),
        v.flex_volume.as_ref().and_then(|s| s.secret_ref.as_ref()),
        v.rbd.as_ref().and_then(|s| s.secret_ref.as_ref()),
        v.scale_io.as_ref().map(|s| &s.secret_ref),
        v.iscsi.as_ref().and_then(|s| s.secret_ref.as_ref()),
        v.storageos.as_ref().and_then(|s| s.secret_ref.as_ref()),
        v.csi.as_ref().and_then(|s| s.node_publish_secret_ref.as_ref()),
    ];
    let mut all: Vec<&str> = local.into_iter().flatten().map(|s| s.name.as_str()).collect();
    all.extend(v.azure_file.as_ref().map(|s| s.secret_name.as_str()));
    all.extend(v.secret.as_ref().and_then(|s| s.secret_name.as_deref()));
    let sources = v.projected.iter().flat_map(|p| p.sources.iter().flatten());
    all.extend(sources.filter_map(|s| s.secret.as_ref()).map(|s| s.name.as_str()));
    all
}
