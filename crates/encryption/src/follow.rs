//! Follows the file of the configuration (`--encryption-provider-config-automatic-reload`).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use store::Stamp;
use tokio::time::Instant;

use crate::encryption::Encryption;
use crate::hash::hash;
use crate::rules::Rules;
use crate::{EncryptionError, fault};

/// Between two looks at the file (upstream: a minute).
const LOOK: Duration = Duration::from_secs(10);
/// How long new KMS providers may take to become healthy, at least.
const HEALTHY_WITHIN: Duration = Duration::from_secs(10);
const HEALTH_LOOK: Duration = Duration::from_millis(100);
/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 4 << 20;

/// Reads the file of a configuration.
pub fn read(path: &Path) -> Result<String, EncryptionError> {
    use std::io::Read as _;
    let shown = path.display();
    let wrong = |what: &dyn std::fmt::Display| {
        fault(format!("error reading encryption provider configuration file {shown:?}: {what}"))
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| wrong(&e))?;
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(|e| wrong(&e))?;
    match text.len() as u64 {
        0 => Err(fault(format!("encryption provider configuration file {shown:?} is empty"))),
        n if n > FILE_MAX => Err(wrong(&"it is larger than 4 MiB")),
        _ => Ok(text),
    }
}

impl Encryption {
    /// Puts every change of the file in force whose KMS providers are healthy. Another one changes nothing, and is
    /// told by log and metric. `in_use` are the stamps of the objects that are stored.
    pub async fn follow(self: Arc<Self>, path: &Path, in_use: impl Fn() -> Vec<Stamp> + Send) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.reload(path).await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!("the encryption configuration was reloaded");
                    self.warn_of_lost_keys(in_use());
                }
                Err(error) => {
                    self.metrics.reload_failed();
                    let path = path.display();
                    tracing::error!(%path, %error, "the former encryption configuration stays");
                }
            }
        }
    }

    /// One look at the file; whether another configuration is in force now.
    pub async fn reload(&self, path: &Path) -> Result<bool, EncryptionError> {
        let text = read(path)?;
        if hash(text.as_bytes()) == self.rules().hash {
            return Ok(false);
        }
        let rules = Rules::new(&text, true, (&self.tasks, &self.metrics)).await?;
        healthy(&rules).await?;
        self.metrics.reloaded(&rules.hash);
        let former = self.exchange(rules);
        // Whoever holds the former rules may finish.
        self.tasks.spawn("former encryption configuration", async move {
            tokio::time::sleep(former.grace()).await;
            drop(former);
        });
        Ok(true)
    }

    /// Objects under keys that are not configured any more are in memory now and lost after a restart.
    fn warn_of_lost_keys(&self, in_use: Vec<Stamp>) {
        let rules = self.rules();
        for stamp in in_use.iter().filter(|stamp| !rules.knows(stamp)) {
            let key = stamp.rsplit_once(':').map_or(&**stamp, |(key, _)| key);
            tracing::error!(
                key,
                "objects are stored under a key that is not configured any more: put it back and rewrite them, \
                 or they cannot be read after the next start"
            );
        }
    }
}

/// Waits until the KMS providers of new rules are healthy.
async fn healthy(rules: &Rules) -> Result<(), EncryptionError> {
    let until = Instant::now() + rules.grace().max(HEALTHY_WITHIN);
    loop {
        let checked = tokio::time::timeout_at(until, rules.health()).await;
        let why = match checked {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_) => "context deadline exceeded".into(),
        };
        if Instant::now() + HEALTH_LOOK >= until {
            return Err(fault(format!("health check for new transformers failed: {why}")));
        }
        tokio::time::sleep(HEALTH_LOOK).await;
    }
}
