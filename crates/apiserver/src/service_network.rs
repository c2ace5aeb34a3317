//! From a service's name to an address that takes connections.
//!
//! A ready endpoint is taken rather than the cluster IP (upstream with
//! `--enable-aggregator-routing`): it is right wherever this process lives, because the nodes'
//! dialer reaches pods, while a cluster IP is only an address where a proxy made it one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::Object;
use serde_json::Value;
use store::Store;
use tokio::net::TcpStream;
use validation::items;
use webhook::Services;

use crate::dialer::{NodeDialer, is_proxyable};

/// How the cluster's services are found and reached.
#[derive(Clone)]
pub(crate) struct ServiceNetwork {
    pub(crate) store: Store,
    pub(crate) dialer: Arc<dyn NodeDialer>,
}

/// Where a service's connections go.
enum Route {
    Endpoint(SocketAddr),
    /// An `ExternalName`.
    Outside(String, u16),
}

impl ServiceNetwork {
    async fn open(&self, (namespace, name): (&str, &str), port: u16) -> Result<TcpStream, String> {
        match self.route(namespace, name, port)? {
            Route::Endpoint(address) => {
                let dialed = self.dialer.dial(address).await;
                dialed.map_err(|e| format!("dial tcp {address}: {}", webhook::go_error(&e)))
            }
            Route::Outside(host, port) => webhook::dial_host(&host, port).await,
        }
    }

    fn route(&self, namespace: &str, name: &str, port: u16) -> Result<Route, String> {
        let services = self.store.collection("/registry/services/specs/");
        let service = services.and_then(|all| all.get(&format!("{namespace}/{name}")));
        let service = service.ok_or_else(|| format!("service {name:?} not found"))?.to_value();
        let spec = &service["spec"];
        match spec["type"].as_str().unwrap_or("ClusterIP") {
            "ClusterIP" | "NodePort" | "LoadBalancer" => {}
            "ExternalName" => {
                let host = spec["externalName"].as_str().unwrap_or("");
                return Ok(Route::Outside(host.to_owned(), port));
            }
            other => return Err(format!("unsupported service type {other:?}")),
        }
        let named = items(spec, "ports").find(|p| p["port"] == port);
        let named =
            named.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
        let endpoint = self.endpoint((namespace, name), named["name"].as_str().unwrap_or(""));
        endpoint
            .map(Route::Endpoint)
            .ok_or_else(|| format!("no endpoints available for service {name:?}"))
    }

    /// Any ready endpoint of the named port.
    fn endpoint(&self, (namespace, name): (&str, &str), port: &str) -> Option<SocketAddr> {
        let slices = self.store.collection("/registry/endpointslices/")?;
        let of_service = |o: &Object| o.meta().label("kubernetes.io/service-name") == Some(name);
        let page = slices.list(&format!("{namespace}/"), None, 0, usize::MAX, &of_service).ok()?;
        let trees = page.objects.iter().map(|slice| slice.to_value());
        let found: Vec<SocketAddr> = trees.flat_map(|slice| ready(&slice, port)).collect();
        let pick = usize::from(uuid::Uuid::new_v4().as_bytes()[0]);
        found.get(pick % found.len().max(1)).copied()
    }
}

impl Services for ServiceNetwork {
    fn connect<'a>(
        &'a self,
        service: (&'a str, &'a str),
        port: u16,
    ) -> webhook::BoxFuture<'a, Result<TcpStream, String>> {
        Box::pin(self.open(service, port))
    }
}

fn ready(slice: &Value, port: &str) -> Vec<SocketAddr> {
    let port = items(slice, "ports").find(|p| p["name"].as_str().unwrap_or("") == port);
    let number = port.and_then(|p| u16::try_from(p["port"].as_u64()?).ok());
    let Some(number) = number else { return Vec::new() };
    let ready = items(slice, "endpoints").filter(|e| e["conditions"]["ready"] != false);
    let first = ready.filter_map(|e| e["addresses"][0].as_str()?.parse::<IpAddr>().ok());
    // Whoever writes endpoints reaches with them nothing that is this machine's own.
    first.filter(|ip| is_proxyable(*ip)).map(|ip| SocketAddr::new(ip, number)).collect()
}
