//! The flags `--audit-*` of `kube-apiserver`, with upstream's names, defaults and refusals.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::audit::{
    Auditor, Batching, LogFile, Mode, Policy, Rotation, Sink, Sinks, Truncation,
};
use client::Tasks;

use crate::hooks;

/// What is told of requests, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct AuditFlags {
    /// The policy (audit.k8s.io/v1): what is told of which requests. Nothing is told without one.
    #[arg(long)]
    audit_policy_file: Option<PathBuf>,
    /// File that gets an event a line; `-` is standard output.
    #[arg(long)]
    audit_log_path: Option<PathBuf>,
    /// Days that former files stay; 0 is for ever.
    #[arg(long, default_value_t = 0)]
    audit_log_maxage: u32,
    /// Former files that stay; 0 is all.
    #[arg(long, default_value_t = 0)]
    audit_log_maxbackup: usize,
    /// Megabytes of a file before it is replaced; 0 is 100.
    #[arg(long, default_value_t = 0)]
    audit_log_maxsize: u64,
    /// Compress former files.
    #[arg(long)]
    audit_log_compress: bool,
    /// Form of the events; only json.
    #[arg(long, default_value = "json")]
    audit_log_format: String,
    /// Version of the events; only audit.k8s.io/v1.
    #[arg(long, default_value = "audit.k8s.io/v1")]
    audit_log_version: String,
    /// When a request waits for its event: batch, blocking, blocking-strict.
    #[arg(long, default_value = "blocking")]
    audit_log_mode: String,
    /// Events that wait at most, in batch mode.
    #[arg(long, default_value_t = Batching::LOG.buffer)]
    audit_log_batch_buffer_size: usize,
    /// Events of a batch at most.
    #[arg(long, default_value_t = Batching::LOG.size)]
    audit_log_batch_max_size: usize,
    /// Longest wait for a batch to fill, as Go writes durations.
    #[arg(long, default_value = "0s", value_parser = crate::durations::go_duration)]
    audit_log_batch_max_wait: Duration,
    /// Leave the objects out of events that are too large.
    #[arg(long)]
    audit_log_truncate_enabled: bool,
    /// Bytes of an event at most, when large ones are cut.
    #[arg(long, default_value_t = 102_400)]
    audit_log_truncate_max_event_size: usize,
    /// Bytes of a batch at most, when large ones are cut.
    #[arg(long, default_value_t = 10_485_760)]
    audit_log_truncate_max_batch_size: usize,
    /// A kubeconfig of a server that gets lists of events.
    #[arg(long)]
    audit_webhook_config_file: Option<PathBuf>,
    /// When a request waits until its event is sent: batch, blocking, blocking-strict.
    #[arg(long, default_value = "batch")]
    audit_webhook_mode: String,
    /// Events that wait at most, in batch mode.
    #[arg(long, default_value_t = Batching::WEBHOOK.buffer)]
    audit_webhook_batch_buffer_size: usize,
    /// Events of a list at most.
    #[arg(long, default_value_t = Batching::WEBHOOK.size)]
    audit_webhook_batch_max_size: usize,
    /// Longest wait for a list to fill, as Go writes durations.
    #[arg(long, default_value = "30s", value_parser = crate::durations::go_duration)]
    audit_webhook_batch_max_wait: Duration,
    /// Whether lists are throttled.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_webhook_batch_throttle_enable: Option<bool>,
    /// Lists a second.
    #[arg(long, default_value_t = 10.0)]
    audit_webhook_batch_throttle_qps: f64,
    /// Lists at once.
    #[arg(long, default_value_t = 15)]
    audit_webhook_batch_throttle_burst: u32,
    /// First wait before a list is sent again, as Go writes durations.
    #[arg(long, default_value = "10s", value_parser = crate::durations::go_duration)]
    audit_webhook_initial_backoff: Duration,
    /// Leave the objects out of events that are too large.
    #[arg(long)]
    audit_webhook_truncate_enabled: bool,
    /// Bytes of an event at most, when large ones are cut.
    #[arg(long, default_value_t = 102_400)]
    audit_webhook_truncate_max_event_size: usize,
    /// Bytes of a list at most, when large ones are cut.
    #[arg(long, default_value_t = 10_485_760)]
    audit_webhook_truncate_max_batch_size: usize,
    /// Version of the events; only audit.k8s.io/v1.
    #[arg(long, default_value = "audit.k8s.io/v1")]
    audit_webhook_version: String,
}

