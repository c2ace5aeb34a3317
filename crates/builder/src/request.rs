//! One build: what is asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dockerfile::Network;
use dockerfile::ignore::Patterns;

#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The Dockerfile's name, for errors.
    pub file_name: String,
    pub file: Vec<u8>,
    /// The build context.
    pub context: PathBuf,
    /// What of the context is left out.
    pub ignore: Patterns,
    pub build_args: BTreeMap<String, String>,
    /// A stage by name or number; the last one when there is none.
    pub target: Option<String>,
    /// Names of the image.
    pub names: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// By id.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Sockets of SSH agents by id.
    pub ssh: BTreeMap<String, PathBuf>,
    pub no_cache: bool,
    /// Base images are fetched even when they are here.
    pub pull: bool,
    /// The network of RUN steps that ask for none themselves.
    pub network: Network,
    /// `SOURCE_DATE_EPOCH`: no time in the image is later.
    pub epoch: Option<i64>,
    /// `RUN --security=insecure` may be used.
    pub allow_insecure: bool,
    /// `os/architecture`; empty: the machine's.
    pub platform: String,
}
