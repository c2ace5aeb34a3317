//! How the API server finds out whether controllers and scheduler are well, for ComponentStatuses.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use apiserver::HealthCheck;
use client::Health;
use outgoing::Trust;

type Checked<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// Loops of this process.
pub(crate) struct InProcess {
    pub(crate) name: &'static str,
    pub(crate) health: Health,
}

impl HealthCheck for InProcess {
    fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self) -> Checked<'_> {
        let failing = self.health.failing();
        Box::pin(async move {
            match failing.is_empty() {
                true => Ok(()),
                false => Err(format!("not running: {}", failing.join(", "))),
            }
        })
    }
}

/// A component of its own on this machine, at upstream's port: whoever is there is believed, as upstream does.
struct OnPort {
    name: &'static str,
    port: u16,
}

/// Longest answer to `/healthz` that is read, in bytes.
const ANSWER_MAX: usize = 4 << 10;
const DEADLINE: Duration = Duration::from_secs(20);

impl HealthCheck for OnPort {
    fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self) -> Checked<'_> {
        Box::pin(async {
            let url = format!("https://127.0.0.1:{}/healthz", self.port);
            outgoing::document(&url, Trust::Anybody, ANSWER_MAX, DEADLINE).await.map(drop)
        })
    }
}

/// Controller manager and scheduler where upstream looks for them.
pub(crate) fn on_ports() -> Vec<Arc<dyn HealthCheck>> {
    let on = |name, port| Arc::new(OnPort { name, port }) as Arc<dyn HealthCheck>;
    vec![on("controller-manager", 10257), on("scheduler", 10259)]
}
