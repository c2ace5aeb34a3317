//! The claims' part in containers: CDI devices, and their health in the pod's status.

use std::collections::BTreeSet;

use devices::ClaimName;
use k8s_openapi::api::core::v1::{
    Container, Pod, PodStatus, ResourceClaim as ContainerClaim, ResourceHealth, ResourceStatus,
};

use super::claims::{ClaimInfo, Device, Key};
use super::wire::Health;
use super::{Dra, extended, lock, named};
use crate::spec::{namespace_of, spec_of};

fn claims_of(container: &Container) -> &[ContainerClaim] {
    let claims = container.resources.as_ref().and_then(|r| r.claims.as_deref());
    claims.unwrap_or_default()
}

/// Names of requests without those of their alternatives.
fn base(request: &str) -> &str {
    request.split('/').next().unwrap_or(request)
}

/// The names of a container's claims, each with the requests of it that are the container's.
fn requests(pod: &Pod, container: &Container) -> Result<Vec<(String, Vec<String>)>, String> {
    let spec = spec_of(pod);
    let mut found = Vec::new();
    for entry in spec.resource_claims.iter().flatten() {
        let own = claims_of(container).iter().filter(|claim| claim.name == entry.name);
        let own: Vec<_> = own.map(|claim| claim.request.clone().unwrap_or_default()).collect();
        if own.is_empty() {
            continue;
        }
        if let ClaimName::Given(name) | ClaimName::Generated(name) = named(pod, entry)? {
            found.push((name.to_owned(), own));
        }
    }
    found.extend(extended_requests(pod, container));
    Ok(found)
}

fn extended_requests(pod: &Pod, container: &Container) -> Option<(String, Vec<String>)> {
    let status = pod.status.as_ref()?.extended_resource_claim_status.as_ref()?;
    let asks = |name: &str| {
        let list = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        list.is_some_and(|list| list.get(name).is_some_and(|q| q.0 != "0"))
    };
    let own = status.request_mappings.iter();
    let own = own.filter(|m| m.container_name == container.name && asks(&m.resource_name));
    let own: Vec<_> = own.map(|m| m.request_name.clone()).collect();
    Some((status.resource_claim_name.clone(), own)).filter(|(_, own)| !own.is_empty())
}

impl Dra {
    /// Names of the CDI devices that the container gets.
    pub(crate) fn cdi(&self, pod: &Pod, container: &Container) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        for (claim, requests) in requests(pod, container)? {
            let claims = lock(&self.claims);
            let key = (namespace_of(pod).to_owned(), claim);
            let info = claims.get(&key).ok_or_else(|| {
                format!(
                    "internal error: unable to get claim info for ResourceClaim {} in namespace {}",
                    key.1, key.0
                )
            })?;
            for request in &requests {
                let own = info.devices().filter(|(_, device)| device.is_for(request));
                names.extend(own.flat_map(|(_, device)| device.cdi().iter().cloned()));
            }
        }
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        Ok(names)
    }

    /// The claims that the container uses.
    pub(crate) fn of_container(&self, pod: &Pod, container: &Container) -> Vec<ClaimInfo> {
        let spec = spec_of(pod);
        let used = |name: &str| claims_of(container).iter().any(|claim| claim.name == name);
        let entries = spec.resource_claims.iter().flatten().filter(|entry| used(&entry.name));
        let named = entries.filter_map(|entry| named(pod, entry).ok()?.name().map(str::to_owned));
        let mut names: Vec<String> = named.collect();
        let status = pod.status.as_ref().and_then(|s| s.extended_resource_claim_status.as_ref());
        let mut mapped = status.into_iter().flat_map(|s| &s.request_mappings);
        if mapped.any(|m| m.container_name == container.name) {
            names.extend(extended(pod).map(str::to_owned));
        }
        let claims = lock(&self.claims);
        let key = |name: String| (namespace_of(pod).to_owned(), name);
        names.into_iter().filter_map(|name| claims.get(&key(name)).cloned()).collect()
    }

    /// Shows the health of the devices that containers have by claims.
    pub(crate) fn show(&self, pod: &Pod, status: &mut PodStatus) {
        let spec = spec_of(pod);
        for container in status.container_statuses.iter_mut().flatten() {
            let own = spec.containers.iter().find(|c| c.name == container.name);
            for claim in own.into_iter().flat_map(claims_of) {
                let Some(shown) = self.resource_status(pod, claim) else { continue };
                let all = container.allocated_resources_status.get_or_insert_default();
                match all.iter_mut().find(|old| old.name == shown.name) {
                    Some(old) => *old = shown,
                    None => all.push(shown),
                }
            }
        }
    }

    fn resource_status(&self, pod: &Pod, claim: &ContainerClaim) -> Option<ResourceStatus> {
        let spec = spec_of(pod);
        let mut entries = spec.resource_claims.iter().flatten();
        let entry = entries.find(|entry| entry.name == claim.name)?;
        let name = named(pod, entry).ok()?.name()?.to_owned();
        let key: Key = (namespace_of(pod).to_owned(), name);
        let claims = lock(&self.claims);
        let info = claims.get(&key)?;
        let request = claim.request.as_deref().unwrap_or("");
        let mut seen = BTreeSet::new();
        let own = info.devices().filter(|(_, device)| device.is_for(base(request)));
        let resources: Vec<_> = own
            .map(|(driver, device)| self.resource_health(driver, device))
            .filter(|health| seen.insert(health.resource_id.clone()))
            .collect();
        let name = match request {
            "" => format!("claim:{}", claim.name),
            request => format!("claim:{}/{request}", claim.name),
        };
        Some(ResourceStatus { name, resources: Some(resources) })
            .filter(|shown| shown.resources.as_ref().is_some_and(|list| !list.is_empty()))
    }

    fn resource_health(&self, driver: &str, device: &Device) -> ResourceHealth {
        let table = lock(&self.health);
        let (health, message) = table.get(driver, &device.pool_name, &device.device_name);
        let health = match health {
            Health::Healthy => "Healthy",
            Health::Unhealthy => "Unhealthy",
            Health::Unknown => "Unknown",
        };
        let own = || format!("{driver}/{}/{}", device.pool_name, device.device_name);
        ResourceHealth {
            resource_id: device.cdi().first().cloned().unwrap_or_else(own),
            health: Some(health.to_owned()),
            message: Some(message.to_owned()).filter(|m| !m.is_empty()),
        }
    }
}
