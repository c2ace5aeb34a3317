//! How long pods have when the machine shuts down.

use std::time::Duration;

use ::kubelet::{ShutdownPeriod, shutdown_periods};
use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Rest;

fn shutdown_period(period: Option<Duration>) -> Result<Option<Duration>> {
    match period.is_some_and(|period| period < Duration::from_secs(1)) {
        true => bail!("must be either zero or otherwise >= 1 sec"),
        false => Ok(period),
    }
}

fn by_priority(value: &Value) -> Result<Vec<ShutdownPeriod>> {
    let one = |entry: &Value| {
        let priority = entry["priority"].as_i64().and_then(|n| i32::try_from(n).ok());
        let seconds = entry["shutdownGracePeriodSeconds"].as_i64().filter(|n| *n >= 0);
        Ok(ShutdownPeriod {
            priority: priority.context("expected a priority")?,
            seconds: seconds.context("expected shutdownGracePeriodSeconds")?,
        })
    };
    value.as_array().context("expected a list")?.iter().map(one).collect()
}

impl Rest {
    pub(super) fn set_shutdown(
        &mut self,
        name: &str,
        value: &Value,
        time: impl Fn() -> Result<Option<Duration>>,
    ) -> Result<()> {
        match name {
            "shutdownGracePeriod" => self.shutdown = shutdown_period(time()?)?,
            "shutdownGracePeriodCriticalPods" => self.shutdown_critical = shutdown_period(time()?)?,
            _ => self.shutdown_by_priority = by_priority(value)?,
        }
        Ok(())
    }

    pub(super) fn check_shutdown(&self) -> Result<()> {
        let (all, critical) = (self.shutdown.unwrap_or_default(), self.shutdown_critical);
        if critical.unwrap_or_default() > all {
            bail!(
                "shutdownGracePeriodCriticalPods {critical:?} must be <= shutdownGracePeriod {all:?}"
            );
        }
        if !self.shutdown_by_priority.is_empty() && self.shutdown.is_some() {
            bail!(
                "cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time"
            );
        }
        Ok(())
    }

    /// How long pods have, by their priority.
    pub(super) fn shutdown(&self) -> Vec<ShutdownPeriod> {
        match self.shutdown {
            None => self.shutdown_by_priority.clone(),
            Some(all) => shutdown_periods(all, self.shutdown_critical.unwrap_or_default()),
        }
    }
}
