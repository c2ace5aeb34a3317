//! The endpoints of the `kubernetes` Service: this server's address, and those of the other servers
//! that share the store.
//!
//! Each of those keeps a key alive that goes by itself soon after its server; all of them bring the
//! endpoints to what the keys say (`pkg/controlplane/reconcilers/lease.go`).

use std::net::IpAddr;
use std::time::Duration;

use api::{Draft, Object};
use client::{Client, Error};
use http::Method;
use serde_json::{Value, json};
use store::{Event, Expect, Write, WriteError};
use tokio::time::Instant;

use super::{call, collection, put};
use crate::server::Server;
use strategy::allocate::MASTERS;

/// Where servers that share a store keep their addresses.
/// How often a server renews its key, and how long that lives without.
const INTERVAL: Duration = Duration::from_secs(10);
const LIFETIME: Duration = Duration::from_secs(15);
/// Tries to renew the key while somebody else changes it.
const TRIES: usize = 10;

impl Server {
    /// Publishes this server's address now, and with a shared store the others' too from now on.
    pub(super) async fn publish_endpoints(
        &self,
        client: &Client,
        tasks: &client::Tasks,
    ) -> Result<(), Error> {
        let ip = self.parts.advertise.0;
        if ip.is_loopback() {
            // Endpoints may not be loopback addresses; there are no pods that could use one either.
            tracing::warn!(%ip, "the kubernetes Service has no endpoint: advertise an address that pods can reach");
            return Ok(());
        }
        if !self.parts.resources.store.is_shared() {
            return self.put_endpoints(client, &[ip]).await;
        }
        self.renew_and_publish(client).await?;
        let (server, client) = (self.clone(), client.clone());
        tasks.spawn("endpoints of the API servers", async move {
            server.follow_masters(&client).await;
        });
        Ok(())
    }

    /// Takes this server out of the endpoints: it is about to end.
    pub async fn retire(&self) {
        let key = self.parts.advertise.0.to_string();
        let Some(masters) = self.parts.resources.store.collection(MASTERS) else { return };
        let Some(own) = masters.get(&key).filter(|_| self.parts.resources.store.is_shared()) else {
            return;
        };
        let expect = Expect::Revision(own.revision());
        let write = Write { collection: masters, key, expect, draft: None };
        if let Err(error) = self.parts.resources.store.write(write).await {
            tracing::debug!(%error, "the key of this server's address goes by itself, soon");
        }
        let tasks = client::Tasks::new();
        let client = self.own_client(&tasks);
        let others = self.masters();
        // The last one leaves its address: without one the Service would be of no use to anybody.
        if !others.is_empty()
            && let Err(error) = self.put_endpoints(&client, &others).await
        {
            tracing::debug!(%error, "the other servers take this one out of the endpoints");
        }
        tasks.shutdown().await;
    }

    async fn follow_masters(&self, client: &Client) {
        let Some(masters) = self.parts.resources.store.collection(MASTERS) else { return };
        let mut renewal = Instant::now() + INTERVAL;
        loop {
            // Behind the log's end: from now on, and the next renewal publishes what was missed.
            let since = masters.watch(masters.last_change()).or_else(|_| masters.watch(0));
            let Ok(mut watcher) = since else { continue };
            loop {
                let done = tokio::select! {
                    events = watcher.next() => match events {
                        // Renewals are no news.
                        Ok(events) if events.iter().all(is_renewal) => continue,
                        Ok(_) => self.put_endpoints(client, &self.masters()).await,
                        Err(_) => break,
                    },
                    () = tokio::time::sleep_until(renewal) => {
                        renewal = Instant::now() + INTERVAL;
                        self.renew_and_publish(client).await
                    }
                };
                if let Err(error) = done {
                    tracing::warn!(%error, "the endpoints of the kubernetes Service were not renewed");
                }
            }
        }
    }

    async fn renew_and_publish(&self, client: &Client) -> Result<(), Error> {
        let failed = |error: WriteError| {
            let text = format!("the key of this server's address: {error}");
            Error::Api(Box::new(api::Status::unavailable(text)))
        };
        self.renew().await.map_err(failed)?;
        self.put_endpoints(client, &self.masters()).await
    }

    /// Writes this server's key anew; a count makes each value another.
    async fn renew(&self) -> Result<(), WriteError> {
        let ip = self.parts.advertise.0.to_string();
        let Some(masters) = self.parts.resources.store.collection(MASTERS) else { return Ok(()) };
        for _ in 0..TRIES {
            let there = masters.get(&ip);
            let generation = there.as_ref().map_or(0, |there| there.meta().generation) + 1;
            let object = json!({"apiVersion": "v1", "kind": "Endpoints",
                "metadata": {"generation": generation},
                "subsets": [{"addresses": [{"ip": ip}]}]});
            let expect = there.map_or(Expect::Absent, |there| Expect::Revision(there.revision()));
            let draft = Some(Draft::new(&object, &[]));
            let write = Write { collection: masters.clone(), key: ip.clone(), expect, draft };
            match self.parts.resources.store.write_for(write, LIFETIME).await {
                Err(WriteError::Conflict(_)) => {}
                other => return other.map(drop),
            }
        }
        Err(WriteError::Unavailable("somebody else changes it all the time".into()))
    }

    /// Addresses of all servers that are alive, in their order as text.
    fn masters(&self) -> Vec<IpAddr> {
        let masters = self.parts.resources.store.collection(MASTERS);
        let page = masters.and_then(|all| all.list("", None, 0, usize::MAX, &|_| true).ok());
        let address = |key: &std::sync::Arc<Object>| -> Option<IpAddr> {
            key.to_value()["subsets"][0]["addresses"][0]["ip"].as_str()?.parse().ok()
        };
        page.iter().flat_map(|page| &page.objects).filter_map(address).collect()
    }

    /// Brings Endpoints and slice to these addresses and this server's port.
    async fn put_endpoints(&self, client: &Client, addresses: &[IpAddr]) -> Result<(), Error> {
        let Some(first) = addresses.first() else { return Ok(()) };
        let port = self.parts.advertise.1;
        let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
        let all: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": all, "ports": ports}],
        });
        put_if_changed(client, "endpoints", &endpoints).await?;
        let family = addresses.iter().filter(|ip| ip.is_ipv4() == first.is_ipv4());
        let endpoint =
            |ip: &IpAddr| json!({"addresses": [ip.to_string()], "conditions": {"ready": true}});
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": if first.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": family.map(endpoint).collect::<Vec<_>>(),
            "ports": ports,
        });
        super::ensure(client, "endpointslices", &slice).await?;
        put_if_changed(client, "endpointslices", &slice).await
    }
}

fn is_renewal(event: &Event) -> bool {
    event.old.is_some() && event.new.is_some()
}

/// Writes an object unless what it says is so already.
async fn put_if_changed(client: &Client, plural: &str, object: &Value) -> Result<(), Error> {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let target = collection(&text(&object["apiVersion"]), plural, "default");
    let target = format!("{target}/{}", text(&object["metadata"]["name"]));
    let there = call(client, Method::GET, target, &json!({})).await;
    let there: Value = match there {
        Ok(there) => serde_json::from_slice(&there.body).unwrap_or_default(),
        Err(error) if error.is_not_found() => Value::Null,
        Err(error) => return Err(error),
    };
    let same = ["subsets", "endpoints", "ports"].iter().all(|key| there[key] == object[key]);
    if same && there["metadata"]["labels"] == object["metadata"]["labels"] {
        return Ok(());
    }
    put(client, plural, object).await
}
