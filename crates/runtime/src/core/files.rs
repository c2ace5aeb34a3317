//! The files a sandbox gives to its containers: `/etc/resolv.conf` from the sandbox's DNS
//! configuration and `/etc/hostname`. By the CRI they are the runtime's duty; `/etc/hosts` is the
//! kubelet's, which mounts it. Containers may change them, within the bounds of a small file system.

use std::fmt::Write as _;
use std::fs;

use crate::cri::{ContainerConfig, DNSConfig, Mount};
use crate::error::{IoContext as _, Result};

use super::records::SandboxRecord;
use super::sandbox::namespaces;
use super::{Inner, pins, users};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTNAME: &str = "/etc/hostname";

/// The text of a resolv.conf.
fn resolv_conf(dns: &DNSConfig) -> String {
    let mut text = String::new();
    for server in &dns.servers {
        writeln!(text, "nameserver {server}").expect("writing to a String");
    }
    if !dns.searches.is_empty() {
        writeln!(text, "search {}", dns.searches.join(" ")).expect("writing to a String");
    }
    if !dns.options.is_empty() {
        writeln!(text, "options {}", dns.options.join(" ")).expect("writing to a String");
    }
    text
}

impl Inner {
    /// The container's configuration with the mounts of the sandbox's files, unless the caller
    /// mounts something there itself.
    pub(super) fn with_sandbox_files(
        &self,
        config: &ContainerConfig,
        sandbox: &SandboxRecord,
    ) -> Result<ContainerConfig> {
        let mut config = config.clone();
        let users = users::wanted(&namespaces(&sandbox.config()))?.unwrap_or_default();
        let mut files = vec![(HOSTNAME, "hostname", format!("{}\n", sandbox.hostname))];
        if let Some(dns) = &sandbox.config().dns_config {
            files.push((RESOLV_CONF, "resolv.conf", resolv_conf(dns)));
        }
        let place = pins::make_files(&self.pin_dir(&sandbox.id))?;
        for (target, name, text) in files {
            if config.mounts.iter().any(|m| m.container_path == target) {
                continue;
            }
            let path = place.join(name);
            if !path.exists() {
                fs::write(&path, text).at("write", &path)?;
            }
            config.mounts.push(Mount {
                container_path: target.to_owned(),
                host_path: path.to_string_lossy().into_owned(),
                uid_mappings: users.uids.clone(),
                gid_mappings: users.gids.clone(),
                ..Mount::default()
            });
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_has_servers_searches_and_options() {
        let dns = DNSConfig {
            servers: vec!["10.43.0.10".into()],
            searches: vec!["a.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(
            resolv_conf(&dns),
            "nameserver 10.43.0.10\nsearch a.svc.cluster.local svc.cluster.local\noptions ndots:5\n"
        );
    }
}
