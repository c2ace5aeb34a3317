//! The IPAddress objects of servers that share a store: each is made before its Service is stored and
//! deleted after it is gone, by the request itself. Here is what a crash in between leaves behind
//! put right (`ipallocator/controller/repairip.go`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::Object;
use client::{Error, EventType, Recorder};
use store::Event;
use tokio::time::Instant;

use super::verdict::{Verdict, judge};
use super::{Addresses, RETRY, addresses, is_ours, parent};
use strategy::allocate::{MANAGED_BY, MANAGER};
use strategy::meta::reference;

/// Upstream's interval between two complete looks.
const INTERVAL: Duration = Duration::from_secs(180);
fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn labels_are_right(address: &Object, ip: IpAddr) -> bool {
    let labels = address.meta();
    labels.label(MANAGED_BY) == Some(MANAGER)
        && labels.label("ipaddress.kubernetes.io/ip-family") == Some(family(ip))
}

/// When addresses are looked at again, by name.
type Later = BTreeMap<String, Instant>;

impl Addresses {
    /// Repairs for ever.
    pub(super) async fn repair(self, recorder: Recorder) {
        loop {
            let since = (
                self.services.watch(self.services.last_change()),
                self.published.watch(self.published.last_change()),
            );
            let (Ok(mut services), Ok(mut published)) = since else { continue };
            let mut later = Later::new();
            let mut done = self.repair_all(&recorder, &mut later).await;
            let complete = Instant::now() + INTERVAL;
            while done.is_ok() {
                let due = later.values().min().copied().unwrap_or(complete).min(complete);
                let events = tokio::select! {
                    events = services.next() => events,
                    events = published.next() => events,
                    () = tokio::time::sleep_until(due) => Ok(Vec::new()),
                };
                // The log went past, or it is time: everything is looked at anew.
                let Ok(events) = events else { break };
                if Instant::now() >= complete {
                    break;
                }
                done = self.repair_some(&recorder, &mut later, &events).await;
            }
            if let Err(error) = done {
                tracing::debug!(%error, "an address of a service was not repaired");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn repair_all(&self, recorder: &Recorder, later: &mut Later) -> Result<(), Error> {
        for service in self.all(&self.services) {
            self.check_service(recorder, &service).await?;
        }
        for address in self.all(&self.published) {
            self.check_address(recorder, later, &address).await?;
        }
        Ok(())
    }

    async fn repair_some(
        &self,
        recorder: &Recorder,
        later: &mut Later,
        events: &[Event],
    ) -> Result<(), Error> {
        let now = Instant::now();
        let due: Vec<String> =
            later.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            later.remove(&name);
            if let Some(address) = self.published.get(&name) {
                self.check_address(recorder, later, &address).await?;
            }
        }
        for event in events {
            // Services have a namespace, addresses have none.
            let is_service = event.key.contains('/');
            let present = if is_service { &self.services } else { &self.published };
            match (present.get(&event.key), is_service) {
                (Some(service), true) => self.check_service(recorder, &service).await?,
                (Some(address), false) => self.check_address(recorder, later, &address).await?,
                (None, true) => self.check_addresses_of(recorder, later, event).await?,
                (None, false) => self.check_holder(recorder, event).await?,
            }
        }
        Ok(())
    }

    /// A Service is gone: its addresses should be, soon.
    async fn check_addresses_of(
        &self,
        recorder: &Recorder,
        later: &mut Later,
        event: &Event,
    ) -> Result<(), Error> {
        for ip in event.old.as_deref().map(addresses).unwrap_or_default() {
            if let Some(address) = self.published.get(&ip.to_string()) {
                self.check_address(recorder, later, &address).await?;
            }
        }
        Ok(())
    }

    /// An address is gone: a Service that still holds it gets it back.
    async fn check_holder(&self, recorder: &Recorder, event: &Event) -> Result<(), Error> {
        match event.old.as_deref().and_then(|old| self.holder(old)) {
            Some(service) => self.check_service(recorder, &service).await,
            None => Ok(()),
        }
    }

    async fn check_address(
        &self,
        recorder: &Recorder,
        later: &mut Later,
        address: &Object,
    ) -> Result<(), Error> {
        if !is_ours(address) {
            return Ok(());
        }
        let tree = address.to_value();
        let service =
            parent(&tree).and_then(|(ns, name)| self.services.get(&format!("{ns}/{name}")));
        let made = |object: &Object| -> Option<jiff::Timestamp> {
            object.to_value()["metadata"]["creationTimestamp"].as_str()?.parse().ok()
        };
        let age = made(address)
            .map_or(i64::MAX, |at| jiff::Timestamp::now().duration_since(at).as_secs());
        let age = Duration::from_secs(u64::try_from(age).unwrap_or(0));
        let newer = service.as_deref().is_none_or(|service| made(address) > made(service));
        match judge(address, service.as_deref(), age, newer) {
            Verdict::Fine => Ok(()),
            Verdict::Wait(left) => {
                later.insert(address.meta().name.to_string(), Instant::now() + left);
                Ok(())
            }
            Verdict::Leaked(reason, message) => {
                let about = reference(address, super::API, "IPAddress");
                recorder.event(&about, EventType::Warning, reason, message);
                self.withdraw(&address.meta().name).await
            }
        }
    }

    /// Each of a Service's addresses has an object that says so.
    async fn check_service(&self, recorder: &Recorder, service: &Arc<Object>) -> Result<(), Error> {
        let meta = service.meta();
        let tell = |reason: &str, message: String| {
            recorder.event(
                &reference(service, "v1", "Service"),
                EventType::Warning,
                reason,
                message,
            );
        };
        for ip in addresses(service) {
            let family = family(ip);
            let Some(address) = self.published.get(&ip.to_string()) else {
                // That of `kubernetes` is always made here: nobody else may have it anyway.
                if (&*meta.namespace, &*meta.name) != ("default", "kubernetes") {
                    let text = format!("Cluster IP [{family}]: {ip} is not allocated; repairing");
                    tell("ClusterIPNotAllocated", text);
                }
                self.make(ip, service).await?;
                continue;
            };
            let tree = address.to_value();
            let named = parent(&tree);
            if named == Some((&*meta.namespace, &*meta.name)) {
                if !labels_are_right(&address, ip) {
                    self.remake(ip, service).await?;
                }
            } else if self.holder(&address).is_some() {
                tell(
                    "ClusterIPAlreadyAllocated",
                    format!(
                        "Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service"
                    ),
                );
            } else {
                let (ns, name) = (&meta.namespace, &meta.name);
                tell(
                    "ClusterIPNotAllocated",
                    format!(
                        "the ClusterIP [{family}]: {ip} for Service {ns}/{name} has a wrong reference; repairing"
                    ),
                );
                self.remake(ip, service).await?;
            }
        }
        Ok(())
    }

    async fn remake(&self, ip: IpAddr, service: &Object) -> Result<(), Error> {
        self.withdraw(&ip.to_string()).await?;
        self.make(ip, service).await
    }
}
