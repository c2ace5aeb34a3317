//! From what a request chose to what its Service holds: booked in the shared ledger before the
//! Service is stored, and given back when it is not, or is no longer.
//!
//! A server that is alone has no ledger; then all this is a few changes of a set in memory.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::PoisonError;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use store::WriteError;

use super::ledger::{Holder, Ledger, Parent};
use super::{AllocationError, Allocators, Claim, What, held};

/// What one request was given, and how much of it is booked.
#[derive(Debug, Default)]
pub struct Claims {
    pub all: Vec<Claim>,
    /// Addresses with the uid of the object that books them.
    addresses: Vec<(IpAddr, String)>,
    ports: Vec<u16>,
    /// The Service is being written, or may have been: nothing is given back unseen.
    pub in_doubt: bool,
}

/// How long a write may go on that nobody waits for any more.
const WRITE_MAX: std::time::Duration = std::time::Duration::from_secs(30);

impl Claims {
    /// Forgets what is booked, but not what was claimed: what was booked.
    pub fn unbooked(&mut self) -> Claims {
        let (addresses, ports) =
            (std::mem::take(&mut self.addresses), std::mem::take(&mut self.ports));
        Claims { addresses, ports, ..Claims::default() }
    }

    /// Forgets what this Service holds.
    fn leave(&mut self, service: &Value) {
        let (addresses, ports) = held(service);
        self.all.retain(|claim| match claim.what {
            What::Address(ip) => !addresses.contains(&ip),
            What::Port(port) => !ports.contains(&port),
        });
        self.addresses.retain(|(ip, _)| !addresses.contains(ip));
        self.ports.retain(|port| !ports.contains(port));
    }
}

/// Why a Service cannot have what it asked for.
#[derive(Debug)]
pub enum Unbooked {
    /// Another server was faster.
    Taken(What, AllocationError),
    Write(WriteError),
}

impl From<WriteError> for Unbooked {
    fn from(error: WriteError) -> Unbooked {
        Unbooked::Write(error)
    }
}

/// Puts another address or port in the place of one.
fn substitute(object: &mut Value, old: What, new: What) {
    let replace = |value: &mut Value, old: Value, new: Value| {
        if *value == old {
            *value = new;
        }
    };
    let spec = &mut object["spec"];
    match (old, new) {
        (What::Address(old), What::Address(new)) => {
            let (old, new) = (Value::from(old.to_string()), Value::from(new.to_string()));
            replace(&mut spec["clusterIP"], old.clone(), new.clone());
            let all = validation::items_mut(spec, "clusterIPs");
            all.for_each(|ip| replace(ip, old.clone(), new.clone()));
        }
        (What::Port(old), What::Port(new)) => {
            let with_port = |port: &&mut Value| port["nodePort"] == old;
            validation::items_mut(spec, "ports")
                .filter(with_port)
                .for_each(|port| port["nodePort"] = new.into());
            if spec["healthCheckNodePort"] == old {
                spec["healthCheckNodePort"] = new.into();
            }
        }
        _ => {}
    }
}

