//! Flags of credential providers: programs that know logins of registries.

use std::path::PathBuf;

use ::kubelet::{KubeletConfig, ProviderFiles};

#[derive(Debug, Default, clap::Args)]
#[group(id = "kubelet credentials")]
pub(super) struct Args {
    /// A CredentialProviderConfig, or a folder of them.
    #[arg(long, value_name = "PATH")]
    image_credential_provider_config: Option<PathBuf>,
    /// Where the programs of credential providers lie.
    #[arg(long, value_name = "FOLDER")]
    image_credential_provider_bin_dir: Option<PathBuf>,
}

impl Args {
    /// Either flag turns providers on; what is missing is told when they are read.
    pub(super) fn apply(&self, config: &mut KubeletConfig) {
        let (file, folder) =
            (&self.image_credential_provider_config, &self.image_credential_provider_bin_dir);
        if file.is_some() || folder.is_some() {
            config.credential_providers = Some(ProviderFiles {
                config: file.clone().unwrap_or_default(),
                bin_dir: folder.clone().unwrap_or_default(),
            });
        }
    }
}
