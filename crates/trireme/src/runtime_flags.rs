//! Flags of the embedded runtime, which `up`, `server`, `kubelet` and `cri` have in common: where registries'
//! configurations are (`image build` has these, too), and which OCI runtimes there are.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use registries::Registries;
use runtime::Config;

/// Looked at without being asked for, if they are there.
const DIR: &str = "/etc/trireme/certs.d";
const FILE: &str = "/etc/trireme/registries.yaml";

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct RegistryFlags {
    /// Folders with `<registry>/hosts.toml`, as containerd has them. [default: /etc/trireme/certs.d]
    #[arg(long, value_name = "DIRS", value_delimiter = ':')]
    registry_config_path: Vec<PathBuf>,
    /// Mirrors, logins and TLS of registries, as k3s has them. [default: /etc/trireme/registries.yaml]
    #[arg(long, value_name = "FILE")]
    private_registry: Option<PathBuf>,
}

impl RegistryFlags {
    /// The configurations, each read once: a mistake is told now and not at a pull.
    pub(crate) fn read(&self) -> Result<Registries> {
        let given = self.registry_config_path.iter().map(|dir| ("--registry-config-path", dir));
        let given = given.chain(self.private_registry.iter().map(|f| ("--private-registry", f)));
        for (flag, path) in given {
            if !path.is_absolute() {
                bail!("{flag} {}: use an absolute path", path.display());
            }
            if !path.exists() {
                bail!("{flag} {}: there is nothing there", path.display());
            }
        }
        let registries = Registries {
            dirs: match self.registry_config_path.as_slice() {
                [] => vec![PathBuf::from(DIR)],
                given => given.to_vec(),
            },
            file: Some(self.private_registry.clone().unwrap_or_else(|| FILE.into())),
        };
        registries.check()?;
        Ok(registries)
    }

    /// The flags again, for a process that is started in this one's place.
    pub(crate) fn again(&self) -> Vec<String> {
        let dirs: Vec<String> =
            self.registry_config_path.iter().map(|dir| dir.display().to_string()).collect();
        let dirs = (!dirs.is_empty()).then(|| format!("--registry-config-path={}", dirs.join(":")));
        let file = self.private_registry.as_ref();
        let file = file.map(|file| format!("--private-registry={}", file.display()));
        dirs.into_iter().chain(file).collect()
    }
}

/// Where programs are looked for that are named without a path.
const PROGRAMS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Handlers of the embedded runtime.
const OWN: &str = "trireme";

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct RuntimeFlags {
    #[command(flatten)]
    registries: RegistryFlags,
    /// An OCI runtime for RuntimeClasses with this handler: `runc`, or `NAME=/path/of/program`.
    #[arg(long = "runtime-handler", value_name = "NAME[=PATH]")]
    handlers: Vec<String>,
}

/// What the flags say, looked up.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeSettings {
    registries: Registries,
    handlers: BTreeMap<String, PathBuf>,
}

impl RuntimeSettings {
    pub(crate) fn apply(&self, config: &mut Config) {
        config.registries = self.registries.clone();
        config.handlers.clone_from(&self.handlers);
    }
}

impl RuntimeFlags {
    pub(crate) fn read(&self) -> Result<RuntimeSettings> {
        let mut handlers = BTreeMap::new();
        for text in &self.handlers {
            let (name, program) =
                handler(text).with_context(|| format!("--runtime-handler {text}"))?;
            if handlers.insert(name, program).is_some() {
                bail!("--runtime-handler {text}: the handler is there twice");
            }
        }
        Ok(RuntimeSettings { registries: self.registries.read()?, handlers })
    }

    /// The flags again, for a process that is started in this one's place.
    pub(crate) fn again(&self) -> Vec<String> {
        let handlers = self.handlers.iter().map(|text| format!("--runtime-handler={text}"));
        handlers.chain(self.registries.again()).collect()
    }
}