impl Allocators {
    /// Makes what was claimed the Service's own, before others see the Service. What the server
    /// chose and lost to another it chooses anew, also in `object`.
    pub async fn book(
        &self,
        claims: &mut Claims,
        parent: &Parent,
        object: &mut Value,
    ) -> Result<(), Unbooked> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        for at in 0..claims.all.len() {
            while let What::Address(ip) = claims.all[at].what {
                let uid = uuid::Uuid::new_v4().to_string();
                claims.addresses.push((ip, uid.clone()));
                if ledger.take_address(ip, &uid, parent).await? {
                    break;
                }
                let next = || self.any_ip(ip.is_ipv6()).map(What::Address);
                self.choose_anew(claims, at, object, AllocationError::IpTaken, next)?;
            }
        }
        self.book_ports(ledger, claims, object).await
    }

    async fn book_ports(
        &self,
        ledger: &Ledger,
        claims: &mut Claims,
        object: &mut Value,
    ) -> Result<(), Unbooked> {
        let port = |claim: &Claim| match claim.what {
            What::Port(port) => Some(port),
            What::Address(_) => None,
        };
        loop {
            let wanted: Vec<u16> = claims.all.iter().filter_map(port).collect();
            if wanted.is_empty() {
                return Ok(());
            }
            let Some(taken) = ledger.take_ports(&wanted).await? else {
                claims.ports = wanted;
                return Ok(());
            };
            let Some(at) = claims.all.iter().position(|c| c.what == What::Port(taken)) else {
                continue;
            };
            let next = || self.any_port().map(What::Port);
            self.choose_anew(claims, at, object, AllocationError::PortTaken, next)?;
        }
    }

    /// Another server has what this claim is for.
    fn choose_anew(
        &self,
        claims: &mut Claims,
        at: usize,
        object: &mut Value,
        why: AllocationError,
        next: impl FnOnce() -> Result<What, AllocationError>,
    ) -> Result<(), Unbooked> {
        let lost = claims.all[at].clone();
        if !lost.chosen {
            return Err(Unbooked::Taken(lost.what, why));
        }
        let new = next().map_err(|error| Unbooked::Taken(lost.what, error))?;
        substitute(object, lost.what, new);
        claims.all[at].what = new;
        self.forget(&[lost]);
        Ok(())
    }

    /// The Service is stored: what the ledger or the Service says need not be remembered.
    pub fn settle(&self, claims: Claims) {
        if self.ledger.is_some() {
            self.forget(&claims.all);
        }
    }

    /// Nobody holds it.
    pub async fn give_back(&self, claims: Claims) {
        self.return_booked(&claims).await;
        self.forget(&claims.all);
    }

    /// Takes it out of the ledger.
    pub async fn return_booked(&self, claims: &Claims) {
        let Some(ledger) = &self.ledger else { return };
        let holder = |(ip, uid): &(IpAddr, String)| (*ip, Holder::Uid(uid.clone()));
        let addresses = claims.addresses.iter().map(holder).collect();
        return_all(ledger, addresses, &claims.ports).await;
    }

    /// The same for a request that ended without a word; where a ledger is to be told, a task does.
    pub fn give_back_later(&self, claims: Claims) {
        let booked = !claims.addresses.is_empty() || !claims.ports.is_empty();
        if booked || claims.in_doubt {
            // Without its task the server is shutting down, and repair finds it.
            self.returns.send(claims).unwrap_or_default();
        } else {
            self.forget(&claims.all);
        }
    }

    /// What gives back later, for ever; the first call's only.
    pub async fn return_claims(&self) {
        let returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut claims) = returned else { return };
        let mut in_doubt = FuturesUnordered::new();
        loop {
            let ended = tokio::select! {
                claims = claims.recv() => match claims {
                    Some(claims) if claims.in_doubt => {
                        in_doubt.push(tokio::time::sleep(WRITE_MAX).map(|()| claims));
                        continue;
                    }
                    Some(claims) => claims,
                    None => return,
                },
                Some(claims) = in_doubt.next() => self.not_held(claims),
            };
            self.give_back(ended).await;
        }
    }

    /// What no stored Service holds; what one does is settled.
    fn not_held(&self, mut claims: Claims) -> Claims {
        let claimed = claims.all.clone();
        let page = self.services.as_ref().map(|all| all.list("", None, 0, usize::MAX, &|_| true));
        for service in page.into_iter().flatten().flat_map(|page| page.objects) {
            claims.leave(&service.to_value());
        }
        let held = claimed.into_iter().filter(|claim| !claims.all.contains(claim));
        self.settle(Claims { all: held.collect(), ..Claims::default() });
        claims
    }

    /// Gives back what `service` held and `kept` (its next state) does not.
    pub async fn release(&self, service: &Value, kept: Option<&Value>) {
        let (addresses, ports) = held(service);
        let (kept_addresses, kept_ports) = kept.map(held).unwrap_or_default();
        let addresses: HashSet<IpAddr> = &addresses - &kept_addresses;
        let ports: Vec<u16> = (&ports - &kept_ports).into_iter().collect();
        let Some(ledger) = &self.ledger else {
            let claim = |what| Claim { what, chosen: false };
            let all = addresses.into_iter().map(What::Address);
            let all = all.chain(ports.into_iter().map(What::Port)).map(claim);
            return self.forget(&all.collect::<Vec<_>>());
        };
        let text = |key| crate::meta::text(service, key).to_owned();
        let parent = Holder::Parent((text("namespace"), text("name")));
        let addresses = addresses.into_iter().map(|ip| (ip, parent.clone())).collect();
        return_all(ledger, addresses, &ports).await;
    }
}

async fn return_all(ledger: &Ledger, addresses: Vec<(IpAddr, Holder)>, ports: &[u16]) {
    let mut done = Ok(());
    for (ip, holder) in addresses {
        done = done.and(ledger.return_address(ip, &holder).await);
    }
    if !ports.is_empty() {
        done = done.and(ledger.return_ports(ports).await);
    }
    if let Err(error) = done {
        tracing::warn!(%error, "an address or port of a service is given back by repair, later");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{What, substitute};

    #[test]
    fn another_choice_takes_the_place_of_one() {
        let mut service = json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
            "ports": [{"nodePort": 30001}, {"nodePort": 30002}, {"nodePort": 30001}],
            "healthCheckNodePort": 30003}});
        let ip = |text: &str| What::Address(text.parse().expect("an address"));
        substitute(&mut service, ip("10.0.0.1"), ip("10.0.0.9"));
        substitute(&mut service, ip("fd00::1"), ip("fd00::9"));
        substitute(&mut service, What::Port(30001), What::Port(30009));
        substitute(&mut service, What::Port(30003), What::Port(30008));
        assert_eq!(
            service,
            json!({"spec": {"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9", "fd00::9"],
                "ports": [{"nodePort": 30009}, {"nodePort": 30002}, {"nodePort": 30009}],
                "healthCheckNodePort": 30008}})
        );
    }
}
