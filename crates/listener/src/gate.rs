//! Who may connect: counts by source and in all, and the choice of whom to close.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::connection::Connection;

/// What one listener holds, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub total: usize,
    /// Connections at a time from one address.
    pub per_source: usize,
    /// Longest a TLS handshake may take.
    pub handshake: Duration,
    /// Longest silence before the first request.
    pub first: Duration,
    /// Longest silence between requests.
    pub idle: Duration,
    /// Longest pause of a client that reads an answer which is no stream.
    pub stall: Duration,
}

impl Limits {
    /// Limits for `total` connections, a quarter of them from one source, with upstream's times: Go
    /// gives a handshake 10 s, kube-apiserver a request's head 32 s and an idle connection 90 s.
    pub fn new(total: usize) -> Limits {
        Limits {
            total,
            per_source: total.div_ceil(4),
            handshake: Duration::from_secs(10),
            first: Duration::from_secs(32),
            idle: Duration::from_secs(90),
            stall: Duration::from_secs(60),
        }
    }
}

/// Connections of one listener. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    count: usize,
    sources: HashMap<IpAddr, HashMap<u64, Arc<Connection>>>,
}

/// A place of a connection, given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    gate: Gate,
    source: IpAddr,
    number: u64,
    connection: Arc<Connection>,
}

impl Gate {
    pub fn new(limits: Limits) -> Gate {
        Gate { shared: Arc::new(Shared { limits, table: Mutex::default() }) }
    }

    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Connections now.
    pub fn count(&self) -> usize {
        self.table().count
    }

    /// A place for a new connection; the idlest one has to leave when there is none. `None` when
    /// nobody is idle.
    pub fn admit(&self, source: IpAddr) -> Option<Slot> {
        let source = source.to_canonical();
        let limits = self.shared.limits;
        let connection = Arc::new(Connection::new(limits));
        let mut table = self.table();
        if table.sources.get(&source).is_some_and(|own| own.len() >= limits.per_source) {
            table.close_idlest(source)?;
        }
        if table.count >= limits.total {
            let most = table.sources.iter().max_by_key(|(_, own)| own.len()).map(|(ip, _)| *ip);
            table.close_idlest(most?)?;
        }
        table.next += 1;
        let number = table.next;
        table.count += 1;
        table.sources.entry(source).or_default().insert(number, connection.clone());
        drop(table);
        Some(Slot { gate: self.clone(), source, number, connection })
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Closes the connection of this source that has been idle for longest. Its place is free at
    /// once; its task ends a moment later.
    fn close_idlest(&mut self, source: IpAddr) -> Option<()> {
        let own = self.sources.get(&source)?;
        let idle = own.iter().filter_map(|(number, c)| c.idle_since().map(|at| (at, *number)));
        let (_, number) = idle.min()?;
        self.remove(source, number)?.close();
        Some(())
    }

    fn remove(&mut self, source: IpAddr, number: u64) -> Option<Arc<Connection>> {
        let own = self.sources.get_mut(&source)?;
        let removed = own.remove(&number)?;
        if own.is_empty() {
            self.sources.remove(&source);
        }
        self.count -= 1;
        Some(removed)
    }
}

impl Slot {
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Already removed when it was closed to make room.
        drop(self.gate.table().remove(self.source, self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(total: usize, per_source: usize) -> Gate {
        Gate::new(Limits { per_source, ..Limits::new(total) })
    }

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[tokio::test(start_paused = true)]
    async fn the_idlest_of_a_source_makes_room() {
        let gate = gate(10, 2);
        let first = gate.admit(A).expect("room");
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = gate.admit(A).expect("room");
        let other = gate.admit(B).expect("room");
        let third = gate.admit(A).expect("the first leaves");
        first.connection().ended().await;
        assert_eq!(gate.count(), 3);
        drop(first);
        assert_eq!(gate.count(), 3, "its place was given away once");
        drop((second, third, other));
        assert_eq!(gate.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn those_at_work_stay() {
        let gate = gate(10, 2);
        let slots = [gate.admit(A).expect("room"), gate.admit(A).expect("room")];
        let work: Vec<_> = slots.iter().map(|slot| slot.connection().request()).collect();
        assert!(gate.admit(A).is_none());
        assert!(gate.admit(B).is_some(), "another source is not concerned");
        drop(work);
        assert!(gate.admit(A).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn in_all_the_greediest_source_pays() {
        let gate = gate(3, 3);
        let greedy = [gate.admit(A).expect("room"), gate.admit(A).expect("room")];
        let modest = gate.admit(B).expect("room");
        assert!(gate.admit(B).is_some());
        greedy[0].connection().ended().await;
        assert!(modest.connection().idle_since().is_some());
    }

    #[tokio::test]
    async fn a_mapped_address_is_the_same_source() {
        let gate = gate(10, 1);
        let first = gate.admit(A).expect("room");
        let mapped = gate.admit("::ffff:10.0.0.1".parse().expect("an address"));
        assert!(mapped.is_some());
        first.connection().ended().await;
    }
}
