//! Flags of the CPU, memory and topology managers, with upstream's names, checks and words.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ::kubelet::{Amount, KubeletConfig};
use anyhow::{Context, Result, bail};
use placement::{CpuSet, PolicyName, Reservation, Scope, TopologyOptions};
use serde_json::Value;

use super::frequency;

#[derive(Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Containers that ask for whole CPUs get them for themselves: none, static.
    #[arg(long, default_value = "none", value_name = "POLICY")]
    cpu_manager_policy: String,
    /// An option of that policy: key=value, as often as needed.
    #[arg(long, value_parser = pair, value_name = "OPTION")]
    cpu_manager_policy_options: Vec<(String, String)>,
    /// How often containers are bound anew to the CPUs that they share.
    #[arg(long, default_value = "10s", value_parser = frequency)]
    cpu_manager_reconcile_period: Duration,
    /// Containers get memory of certain NUMA nodes: None, Static.
    #[arg(long, default_value = "None", value_name = "POLICY")]
    memory_manager_policy: String,
    /// Memory of a NUMA node that is kept for the node itself: 0:memory=1Gi,hugepages-2Mi=2Gi, as often
    /// as needed.
    #[arg(long, value_parser = reservation, value_name = "MEMORY")]
    reserved_memory: Vec<(i64, Vec<(String, u64)>)>,
    /// How near to each other a container's CPUs, memory and devices are: none, best-effort,
    /// restricted, single-numa-node.
    #[arg(long, default_value = "none", value_parser = PolicyName::parse, value_name = "POLICY")]
    topology_manager_policy: PolicyName,
    /// What is to be near: container, pod.
    #[arg(long, default_value = "container", value_parser = Scope::parse)]
    topology_manager_scope: Scope,
    /// Options of that policy: key=value,…
    #[arg(long, value_delimiter = ',', value_parser = pair, value_name = "OPTIONS")]
    topology_manager_policy_options: Vec<(String, String)>,
    /// CPUs that are kept for the node itself, in place of how many the configuration keeps: 0-1,8.
    #[arg(long, value_parser = cpus, value_name = "CPUS")]
    reserved_cpus: Option<CpuSet>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn cpus(text: &str) -> Result<CpuSet, String> {
    CpuSet::parse(text).map_err(|e| {
        format!("invalid configuration: unable to parse reservedSystemCPUs (--reserved-cpus) {text}, error: {e}")
    })
}

fn reservation(text: &str) -> Result<(i64, Vec<(String, u64)>), String> {
    let bad = || format!("{text:?} is not node:memory=1Gi,…");
    let (node, limits) = text.split_once(':').ok_or_else(bad)?;
    let one = |limit: &str| {
        let (name, amount) = limit.split_once('=').ok_or_else(bad)?;
        match Amount::parse(amount) {
            Some(Amount::Bytes(bytes)) => Ok((name.to_owned(), bytes)),
            _ => Err(format!("{name}: {amount} is no quantity")),
        }
    };
    let limits = limits.split(',').map(one).collect::<Result<_, _>>()?;
    Ok((node.parse().map_err(|_| bad())?, limits))
}

fn check_limit(
    node: i64,
    name: &str,
    bytes: u64,
    seen: &mut BTreeSet<(i64, String)>,
) -> Result<()> {
    if name != "memory" && !name.starts_with("hugepages-") {
        bail!(
            "invalid configuration: the limit type {name:?} for NUMA node {node} is not supported, only [memory hugepages-<HugePageSize>] is accepted"
        );
    }
    if bytes == 0 {
        bail!(
            "invalid configuration: reserved memory may not be zero for NUMA node {node} and resource {name:?}"
        );
    }
    if !seen.insert((node, name.to_owned())) {
        bail!(
            "invalid configuration: the reserved memory has a duplicate value for NUMA node {node} and resource {name:?}"
        );
    }
    Ok(())
}

impl Args {
    fn reserved_memory(&self) -> Result<Vec<Reservation>> {
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for (node, limits) in &self.reserved_memory {
            for (name, bytes) in limits {
                check_limit(*node, name, *bytes, &mut seen)?;
            }
            let numa_node = usize::try_from(*node);
            let numa_node = numa_node.with_context(|| format!("NUMA node {node}"))?;
            all.push(Reservation { numa_node, limits: limits.iter().cloned().collect() });
        }
        Ok(all)
    }

    /// After what the configuration reserves is known.
    pub(super) fn apply(&self, config: &mut KubeletConfig, has_cgroups: bool) -> Result<()> {
        let options =
            |list: &[(String, String)]| -> BTreeMap<_, _> { list.iter().cloned().collect() };
        let topology = options(&self.topology_manager_policy_options);
        config.placement.reconcile = self.cpu_manager_reconcile_period;
        let settings = &mut config.placement.settings;
        settings.cpu_policy.clone_from(&self.cpu_manager_policy);
        settings.cpu_options = options(&self.cpu_manager_policy_options);
        settings.memory_policy.clone_from(&self.memory_manager_policy);
        settings.reserved_memory = self.reserved_memory()?;
        settings.topology_policy = self.topology_manager_policy;
        settings.topology_scope = self.topology_manager_scope;
        settings.topology_options =
            TopologyOptions::parse(&topology).map_err(anyhow::Error::msg)?;
        if let Some(cpus) = self.reserved_cpus.clone().filter(|cpus| !cpus.is_empty()) {
            if has_cgroups {
                bail!(
                    "invalid configuration: can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)"
                );
            }
            config.reserved_cpu_millis = 1000 * u64::try_from(cpus.len())?;
            settings.reserved_cpus = cpus;
        }
        Ok(())
    }
}

