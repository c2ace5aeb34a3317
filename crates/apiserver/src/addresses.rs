//! An IPAddress object for every cluster IP: made when a Service holds it, deleted when none does.
//!
//! What a server alone gives out is decided in memory (`allocate`); these objects show it, follow it
//! by changes only, and are brought back when somebody deletes one that is in use. Where servers share
//! a store, the objects themselves decide; then only [`repair`] is at work here.

mod repair;
mod verdict;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::Object;
use bytes::Bytes;
use client::{Client, Error, Recorder, Request, Tasks};
use http::Method;
use serde_json::{Value, json};
use store::{Collection, Event};

use crate::local::Local;
use crate::server::Server;
use strategy::allocate::{MANAGED_BY, MANAGER, held};

const API: &str = "networking.k8s.io/v1";
const PATH: &str = "/apis/networking.k8s.io/v1/ipaddresses";
/// Pause before everything is compared again after a failed write.
const RETRY: Duration = Duration::from_secs(1);

impl Server {
    /// Brings the objects to what Services hold, then follows both in `tasks`.
    pub(crate) fn follow_addresses(&self, client: Client, tasks: &Tasks) {
        let this = Addresses {
            services: self.parts.resources.collection_of("", "v1", "services"),
            published: self.parts.resources.collection_of("networking.k8s.io", "v1", "ipaddresses"),
            client,
        };
        if !self.parts.resources.store.is_shared() {
            return tasks.spawn("addresses of services", this.run());
        }
        let recorder =
            Recorder::new(this.client.clone(), tasks, "ipallocator-repair-controller", "");
        tasks.spawn("repair of addresses", this.repair(recorder));
    }
}

struct Addresses {
    services: Arc<Collection>,
    published: Arc<Collection>,
    client: Client,
}

fn addresses(service: &Object) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = held(&service.to_value()).0.into_iter().collect();
    all.sort();
    all
}

/// Namespace and name of the Service that an IPAddress belongs to.
fn parent(address: &Value) -> Option<(&str, &str)> {
    let parent = &address["spec"]["parentRef"];
    let service =
        parent["resource"] == "services" && parent["group"].as_str().unwrap_or("").is_empty();
    Some((parent["namespace"].as_str()?, parent["name"].as_str()?)).filter(|_| service)
}

fn is_ours(address: &Object) -> bool {
    address.meta().label(MANAGED_BY) == Some(MANAGER)
}

impl Addresses {
    async fn run(self) {
        loop {
            let since = (
                self.services.watch(self.services.last_change()),
                self.published.watch(self.published.last_change()),
            );
            let (Ok(mut services), Ok(mut published)) = since else { continue };
            let mut done = self.compare_all().await;
            while done.is_ok() {
                // No events: the log went past, so everything is compared anew.
                let events = tokio::select! {
                    events = services.next() => events,
                    events = published.next() => events,
                };
                let Ok(events) = events else { break };
                for event in events {
                    done = done.and(self.follow(&event).await);
                }
            }
            if let Err(error) = done {
                tracing::debug!(%error, "an address of a service was not published");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    fn all(&self, of: &Arc<Collection>) -> Vec<Arc<Object>> {
        let page = of.list("", None, 0, usize::MAX, &|_| true);
        page.map(|page| page.objects).unwrap_or_default()
    }

    async fn compare_all(&self) -> Result<(), Error> {
        for service in self.all(&self.services) {
            self.publish(&service).await?;
        }
        for address in self.all(&self.published) {
            if is_ours(&address) && self.holder(&address).is_none() {
                self.withdraw(&address.meta().name).await?;
            }
        }
        Ok(())
    }

    /// A change of a Service, or of an IPAddress.
    async fn follow(&self, event: &Event) -> Result<(), Error> {
        match (&event.old, &event.new) {
            // Services have a namespace, addresses have none.
            (Some(old), None) if old.meta().namespace.is_empty() => match self.holder(old) {
                Some(service) => self.publish(&service).await,
                None => Ok(()),
            },
            (old, new)
                if new
                    .as_ref()
                    .or(old.as_ref())
                    .is_some_and(|o| !o.meta().namespace.is_empty()) =>
            {
                let kept = new.as_ref().map(|new| addresses(new)).unwrap_or_default();
                let before = old.as_ref().map(|old| addresses(old)).unwrap_or_default();
                if before == kept {
                    return Ok(());
                }
                for ip in before.iter().filter(|ip| !kept.contains(ip)) {
                    self.settle(&ip.to_string()).await?;
                }
                match new {
                    Some(new) => self.publish(new).await,
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Withdraws an address of ours that its Service holds no more.
    async fn settle(&self, name: &str) -> Result<(), Error> {
        match self.published.get(name) {
            Some(address) if is_ours(&address) && self.holder(&address).is_none() => {
                self.withdraw(name).await
            }
            _ => Ok(()),
        }
    }

    /// The Service that an IPAddress names, if it holds the address.
    fn holder(&self, address: &Object) -> Option<Arc<Object>> {
        let tree = address.to_value();
        let (namespace, name) = parent(&tree)?;
        let service = self.services.get(&format!("{namespace}/{name}"))?;
        let ip: IpAddr = address.meta().name.parse().ok()?;
        addresses(&service).contains(&ip).then_some(service)
    }

    async fn publish(&self, service: &Object) -> Result<(), Error> {
        for ip in addresses(service) {
            let name = ip.to_string();
            // What names a Service that has let go of the address stands in the way.
            self.settle(&name).await?;
            if self.published.get(&name).is_none() {
                self.make(ip, service).await?;
            }
        }
        Ok(())
    }

    async fn make(&self, ip: IpAddr, service: &Object) -> Result<(), Error> {
        let meta = service.meta();
        let object = json!({
            "apiVersion": API, "kind": "IPAddress",
            "metadata": {"name": ip.to_string(), "labels": {
                "ipaddress.kubernetes.io/ip-family": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
                MANAGED_BY: MANAGER,
            }},
            "spec": {"parentRef": {"group": "", "resource": "services",
                "namespace": &*meta.namespace, "name": &*meta.name}},
        });
        match self.send(Method::POST, PATH.into(), Local::body(&object)).await {
            Err(error) if error.is_already_exists() => Ok(()),
            other => other,
        }
    }

    async fn withdraw(&self, name: &str) -> Result<(), Error> {
        match self.send(Method::DELETE, format!("{PATH}/{name}"), Bytes::new()).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    async fn send(&self, method: Method, target: String, body: Bytes) -> Result<(), Error> {
        self.client.call(Request { method, target, content_type: None, body }).await.map(drop)
    }
}
