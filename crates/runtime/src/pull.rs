//! Pulling from registries.

use crate::config::Config;
use crate::cri::AuthConfig;
use crate::error::{Error, Result};
use crate::image::ImageStore;

pub(crate) async fn pull(_: &ImageStore, _: &Config, name: &str, _: AuthConfig) -> Result<String> {
    Err(Error::Unsupported(format!("pulling {name} from a registry")))
}