/// A handler's name (a DNS label, as RuntimeClasses have it) and its program.
fn handler(text: &str) -> Result<(String, PathBuf)> {
    let (name, program) = text.split_once('=').unwrap_or((text, text));
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_label = (1..=63).contains(&name.len()) && name.bytes().all(plain);
    if !is_label || name.starts_with('-') || name.ends_with('-') {
        bail!("{name:?} is no DNS label");
    }
    if name == OWN {
        bail!("{OWN} is the embedded runtime's own handler");
    }
    if program.contains('/') && !program.starts_with('/') {
        bail!("{program}: use an absolute path");
    }
    let path = match program.starts_with('/') {
        true => Some(PathBuf::from(program)),
        false => PROGRAMS.iter().map(|dir| Path::new(dir).join(program)).find(|path| path.exists()),
    };
    let path = path.with_context(|| format!("{program} is in none of {}", PROGRAMS.join(", ")))?;
    let found = std::fs::metadata(&path).with_context(|| path.display().to_string())?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        bail!("{} is no program", path.display());
    }
    Ok((name.to_owned(), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_programs_with_a_label() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plain"), "").unwrap();
        let plain = dir.path().join("plain").display().to_string();
        for (text, why) in [
            ("", "\"\" is no DNS label"),
            ("Runc", "\"Runc\" is no DNS label"),
            ("-a=/bin/sh", "\"-a\" is no DNS label"),
            ("trireme=/bin/sh", "trireme is the embedded runtime's own handler"),
            ("a=bin/sh", "bin/sh: use an absolute path"),
            ("no-such-runtime", "no-such-runtime is in none of /usr/local/sbin, "),
            ("a=/none", "/none: No such file or directory"),
            ("a=/etc", "/etc is no program"),
            (&format!("a={plain}"), &format!("{plain} is no program")),
        ] {
            let flags = RuntimeFlags { handlers: vec![text.to_owned()], ..RuntimeFlags::default() };
            let said = format!("{:#}", flags.read().unwrap_err());
            assert!(said.starts_with(&format!("--runtime-handler {text}: {why}")), "{said}");
        }
        let given = vec!["sh".to_owned(), "other=/bin/sh".to_owned()];
        let flags = RuntimeFlags { handlers: given, ..RuntimeFlags::default() };
        let names: Vec<String> = flags.read().unwrap().handlers.into_keys().collect();
        assert_eq!(names, ["other", "sh"]);
        assert_eq!(flags.again(), ["--runtime-handler=sh", "--runtime-handler=other=/bin/sh"]);
        let twice = RuntimeFlags { handlers: vec!["sh".into(), "sh".into()], ..flags };
        assert!(twice.read().unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn what_is_named_must_be_there_and_right() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.yaml");
        let flags = |dirs: Vec<PathBuf>, file: Option<PathBuf>| RegistryFlags {
            registry_config_path: dirs,
            private_registry: file,
        };
        let why = |flags: &RegistryFlags| flags.read().unwrap_err().to_string();
        assert!(why(&flags(vec!["x".into()], None)).contains("use an absolute path"));
        assert!(why(&flags(vec![], Some(file.clone()))).contains("there is nothing there"));
        std::fs::write(&file, "mirrors: 1").unwrap();
        let wrong = why(&flags(vec![], Some(file.clone())));
        assert!(wrong.ends_with("r.yaml: mirrors: a table is expected, not a string"), "{wrong}");
        std::fs::write(&file, "").unwrap();
        let right = flags(vec![dir.path().into(), "/etc".into()], Some(file.clone()));
        assert_eq!(right.read().unwrap().dirs.len(), 2);
        let again = right.again();
        assert_eq!(again[0], format!("--registry-config-path={}:/etc", dir.path().display()));
        assert_eq!(again[1], format!("--private-registry={}", file.display()));
        assert!(flags(vec![], None).again().is_empty());
    }
}