/// One flag for each option.
pub(super) fn options(flag: &'static str, value: &Value) -> Result<Vec<(&'static str, String)>> {
    let map = value.as_object().context("expected values by option")?;
    let one = |(name, value): (&String, &Value)| {
        let value = value.as_str().with_context(|| format!("{name}: expected text"))?;
        Ok((flag, format!("{name}={value}")))
    };
    map.iter().map(one).collect()
}

/// One flag for each NUMA node.
pub(super) fn reservations(value: &Value) -> Result<Vec<(&'static str, String)>> {
    let list = value.as_array().context("expected a list")?;
    let one = |entry: &Value| {
        let node = entry["numaNode"].as_i64().context("numaNode: expected a number")?;
        let limits = entry["limits"].as_object().context("limits: expected resources")?;
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let limits: Vec<_> = limits.iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
        Ok(("reserved-memory", format!("{node}:{}", limits.join(","))))
    };
    list.iter().map(one).collect()
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
        config.reserved_cpu_millis = 250;
        Line::try_parse_from(words)?.args.apply(&mut config, false)?;
        Ok(config)
    }

    #[test]
    fn flags_are_the_managers_settings() {
        let none = applied(&[]).unwrap();
        assert!(!none.placement.settings.is_any_on());
        assert_eq!(none.placement.reconcile, Duration::from_secs(10));
        let words = [
            "--cpu-manager-policy=static",
            "--cpu-manager-policy-options=full-pcpus-only=true",
            "--cpu-manager-policy-options=strict-cpu-reservation=true",
            "--cpu-manager-reconcile-period=5s",
            "--memory-manager-policy=Static",
            "--reserved-memory=0:memory=1Gi,hugepages-2Mi=4Mi",
            "--reserved-memory=1:memory=2Gi",
            "--topology-manager-policy=restricted",
            "--topology-manager-scope=pod",
            "--topology-manager-policy-options=prefer-closest-numa-nodes=true,max-allowable-numa-nodes=9",
            "--reserved-cpus=0-1,8",
        ];
        let config = applied(&words).unwrap();
        let settings = &config.placement.settings;
        assert!(settings.has_static_cpus() && settings.has_static_memory());
        assert_eq!(settings.cpu_options.len(), 2);
        assert_eq!(settings.reserved_memory[0].limits["hugepages-2Mi"], 4 << 20);
        assert_eq!(
            (settings.topology_policy, settings.topology_scope),
            (PolicyName::Restricted, Scope::Pod)
        );
        assert_eq!(config.reserved_cpu_millis, 3000, "named ones take the place of counted ones");
        assert_eq!(config.placement.reconcile, Duration::from_secs(5));
    }

    #[test]
    fn settings_that_upstream_refuses_are_refused() {
        let refused = [
            (
                "--topology-manager-policy=near",
                "invalid configuration: topologyManagerPolicy (--topology-manager-policy) \"near\" must be one of:",
            ),
            (
                "--topology-manager-scope=node",
                "invalid configuration: topologyManagerScope (--topology-manager-scope) \"node\" must be one of:",
            ),
            (
                "--topology-manager-policy-options=x=y",
                "unknown Topology Manager Policy option: \"x\"",
            ),
            (
                "--reserved-cpus=1-0",
                "invalid configuration: unable to parse reservedSystemCPUs (--reserved-cpus) 1-0, error: invalid range \"1-0\" (1 > 0)",
            ),
            (
                "--reserved-memory=0:cpu=1",
                "invalid configuration: the limit type \"cpu\" for NUMA node 0 is not supported, only [memory hugepages-<HugePageSize>] is accepted",
            ),
            (
                "--reserved-memory=0:memory=0",
                "invalid configuration: reserved memory may not be zero for NUMA node 0 and resource \"memory\"",
            ),
            (
                "--reserved-memory=0:memory=1,memory=2",
                "invalid configuration: the reserved memory has a duplicate value for NUMA node 0 and resource \"memory\"",
            ),
            ("--reserved-memory=-1:memory=1", "NUMA node -1"),
            ("--reserved-memory=memory", "is not node:memory=1Gi"),
            ("--cpu-manager-policy-options=x", "expected key=value"),
            ("--cpu-manager-reconcile-period=0s", "must be greater than 0s"),
        ];
        let line = Line::try_parse_from(["--reserved-cpus=0"]).unwrap();
        let both = line.args.apply(&mut KubeletConfig::new("n"), true).unwrap_err();
        assert!(both.to_string().contains("can't use reservedSystemCPUs"), "{both}");
        for (word, why) in refused {
            let said = format!("{:#}", applied(&[word]).unwrap_err());
            assert!(said.contains(why), "{word}: {said}");
        }
    }
}