impl AuditFlags {
    /// The audit that the flags ask for; its work runs among `tasks`.
    pub(crate) fn auditor(&self, tasks: &Tasks) -> Result<Option<Arc<Auditor>>> {
        let Some(path) = &self.audit_policy_file else {
            let named = [
                ("log", self.audit_log_path.is_some()),
                ("webhook", self.audit_webhook_config_file.is_some()),
            ];
            for (backend, _) in named.iter().filter(|(_, set)| *set) {
                tracing::warn!(
                    "no audit policy file provided, no events will be recorded for {backend} backend"
                );
            }
            return Ok(None);
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("--audit-policy-file: read {}", path.display()))?;
        let policy = Policy::parse(&text)
            .with_context(|| format!("--audit-policy-file: {}", path.display()))?;
        let (sinks, work) = Sinks::new(self.log()?.into_iter().chain(self.webhook()?).collect());
        for part in work {
            tasks.spawn("audit", part);
        }
        Ok(Some(Arc::new(Auditor::new(policy, sinks))))
    }

    fn log(&self) -> Result<Option<Sink>> {
        let Some(path) = &self.audit_log_path else { return Ok(None) };
        if self.audit_log_format != "json" {
            bail!("--audit-log-format: {:?} is not supported; use json", self.audit_log_format);
        }
        check_version("--audit-log-version", &self.audit_log_version)?;
        let rotation = Rotation {
            max_size: self.audit_log_maxsize << 20,
            max_backups: self.audit_log_maxbackup,
            max_age: self.audit_log_maxage,
            compress: self.audit_log_compress,
        };
        let file = LogFile::open(path, rotation)
            .with_context(|| format!("--audit-log-path: open {}", path.display()))?;
        let batching = Batching {
            buffer: self.audit_log_batch_buffer_size,
            size: self.audit_log_batch_max_size,
            wait: self.audit_log_batch_max_wait,
            throttle: None,
        };
        let mode = mode(&self.audit_log_mode, batching).context("--audit-log-mode")?;
        let truncation = self.audit_log_truncate_enabled.then_some(Truncation {
            max_event: self.audit_log_truncate_max_event_size,
            max_batch: self.audit_log_truncate_max_batch_size,
        });
        Ok(Some(Sink::Log { file, mode, truncation }))
    }
}

impl AuditFlags {
    fn webhook(&self) -> Result<Option<Sink>> {
        let Some(path) = &self.audit_webhook_config_file else { return Ok(None) };
        check_version("--audit-webhook-version", &self.audit_webhook_version)?;
        let limits =
            (self.audit_webhook_batch_throttle_qps, self.audit_webhook_batch_throttle_burst);
        let batching = Batching {
            buffer: self.audit_webhook_batch_buffer_size,
            size: self.audit_webhook_batch_max_size,
            wait: self.audit_webhook_batch_max_wait,
            throttle: (self.audit_webhook_batch_throttle_enable != Some(false)).then_some(limits),
        };
        Ok(Some(Sink::Webhook {
            to: hooks::audit(path)?,
            mode: mode(&self.audit_webhook_mode, batching).context("--audit-webhook-mode")?,
            truncation: self.audit_webhook_truncate_enabled.then_some(Truncation {
                max_event: self.audit_webhook_truncate_max_event_size,
                max_batch: self.audit_webhook_truncate_max_batch_size,
            }),
            first_wait: self.audit_webhook_initial_backoff,
        }))
    }
}

fn check_version(flag: &str, version: &str) -> Result<()> {
    if version != "audit.k8s.io/v1" {
        bail!("{flag}: {version:?} is not served; use audit.k8s.io/v1");
    }
    Ok(())
}

fn mode(name: &str, batching: Batching) -> Result<Mode> {
    Ok(match name {
        "batch"
            if batching.buffer == 0 || batching.size == 0 || batching.size > batching.buffer =>
        {
            bail!("a batch must have events, and no more than the buffer holds")
        }
        "batch" => Mode::Batch(batching),
        "blocking" => Mode::Blocking,
        "blocking-strict" => Mode::BlockingStrict,
        other => bail!("{other:?} is not known; use batch, blocking or blocking-strict"),
    })
}
