//! What the node keeps for itself, and which of it cgroups enforce: upstream's flags, checks and words.

use std::collections::BTreeMap;

use ::kubelet::{Amount, KubeletConfig, ReservedCgroup};
use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::settings::millis;

const PODS: &str = "pods";
const SYSTEM: [&str; 2] = ["system-reserved", "system-reserved-compressible"];
const KUBE: [&str; 2] = ["kube-reserved", "kube-reserved-compressible"];
const NONE: &str = "none";
const FIELD: &str = "enforceNodeAllocatable (--enforce-node-allocatable)";

#[derive(Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Kept for the system's daemons: cpu=500m,memory=1Gi,ephemeral-storage=1Gi,pid=1000.
    #[arg(long, value_delimiter = ',', value_parser = pair, value_name = "RESOURCES")]
    system_reserved: Vec<(String, String)>,
    /// Kept for Kubernetes' own daemons, in the same form.
    #[arg(long, value_delimiter = ',', value_parser = pair, value_name = "RESOURCES")]
    kube_reserved: Vec<(String, String)>,
    /// The cgroup of the system's daemons.
    #[arg(long, value_name = "PATH", default_value = "")]
    system_reserved_cgroup: String,
    /// The cgroup of Kubernetes' own daemons.
    #[arg(long, value_name = "PATH", default_value = "")]
    kube_reserved_cgroup: String,
    /// What cgroups enforce: pods, system-reserved, kube-reserved (with -compressible: only CPU), none.
    #[arg(long, value_delimiter = ',', default_value = PODS, value_name = "WHAT")]
    enforce_node_allocatable: Vec<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected resource=quantity")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Amounts by resource: thousandths of CPUs, else whole units.
fn amounts(flag: &str, list: &[(String, String)]) -> Result<BTreeMap<String, u64>> {
    let one = |(name, text): &(String, String)| {
        let amount = match name.as_str() {
            "cpu" => millis(text),
            "memory" | "ephemeral-storage" => match Amount::parse(text) {
                Some(Amount::Bytes(bytes)) => Some(bytes),
                _ => None,
            },
            "pid" => text.parse().ok(),
            _ => bail!("{flag} value failed to parse: cannot reserve {name:?} resource"),
        };
        let bad = || format!("{flag} value failed to parse: {name}: {text} is no quantity");
        Ok((name.clone(), amount.with_context(bad)?))
    };
    list.iter().map(one).collect()
}

impl Args {
    fn check(&self) -> Result<()> {
        let words: Vec<&str> = self.enforce_node_allocatable.iter().map(String::as_str).collect();
        for [whole, part] in [SYSTEM, KUBE] {
            if words.contains(&whole) && words.contains(&part) {
                bail!(
                    "invalid configuration: both {part:?} and {whole:?} cannot be specified together in {FIELD}"
                );
            }
        }
        for (at, word) in words.iter().enumerate() {
            if words[..at].contains(word) {
                bail!("invalid configuration: duplicated enforcements {word:?} in {FIELD}");
            }
            self.check_word(word)?;
        }
        match words.contains(&NONE) && words.len() > 1 {
            true => bail!(
                "invalid configuration: {FIELD} may not contain additional enforcements when {NONE:?} is specified"
            ),
            false => Ok(()),
        }
    }

    fn check_word(&self, word: &str) -> Result<()> {
        let named = |path: &str, field: &str, [whole, part]: [&str; 2]| match path {
            "" => bail!(
                "invalid configuration: {field} must be specified when {whole:?} or {part:?} included in {FIELD}"
            ),
            _ => Ok(()),
        };
        match word {
            PODS | NONE => Ok(()),
            word if SYSTEM.contains(&word) => {
                let field = "systemReservedCgroup (--system-reserved-cgroup)";
                named(&self.system_reserved_cgroup, field, SYSTEM)
            }
            word if KUBE.contains(&word) => {
                let field = "kubeReservedCgroup (--kube-reserved-cgroup)";
                named(&self.kube_reserved_cgroup, field, KUBE)
            }
            _ => bail!(
                "invalid configuration: option {word:?} specified for {FIELD}. Valid options are {PODS:?}, {:?}, {:?}, {:?}, {:?} or {NONE:?}",
                SYSTEM[0],
                SYSTEM[1],
                KUBE[0],
                KUBE[1]
            ),
        }
    }

    /// Whether cgroups of the node's own daemons are named: CPUs cannot be named then.
    pub(super) fn has_cgroups(&self) -> bool {
        !self.system_reserved_cgroup.is_empty() || !self.kube_reserved_cgroup.is_empty()
    }

