//! A pod's resolver settings by its `dnsPolicy` and `dnsConfig`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use runtime::cri::DNSConfig;

use super::{is_host_network, namespace_of, spec_of};

/// What resolvers take at most; more would be ignored by some of them.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;

/// The cluster's side of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cluster<'a> {
    pub(crate) servers: &'a [IpAddr],
    pub(crate) domain: &'a str,
}

/// Reads a `resolv.conf`.
pub(crate) fn parse(text: &str) -> DNSConfig {
    let mut config = DNSConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                let trimmed =
                    |w: &str| if w == "." { w.into() } else { w.trim_end_matches('.').into() };
                config.searches = words.map(trimmed).collect();
            }
            Some("options") => config.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    config
}

/// `host` is the node's own configuration.
pub(crate) fn pod_dns(pod: &Pod, cluster: &Cluster<'_>, host: DNSConfig) -> DNSConfig {
    let spec = spec_of(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let in_cluster = match policy {
        "ClusterFirst" => !is_host_network(pod),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut config = match policy {
        "None" => DNSConfig::default(),
        _ if in_cluster && !cluster.servers.is_empty() => cluster_first(pod, cluster, host),
        _ => host,
    };
    if let Some(own) = &spec.dns_config {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            config.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            config.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name,
            });
        }
    }
    limited(config)
}

fn cluster_first(pod: &Pod, cluster: &Cluster<'_>, host: DNSConfig) -> DNSConfig {
    let domain = cluster.domain;
    let mut searches = Vec::new();
    if !domain.is_empty() {
        let namespace = namespace_of(pod);
        searches =
            vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.into()];
    }
    searches.extend(host.searches);
    DNSConfig {
        servers: cluster.servers.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".into()],
    }
}

fn limited(mut config: DNSConfig) -> DNSConfig {
    let unique = |list: &mut Vec<String>| {
        let mut seen = std::collections::HashSet::new();
        list.retain(|s| seen.insert(s.clone()));
    };
    unique(&mut config.servers);
    unique(&mut config.searches);
    config.servers.truncate(SERVERS_MAX);
    config.searches.truncate(SEARCHES_MAX);
    while config.searches.join(" ").len() > SEARCH_CHARS_MAX {
        config.searches.pop();
    }
    config
}
