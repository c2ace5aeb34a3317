//! The Service `kube-system/kube-dns`: cluster DNS by the name that charts and scripts know.
//!
//! The nodes answer at its address themselves, so it selects no pods.

use std::time::Duration;

use client::{Client, Tasks};
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::dns_address;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
const RETRY: Duration = Duration::from_secs(5);

fn service() -> Result<Service, serde_json::Error> {
    let labels = json!({
        "k8s-app": "kube-dns",
        "kubernetes.io/cluster-service": "true",
        "kubernetes.io/name": "CoreDNS",
    });
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
    ]);
    serde_json::from_value(json!({
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {"clusterIP": dns_address(), "ports": ports},
    }))
}

/// Makes the Service unless there is one: whoever made that knows better.
pub(super) fn make(client: Client, tasks: &Tasks) {
    tasks.spawn("DNS service", async move {
        let service = match service() {
            Ok(service) => service,
            Err(error) => return tracing::error!(%error, "DNS service"),
        };
        while let Err(error) = ensure(&client, &service).await {
            tracing::warn!(%error, "DNS service not made, will try again");
            tokio::time::sleep(RETRY).await;
        }
    });
}

async fn ensure(client: &Client, service: &Service) -> Result<(), client::Error> {
    // To make it again would be refused for its address, which it has already, not for its name.
    match client.get::<Service>(NAMESPACE, NAME).await {
        Err(error) if error.is_not_found() => {}
        other => return other.map(drop),
    }
    match client.create(NAMESPACE, service).await {
        Err(error) if error.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_address_that_pods_are_told() {
        let service = service().unwrap();
        let spec = service.spec.unwrap();
        assert_eq!(spec.cluster_ip, Some(dns_address().to_string()));
        assert_eq!(spec.selector, None);
    }
}
