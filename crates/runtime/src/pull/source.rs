//! A repository at all hosts that its registry's configuration names: mirrors first, then the registry.
//!
//! A host that fails is asked last from then on, for as long as one pull takes. Credentials of a request
//! are the registry's own: a mirror gets what its configuration says, or those that name it.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use registries::{Can, Endpoint, Login};

use super::Cause;
use super::registry::{Found, Registry};
use crate::config::Config;
use crate::cri::AuthConfig;
use crate::image::Reference;

pub(super) struct Source {
    hosts: Vec<Host>,
    is_exact: bool,
}

pub(super) struct Host {
    pub(super) registry: Registry,
    can: Can,
    has_failed: AtomicBool,
}

impl Host {
    /// What was asked of it did not come.
    pub(super) fn fail(&self, error: &Cause) {
        tracing::debug!(host = self.registry.place(), error, "registry failed");
        self.has_failed.store(true, Ordering::Relaxed);
    }
}

impl Source {
    pub(super) fn new(
        reference: &Reference,
        config: &Config,
        auth: &AuthConfig,
    ) -> Result<Source, Cause> {
        let wanted = reference.digest.clone().or(reference.tag.clone()).unwrap_or_default();
        let mut hosts = Vec::new();
        for endpoint in config.registries.endpoints(&reference.host)? {
            let login = login(&endpoint, reference, auth);
            let limits = config.pull_limits;
            let registry = Registry::new(&endpoint, &reference.path, &wanted, limits, login)?;
            hosts.push(Host { registry, can: endpoint.can, has_failed: AtomicBool::new(false) });
        }
        Ok(Source { hosts, is_exact: reference.digest.is_some() })
    }

    /// The hosts that content is asked of by its digest.
    pub(super) fn pulling(&self) -> Vec<&Host> {
        self.in_order(|can| can.pull)
    }

    /// The one that is pushed to: the first that takes pushes.
    pub(super) fn pushing(self) -> Result<Registry, Cause> {
        let mut hosts = self.hosts.into_iter().filter(|host| host.can.push);
        let host = hosts.next().ok_or("no host of this registry is configured for pushes")?;
        Ok(host.registry.writing())
    }

    /// The manifest for this machine, from a host that may say what a tag stands for.
    pub(super) async fn manifest(&self) -> Result<Found, Cause> {
        let is_exact = self.is_exact;
        let mut failures = Failures::default();
        for host in self.in_order(|can| can.pull && (is_exact || can.resolve)) {
            match host.registry.manifest().await {
                Ok(found) => return Ok(found),
                Err(error) => failures.add(host, error),
            }
        }
        Err(failures.into_cause())
    }

    pub(super) async fn document(&self, digest: &str) -> Result<Bytes, Cause> {
        let mut failures = Failures::default();
        for host in self.pulling() {
            match host.registry.document(digest).await {
                Ok(found) => return Ok(found),
                Err(error) => failures.add(host, error),
            }
        }
        Err(failures.into_cause())
    }

    fn in_order(&self, wanted: impl Fn(Can) -> bool) -> Vec<&Host> {
        let mut hosts: Vec<&Host> = self.hosts.iter().filter(|host| wanted(host.can)).collect();
        hosts.sort_by_key(|host| host.has_failed.load(Ordering::Relaxed));
        hosts
    }
}

/// What each host has said.
#[derive(Default)]
pub(super) struct Failures(Vec<(String, Cause)>);

impl Failures {
    pub(super) fn add(&mut self, host: &Host, error: Cause) {
        host.fail(&error);
        self.0.push((host.registry.place(), error));
    }

    /// The only error, or all of them with their hosts.
    pub(super) fn into_cause(mut self) -> Cause {
        if self.0.len() == 1 {
            return self.0.remove(0).1;
        }
        let each = self.0.iter().map(|(place, error)| format!("{place}: {}", chain(&**error)));
        let text = each.collect::<Vec<_>>().join("; ");
        match text.is_empty() {
            true => "no host of this registry is configured for pulls".into(),
            false => text.into(),
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// As whom a host is asked.
fn login(endpoint: &Endpoint, reference: &Reference, auth: &AuthConfig) -> AuthConfig {
    let address = auth.server_address.as_str();
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    let named = address.split('/').next().unwrap_or_default();
    let is_own = endpoint.mirror_of.is_none();
    let own = [reference.host.as_str(), endpoint.host.as_str()];
    let hub = reference.host == "docker.io" && named == "index.docker.io";
    let fits = match is_own {
        true => named.is_empty() || own.contains(&named) || hub,
        false => named == endpoint.host,
    };
    let is_given = [&auth.username, &auth.auth, &auth.identity_token, &auth.registry_token]
        .iter()
        .any(|text| !text.is_empty());
    match &endpoint.login {
        _ if fits && is_given => auth.clone(),
        Some(login) => configured(login),
        None => AuthConfig::default(),
    }
}

fn configured(login: &Login) -> AuthConfig {
    AuthConfig {
        username: login.username.clone(),
        password: login.password.clone(),
        auth: login.auth.clone(),
        identity_token: login.identity_token.clone(),
        ..AuthConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(registry: &str, host: &str) -> Endpoint {
        let mut found = registries::Registries::default().endpoints(registry).unwrap();
        let mut endpoint = found.remove(0);
        if registry != host {
            endpoint.mirror_of = Some(registry.to_owned());
            endpoint.host = host.to_owned();
        }
        endpoint
    }

    #[test]
    fn a_mirror_gets_only_credentials_of_its_own() {
        let reference = Reference::parse("r.example/app:1").unwrap();
        let given = |address: &str| AuthConfig {
            username: "given".into(),
            server_address: address.into(),
            ..AuthConfig::default()
        };
        let who = |endpoint: &Endpoint, address: &str| {
            login(endpoint, &reference, &given(address)).username
        };
        let own = endpoint("r.example", "r.example");
        let mut mirror = endpoint("r.example", "m.example:5000");
        assert_eq!(who(&own, ""), "given");
        assert_eq!(who(&own, "https://r.example/v1/"), "given");
        assert_eq!(who(&own, "https://other.example"), "");
        assert_eq!(who(&mirror, ""), "");
        assert_eq!(who(&mirror, "r.example"), "");
        assert_eq!(who(&mirror, "https://m.example:5000"), "given");
        mirror.login = Some(Login { username: "configured".into(), ..Login::default() });
        assert_eq!(who(&mirror, ""), "configured");
        let hub = Reference::parse("busybox").unwrap();
        let name =
            login(&endpoint("docker.io", "docker.io"), &hub, &given("https://index.docker.io/v1/"));
        assert_eq!(name.username, "given");
    }
}
