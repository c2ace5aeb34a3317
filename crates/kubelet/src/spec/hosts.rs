//! Host names and `/etc/hosts`.

use std::fmt::Write;

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use super::{ConfigError, name_of, namespace_of, spec_of};

/// The kernel's limit, without the terminator.
const HOSTNAME_MAX: usize = 63;
const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HEADER_HOST: &str = "# Kubernetes-managed hosts file (host network).\n";

/// Host name, and the domain if the pod has a subdomain.
pub(crate) fn names(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = spec_of(pod);
    if let Some(name) = spec.hostname_override.as_deref().filter(|n| !n.is_empty()) {
        return (name.to_owned(), String::new());
    }
    let own = spec.hostname.as_deref().filter(|h| !h.is_empty());
    let mut host = own.unwrap_or_else(|| name_of(pod)).to_owned();
    host.truncate(HOSTNAME_MAX);
    let host = host.trim_end_matches(['-', '.']).to_owned();
    let domain = match spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
        Some(sub) => format!("{sub}.{}.svc.{cluster_domain}", namespace_of(pod)),
        None => String::new(),
    };
    (host, domain)
}

/// What `hostname` prints inside.
pub(crate) fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, ConfigError> {
    let (host, domain) = names(pod, cluster_domain);
    if !spec_of(pod).set_hostname_as_fqdn.unwrap_or(false) || domain.is_empty() {
        return Ok(host);
    }
    let full = format!("{host}.{domain}");
    if full.len() > HOSTNAME_MAX + 1 {
        let message = format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({} characters is the max, {} characters requested)",
            HOSTNAME_MAX + 1,
            full.len()
        );
        return Err(ConfigError(message));
    }
    Ok(full)
}

/// `/etc/hosts` of a pod with its own network.
pub(crate) fn managed(pod: &Pod, ips: &[String], cluster_domain: &str) -> String {
    let (host, domain) = names(pod, cluster_domain);
    let mut text = String::from(HEADER);
    text += "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";
    for ip in ips {
        let line = match domain.as_str() {
            "" => writeln!(text, "{ip}\t{host}"),
            domain => writeln!(text, "{ip}\t{host}.{domain}\t{host}"),
        };
        line.expect("writing to a String cannot fail");
    }
    text + &aliases(spec_of(pod).host_aliases.as_deref())
}

/// `/etc/hosts` of a pod on the node's network: the node's own, and the aliases.
pub(crate) fn host_network(pod: &Pod, node_hosts: &str) -> String {
    format!("{HEADER_HOST}{node_hosts}{}", aliases(spec_of(pod).host_aliases.as_deref()))
}

fn aliases(list: Option<&[HostAlias]>) -> String {
    let list = list.unwrap_or_default();
    if list.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n# Entries added by HostAliases.\n");
    for alias in list {
        let names = alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>();
        writeln!(text, "{}\t{}", alias.ip, names.join("\t"))
            .expect("writing to a String cannot fail");
    }
    text
}
