//! Puts the shared ledger of node ports right: ports of Services that it does not have are claimed,
//! those that no Service holds are given back (`portallocator/controller/repair.go`).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use api::Object;
use client::{EventType, Recorder};
use serde_json::Value;
use store::{Collection, Store, WriteError};

use super::ports::PortSet;
use super::{Allocators, held};

/// Upstream's interval.
const INTERVAL: Duration = Duration::from_secs(180);
/// Looks that must find a port without a Service before it is given back: between being booked and
/// being stored there is none.
const LOOKS: u8 = 3;
/// Tries when other servers change the ports meanwhile.
const TRIES: usize = 100;

/// Something to tell about a Service.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// Which of the Services.
    service: usize,
    reason: &'static str,
    message: String,
}

/// How many more looks a port without a Service stays taken.
type Leaks = BTreeMap<u16, u8>;

/// What should be taken, given what is and the ports that Services hold.
fn plan(
    mut stored: PortSet,
    services: &[Vec<u16>],
    range: &RangeInclusive<u16>,
    leaks: &mut Leaks,
) -> (PortSet, Vec<Finding>) {
    let mut rebuilt = PortSet::new(range.clone());
    let mut findings = Vec::new();
    for (service, port) in services
        .iter()
        .enumerate()
        .flat_map(|(at, ports)| ports.iter().map(move |port| (at, *port)))
    {
        let mut tell = |reason, message| findings.push(Finding { service, reason, message });
        if !range.contains(&port) {
            let (first, last) = (range.start(), range.end());
            tell(
                "PortOutOfRange",
                format!(
                    "Port {port} is not within the port range {first}-{last}; please recreate service"
                ),
            );
        } else if !rebuilt.insert(port) {
            tell(
                "PortAlreadyAllocated",
                format!("Port {port} was assigned to multiple services; please recreate service"),
            );
        } else {
            if !stored.remove(port) {
                tell("PortNotAllocated", format!("Port {port} is not allocated; repairing"));
            }
            leaks.remove(&port);
        }
    }
    for port in stored.iter().filter(|port| range.contains(port)) {
        let left = leaks.get(&port).map_or(LOOKS - 1, |left| left.saturating_sub(1));
        if leaks.get(&port) != Some(&0) {
            leaks.insert(port, left);
            rebuilt.insert(port);
        } else {
            leaks.remove(&port);
            tracing::warn!(port, "a node port that no service holds is given back");
        }
    }
    (rebuilt, findings)
}

pub struct Repair {
    store: Store,
    services: Arc<Collection>,
    recorder: Recorder,
    leaks: Leaks,
}

impl Repair {
    pub fn new(store: Store, services: Arc<Collection>, recorder: Recorder) -> Repair {
        Repair { store, services, recorder, leaks: Leaks::new() }
    }

    /// Claims what the ledger lacks, then repeats that for ever in `tasks`.
    pub async fn run(
        mut self,
        allocators: Arc<Allocators>,
        tasks: &client::Tasks,
    ) -> Result<(), WriteError> {
        self.run_once(&allocators).await?;
        tasks.spawn("repair of node ports", async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                if let Err(error) = self.run_once(&allocators).await {
                    tracing::warn!(%error, "node ports were not repaired");
                }
            }
        });
        Ok(())
    }

    async fn run_once(&mut self, allocators: &Allocators) -> Result<(), WriteError> {
        let Some(ledger) = &allocators.ledger else { return Ok(()) };
        for _ in 0..TRIES {
            self.store.catch_up().await?;
            // The ports first: a Service stored in between has its own among them, or is seen.
            let stored = ledger.ports().map_err(WriteError::Engine)?;
            let services = self.all();
            let ports: Vec<Vec<u16>> = services.iter().map(|s| ports_of(&s.to_value())).collect();
            let range = &allocators.network.node_ports;
            let (before, revision) = match stored {
                Some((ports, revision)) => (ports, Some(revision)),
                None => (PortSet::new(range.clone()), None),
            };
            let mut leaks = self.leaks.clone();
            let (rebuilt, findings) = plan(before.clone(), &ports, range, &mut leaks);
            let same = revision.is_some() && before == rebuilt;
            if same || ledger.replace_ports(&rebuilt, revision).await? {
                self.leaks = leaks;
                // A first start finds nothing allocated, which is no fault.
                findings.iter().filter(|_| revision.is_some()).for_each(|found| {
                    let about = crate::meta::reference(&services[found.service], "v1", "Service");
                    let message = found.message.as_str();
                    self.recorder.event(&about, EventType::Warning, found.reason, message);
                });
                return Ok(());
            }
        }
        Err(WriteError::Unavailable("other servers allocate node ports all the time".into()))
    }

    fn all(&self) -> Vec<Arc<Object>> {
        let page = self.services.list("", None, 0, usize::MAX, &|_| true);
        page.map(|page| page.objects).unwrap_or_default()
    }
}

/// A Service's ports, each once: several protocols may share one.
fn ports_of(service: &Value) -> Vec<u16> {
    let mut ports: Vec<u16> = held(service).1.into_iter().collect();
    ports.sort_unstable();
    ports
}

#[cfg(test)]
mod tests {
    use super::{Leaks, PortSet, plan};

    const RANGE: std::ops::RangeInclusive<u16> = 30000..=30100;

    fn set(ports: &[u16]) -> PortSet {
        let mut set = PortSet::new(RANGE);
        for port in ports {
            set.insert(*port);
        }
        set
    }

    #[test]
    fn what_services_hold_is_claimed_and_what_is_wrong_is_told() {
        let mut leaks = Leaks::new();
        let services = [vec![30001, 30002], vec![30002], vec![31000], vec![30004]];
        let (rebuilt, findings) = plan(set(&[30001, 30002]), &services, &RANGE, &mut leaks);
        assert_eq!(rebuilt, set(&[30001, 30002, 30004]));
        let told: Vec<_> = findings.iter().map(|f| (f.service, f.reason)).collect();
        assert_eq!(
            told,
            [(1, "PortAlreadyAllocated"), (2, "PortOutOfRange"), (3, "PortNotAllocated")]
        );
        assert_eq!(findings[2].message, "Port 30004 is not allocated; repairing");
    }

    #[test]
    fn an_orphan_goes_after_several_looks_unless_a_service_turns_up() {
        let mut leaks = Leaks::new();
        let mut look = |stored: &PortSet, services: &[Vec<u16>]| {
            plan(stored.clone(), services, &RANGE, &mut leaks).0
        };
        let both = set(&[30001, 30002]);
        for _ in 0..3 {
            assert_eq!(look(&both, &[]), both, "it may be on its way");
        }
        assert_eq!(look(&both, &[vec![30001]]), set(&[30001]));
        for _ in 0..3 {
            assert_eq!(look(&both, &[]), both, "counted from the start");
        }
        assert_eq!(look(&both, &[]), set(&[]));
    }
}