    pub(super) fn apply(&self, config: &mut KubeletConfig) -> Result<()> {
        self.check()?;
        let system = amounts("--system-reserved", &self.system_reserved)?;
        let kube = amounts("--kube-reserved", &self.kube_reserved)?;
        for list in [&system, &kube] {
            let amount = |name: &str| list.get(name).copied().unwrap_or(0);
            config.reserved_cpu_millis += amount("cpu");
            config.reserved_memory_bytes += amount("memory");
            config.reserved_storage_bytes += amount("ephemeral-storage");
            config.cgroups.reserved_pids += amount("pid");
        }
        let has = |word: &str| self.enforce_node_allocatable.iter().any(|w| w == word);
        config.cgroups.enforce_pods = has(PODS);
        for (what, words, path, list) in [
            ("System", SYSTEM, &self.system_reserved_cgroup, &system),
            ("Kube", KUBE, &self.kube_reserved_cgroup, &kube),
        ] {
            if words.iter().any(|word| has(word)) {
                config.cgroups.reserved.push(ReservedCgroup {
                    of: what,
                    path: path.clone(),
                    cpu_millis: list.get("cpu").copied(),
                    memory_bytes: list.get("memory").copied(),
                    pids: list.get("pid").copied(),
                    only_compressible: has(words[1]),
                });
            }
        }
        Ok(())
    }
}

/// The flag that says the same as a list of resources.
pub(super) fn resources(flag: &'static str, value: &Value) -> Result<(&'static str, String)> {
    let map = value.as_object().context("expected resources")?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let words: Vec<_> = map.iter().map(|(name, v)| format!("{name}={}", text(v))).collect();
    Ok((flag, words.join(",")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn applied(words: &[&str]) -> Result<KubeletConfig> {
        let mut config = KubeletConfig::new("n");
        Line::try_parse_from(words)?.args.apply(&mut config)?;
        Ok(config)
    }

    #[test]
    fn what_is_reserved_adds_up_and_is_enforced_where_it_is_asked_for() {
        let plain = applied(&[]).unwrap();
        assert!(plain.cgroups.enforce_pods && plain.cgroups.reserved.is_empty());
        assert!(!applied(&["--enforce-node-allocatable=none"]).unwrap().cgroups.enforce_pods);
        let words = [
            "--system-reserved=cpu=0.5,memory=1Gi,pid=1000",
            "--kube-reserved=cpu=250m,ephemeral-storage=1Gi",
            "--system-reserved-cgroup=/system",
            "--kube-reserved-cgroup=/kube",
            "--enforce-node-allocatable=system-reserved,kube-reserved-compressible",
        ];
        let config = applied(&words).unwrap();
        assert_eq!(config.reserved_cpu_millis, 750);
        assert_eq!(
            (config.reserved_memory_bytes, config.reserved_storage_bytes),
            (1 << 30, 1 << 30)
        );
        assert_eq!((config.cgroups.enforce_pods, config.cgroups.reserved_pids), (false, 1000));
        let of = |group: &ReservedCgroup| (group.of, group.cpu_millis, group.only_compressible);
        let groups: Vec<_> = config.cgroups.reserved.iter().map(of).collect();
        assert_eq!(groups, [("System", Some(500), false), ("Kube", Some(250), true)]);
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        let end = "enforceNodeAllocatable (--enforce-node-allocatable)";
        let refused: [(&[&str], String); 8] = [
            (
                &["--enforce-node-allocatable=all"],
                format!(
                    "invalid configuration: option \"all\" specified for {end}. Valid options are \"pods\", \"system-reserved\", \"system-reserved-compressible\", \"kube-reserved\", \"kube-reserved-compressible\" or \"none\""
                ),
            ),
            (
                &["--enforce-node-allocatable=pods,pods"],
                format!("invalid configuration: duplicated enforcements \"pods\" in {end}"),
            ),
            (
                &["--enforce-node-allocatable=pods,none"],
                format!(
                    "invalid configuration: {end} may not contain additional enforcements when \"none\" is specified"
                ),
            ),
            (
                &["--enforce-node-allocatable=system-reserved"],
                format!(
                    "invalid configuration: systemReservedCgroup (--system-reserved-cgroup) must be specified when \"system-reserved\" or \"system-reserved-compressible\" included in {end}"
                ),
            ),
            (
                &["--enforce-node-allocatable=kube-reserved"],
                format!(
                    "invalid configuration: kubeReservedCgroup (--kube-reserved-cgroup) must be specified when \"kube-reserved\" or \"kube-reserved-compressible\" included in {end}"
                ),
            ),
            (
                &[
                    "--enforce-node-allocatable=kube-reserved,kube-reserved-compressible",
                    "--kube-reserved-cgroup=/k",
                ],
                format!(
                    "invalid configuration: both \"kube-reserved-compressible\" and \"kube-reserved\" cannot be specified together in {end}"
                ),
            ),
            (
                &["--system-reserved=gpu=1"],
                "--system-reserved value failed to parse: cannot reserve \"gpu\" resource".into(),
            ),
            (
                &["--kube-reserved=memory=much"],
                "--kube-reserved value failed to parse: memory: much is no quantity".into(),
            ),
        ];
        for (words, why) in refused {
            assert_eq!(applied(words).unwrap_err().to_string(), why);
        }
    }
}
