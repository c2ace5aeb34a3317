//! `KubeSchedulerConfiguration` (`kubescheduler.config.k8s.io/v1`): profiles, their plugins with weights
//! and arguments, extenders. Unknown fields are refused, and so is what upstream's validation refuses, in
//! its words.

mod args;
mod plugins;
#[cfg(test)]
mod tests;
mod validate;

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::extender::ExtenderConfig;

pub(crate) use args::{Args, FitArgs, PluginArgs, ResourceSpec};
pub(crate) use plugins::{Plugins, default_plugins, enabled_at};

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

/// What can be set.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub(crate) profiles: Vec<ProfileConfig>,
    pub(crate) extenders: Vec<ExtenderConfig>,
    pub(crate) percentage_of_nodes_to_score: usize,
    pub(crate) initial_backoff: Duration,
    pub(crate) max_backoff: Duration,
    /// What the file says of leader election, for the process that asks.
    pub leader_elect: bool,
    /// The kubeconfig that the file names, for the process that connects.
    pub kubeconfig: String,
}

impl Default for Config {
    fn default() -> Config {
        let file = File::default();
        Config::of(file).expect("the defaults are valid")
    }
}

impl Config {
    /// Reads a configuration file's tree; the error names all faults.
    pub fn from_json(tree: &Value) -> Result<Config, String> {
        let text = |key: &str| tree[key].as_str().unwrap_or("");
        if (text("apiVersion"), text("kind")) != (API_VERSION, KIND) {
            return Err(format!(
                "no kind \"{}\" is registered for version \"{}\"",
                text("kind"),
                text("apiVersion")
            ));
        }
        let file: File = serde_json::from_value(tree.clone())
            .map_err(|e| format!("strict decoding error: {e}"))?;
        Config::of(file)
    }

    /// The names of the schedulers, one a profile.
    pub fn scheduler_names(&self) -> impl Iterator<Item = &str> {
        self.profiles.iter().map(|p| p.name.as_str())
    }

    /// The extenders, each of which needs a transport.
    pub fn extenders(&self) -> &[ExtenderConfig] {
        &self.extenders
    }

    fn of(file: File) -> Result<Config, String> {
        let file = file.defaulted();
        let faults = validate::file(&file);
        if !faults.is_empty() {
            return Err(match faults.as_slice() {
                [one] => one.clone(),
                all => format!("[{}]", all.join(", ")),
            });
        }
        let overall = file.percentage_of_nodes_to_score.unwrap_or(0);
        let seconds = |s: Option<i64>, or: u64| {
            Duration::from_secs(s.map_or(or, |s| u64::try_from(s).unwrap_or(0)))
        };
        let (initial_backoff, max_backoff) = (
            seconds(file.pod_initial_backoff_seconds, 1),
            seconds(file.pod_max_backoff_seconds, 10),
        );
        let percentage = |p: i64| usize::try_from(p).unwrap_or(0);
        let profiles = file
            .profiles
            .into_iter()
            .map(|p| ProfileConfig::of(p, overall))
            .collect::<Result<_, _>>()?;
        Ok(Config {
            profiles,
            extenders: file.extenders,
            percentage_of_nodes_to_score: percentage(overall),
            initial_backoff,
            max_backoff,
            leader_elect: file.leader_election.leader_elect.unwrap_or(true),
            kubeconfig: file.client_connection.kubeconfig,
        })
    }
}

/// A profile with its plugins merged into the defaults.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProfileConfig {
    pub(crate) name: String,
    pub(crate) percentage_of_nodes_to_score: usize,
    pub(crate) plugins: Plugins,
    pub(crate) args: PluginArgs,
}

impl ProfileConfig {
    fn of(profile: ProfileFile, overall: i64) -> Result<ProfileConfig, String> {
        let percentage = profile.percentage_of_nodes_to_score.unwrap_or(overall);
        Ok(ProfileConfig {
            name: profile.scheduler_name.unwrap_or_default(),
            percentage_of_nodes_to_score: usize::try_from(percentage).unwrap_or(0),
            plugins: default_plugins().merged_with(&profile.plugins.unwrap_or_default()),
            args: PluginArgs::of(&profile.plugin_config)?,
        })
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    parallelism: Option<i64>,
    leader_election: LeaderElection,
    client_connection: ClientConnection,
    #[serde(rename = "enableProfiling")]
    _enable_profiling: Option<bool>,
    #[serde(rename = "enableContentionProfiling")]
    _enable_contention_profiling: Option<bool>,
    percentage_of_nodes_to_score: Option<i64>,
    pod_initial_backoff_seconds: Option<i64>,
    pod_max_backoff_seconds: Option<i64>,
    profiles: Vec<ProfileFile>,
    extenders: Vec<ExtenderConfig>,
    #[serde(rename = "delayCacheUntilActive")]
    _delay_cache_until_active: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct LeaderElection {
    leader_elect: Option<bool>,
    #[serde(deserialize_with = "crate::duration::optional")]
    lease_duration: Option<Duration>,
    #[serde(deserialize_with = "crate::duration::optional")]
    renew_deadline: Option<Duration>,
    #[serde(deserialize_with = "crate::duration::optional")]
    retry_period: Option<Duration>,
    resource_lock: Option<String>,
    resource_name: Option<String>,
    resource_namespace: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct ClientConnection {
    kubeconfig: String,
    #[serde(rename = "acceptContentTypes")]
    _accept_content_types: String,
    #[serde(rename = "contentType")]
    _content_type: String,
    #[serde(rename = "qps")]
    _qps: f64,
    burst: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ProfileFile {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<i64>,
    plugins: Option<Plugins>,
    plugin_config: Vec<Args>,
}

impl File {
    fn defaulted(mut self) -> File {
        if self.profiles.is_empty() {
            self.profiles.push(ProfileFile::default());
        }
        if let [only] = self.profiles.as_mut_slice() {
            only.scheduler_name.get_or_insert_with(|| "default-scheduler".into());
        }
        self
    }
}
