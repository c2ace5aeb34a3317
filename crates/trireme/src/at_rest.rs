//! Encryption at rest as the flags ask for it: its file, its health, its figures.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;
use apiserver::{Figures, HealthCheck};
use client::Tasks;
use encryption::Encryption;
use store::Store;

/// The file of an EncryptionConfiguration.
#[derive(Debug, Clone)]
pub(crate) struct EncryptionFile {
    pub(crate) path: PathBuf,
    /// Changes are put in force while the server runs.
    pub(crate) followed: bool,
}

/// This server's name in the figures of configurations.
pub(crate) fn server_name() -> String {
    format!("apiserver-{}", rustix::system::uname().nodename().to_string_lossy())
}

impl EncryptionFile {
    pub(crate) async fn load(&self, tasks: &Tasks) -> Result<Arc<Encryption>> {
        let text = encryption::read(&self.path)?;
        let made = Encryption::new(&text, self.followed, &server_name(), tasks).await;
        let wrong = |error| anyhow::anyhow!("{}: {error}", self.path.display());
        Ok(Arc::new(made.map_err(wrong)?))
    }

    /// Puts changes of the file in force from now on.
    pub(crate) fn follow(&self, encryption: &Arc<Encryption>, store: &Store, tasks: &Tasks) {
        let (path, encryption, store) = (self.path.clone(), encryption.clone(), store.clone());
        tasks.essential("encryption configuration", move || {
            let (path, encryption, store) = (path.clone(), encryption.clone(), store.clone());
            async move { encryption.follow(&path, || store.stamps()).await }
        });
    }
}

/// `/healthz/kms-providers`, where there is something to tell.
pub(crate) fn health_check(encryption: &Arc<Encryption>) -> Option<Arc<dyn HealthCheck>> {
    let check = KmsProviders(encryption.clone());
    encryption.has_health().then(|| Arc::new(check) as Arc<dyn HealthCheck>)
}

struct KmsProviders(Arc<Encryption>);

impl HealthCheck for KmsProviders {
    fn name(&self) -> &'static str {
        "kms-providers"
    }

    fn check(&self) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(self.0.health())
    }
}

/// The figures for `/metrics`.
pub(crate) fn figures(encryption: &Arc<Encryption>) -> Figures {
    let encryption = encryption.clone();
    Box::new(move || encryption.metrics_text())
}
