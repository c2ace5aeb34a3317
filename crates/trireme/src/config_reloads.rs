//! Reloads of the configurations of authentication and authorization, as `/metrics` tells them (apiserver
//! `server/options/authenticationconfig/metrics`, `server/options/authorizationconfig/metrics`).

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use telemetry::{IntCounterVec, IntGaugeVec, Registry};

use crate::at_rest;

/// Reloads of `--authentication-config`.
pub(crate) static AUTHENTICATION: LazyLock<ConfigReloads> =
    LazyLock::new(|| ConfigReloads::new("authentication"));
/// Reloads of `--authorization-config`.
pub(crate) static AUTHORIZATION: LazyLock<ConfigReloads> =
    LazyLock::new(|| ConfigReloads::new("authorization"));

/// The figures for `/metrics`.
pub(crate) fn figures() -> String {
    AUTHENTICATION.registry.families() + &AUTHORIZATION.registry.families()
}

/// How often a file that is followed came into force, and when it last did.
pub(crate) struct ConfigReloads {
    registry: Registry,
    server: String,
    counts: IntCounterVec,
    times: IntGaugeVec,
}

impl ConfigReloads {
    fn new(what: &str) -> ConfigReloads {
        let registry = Registry::default();
        let labels = ["status", "apiserver_id_hash"];
        let hash = Sha256::digest(at_rest::server_name().as_bytes());
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        ConfigReloads {
            server: format!("sha256:{hash}"),
            counts: registry.counters(
                &format!("apiserver_{what}_config_controller_automatic_reloads_total"),
                &format!("Total number of automatic reloads of {what} configuration split by status and apiserver identity."),
                &labels,
            ),
            times: registry.gauges(
                &format!("apiserver_{what}_config_controller_automatic_reload_last_timestamp_seconds"),
                &format!("Timestamp of the last automatic reload of {what} configuration split by status and apiserver identity."),
                &labels,
            ),
            registry,
        }
    }

    /// A change of the file came into force, or could not be used.
    pub(crate) fn record(&self, is_in_force: bool) {
        let labels = [if is_in_force { "success" } else { "failure" }, self.server.as_str()];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.counts.with_label_values(&labels).inc();
        self.times.with_label_values(&labels).set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// Reloads by status, for tests.
    #[cfg(test)]
    pub(crate) fn count(&self, status: &str) -> u64 {
        self.counts.with_label_values(&[status, self.server.as_str()]).get()
    }
}
