//! Leader election through Leases (client-go's `leaderelection`, resourcelock `leases`).
//!
//! Losing the lease stops the loops it guards, never the process: `run` starts the guarded work in
//! a child task group each time the lease is won and cancels that group when it is lost.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio::time::Instant;

use tasks::Tasks;

use crate::client::Client;
use crate::error::Error;
use crate::figures;

/// Others may take over this long after the last renewal (client-go's default).
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// The holder gives up when it could not renew for this long: shorter than the above.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// One candidate for one lease.
#[derive(Debug, Clone)]
pub struct LeaderElection {
    pub client: Client,
    pub namespace: String,
    pub name: String,
    /// Unique among the candidates.
    pub identity: String,
}

/// The last state of the lease seen, and when it was first seen: clocks of others are not trusted.
struct Observed {
    spec: Option<LeaseSpec>,
    at: Instant,
}

impl LeaderElection {
    /// Campaigns until cancelled; `lead` starts the guarded work in the group it is given.
    pub async fn run(self, tasks: Tasks, lead: impl Fn(&Tasks)) {
        let mut observed = Observed { spec: None, at: Instant::now() };
        figures::leading(&self.name, false);
        loop {
            let mut deadline = Instant::now() + RENEW_DEADLINE;
            while !self.try_hold_until(deadline, &mut observed).await {
                tokio::time::sleep(RETRY_PERIOD).await;
                deadline = Instant::now() + RENEW_DEADLINE;
            }
            let term = tasks.child();
            figures::leading(&self.name, true);
            lead(&term);
            self.keep(deadline, &mut observed).await;
            figures::leading(&self.name, false);
            tracing::warn!(lease = self.name, "leadership lost, its loops are stopped");
            term.cancel();
        }
    }

    /// Renews until it has not succeeded by the deadline. The deadline counts from the beginning of the
    /// last renewal that succeeded, and cuts a request short that hangs: a stalled leader stops before
    /// another one may take over.
    async fn keep(&self, mut deadline: Instant, observed: &mut Observed) {
        while Instant::now() < deadline {
            let begun = (Instant::now() + RETRY_PERIOD).min(deadline);
            tokio::time::sleep_until(begun).await;
            if self.try_hold_until(deadline, observed).await {
                deadline = begun + RENEW_DEADLINE;
            }
        }
    }

    async fn try_hold_until(&self, deadline: Instant, observed: &mut Observed) -> bool {
        tokio::time::timeout_at(deadline, self.try_hold(observed)).await.unwrap_or(false)
    }

    async fn try_hold(&self, observed: &mut Observed) -> bool {
        match self.try_hold_once(observed).await {
            Ok(held) => held,
            Err(error) => {
                tracing::debug!(lease = self.name, %error, "lease not renewed");
                false
            }
        }
    }

    async fn try_hold_once(&self, observed: &mut Observed) -> Result<bool, Error> {
        let mut lease = match self.client.get::<Lease>(&self.namespace, &self.name).await {
            Ok(lease) => lease,
            Err(e) if e.is_not_found() => return self.create().await,
            Err(e) => return Err(e),
        };
        if lease.spec != observed.spec {
            *observed = Observed { spec: lease.spec.clone(), at: Instant::now() };
        }
        let old = lease.spec.take().unwrap_or_default();
        let mine = old.holder_identity.as_deref() == Some(&self.identity);
        let free = old.holder_identity.as_deref().unwrap_or("").is_empty();
        if !mine && !free && observed.at.elapsed() < LEASE_DURATION {
            return Ok(false);
        }
        let transitions = old.lease_transitions.unwrap_or(0) + i32::from(!mine);
        let acquired = if mine { old.acquire_time } else { None };
        lease.spec = Some(self.spec(transitions, acquired));
        let updated = self.client.update(&lease).await?;
        *observed = Observed { spec: updated.spec, at: Instant::now() };
        Ok(true)
    }

    async fn create(&self) -> Result<bool, Error> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec(0, None)),
        };
        self.client.create(&self.namespace, &lease).await.map(|_| true)
    }

    fn spec(&self, transitions: i32, acquired: Option<MicroTime>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(LEASE_DURATION.as_secs() as i32),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::follow::{Follow, Follower};
    use crate::transport::{BoxFuture, Request, Response, Transport};

    /// A server that accepts so many renewals, and then answers nothing.
    struct Stalls {
        left: AtomicUsize,
        last: std::sync::Mutex<Instant>,
    }

    impl Transport for Stalls {
        fn call(&self, request: Request) -> BoxFuture<'_, Result<Response, Error>> {
            Box::pin(async move {
                let body = match request.method {
                    http::Method::GET => r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"l"},"spec":{"holderIdentity":"me"}}"#.into(),
                    _ if self.left.load(Ordering::Relaxed) == 0 => std::future::pending().await,
                    _ => request.body,
                };
                if request.method != http::Method::GET {
                    self.left.fetch_sub(1, Ordering::Relaxed);
                    *self.last.lock().expect("whole") = Instant::now();
                }
                Ok(Response { code: http::StatusCode::OK, body })
            })
        }

        fn follow(&self, _: Follow) -> Follower {
            Follower::channel().1
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_renewal_hangs_stops_before_another_may_lead() {
        let last = std::sync::Mutex::new(Instant::now());
        let server = Arc::new(Stalls { left: AtomicUsize::new(5), last });
        let election = LeaderElection {
            client: Client::new(server.clone()),
            namespace: "kube-system".into(),
            name: "l".into(),
            identity: "me".into(),
        };
        let (told, mut terms) = tokio::sync::mpsc::unbounded_channel();
        let tasks = Tasks::new();
        let lead = move |term: &Tasks| told.send(term.clone()).expect("listened to");
        tasks.spawn("leader election", election.run(tasks.clone(), lead));
        let term = terms.recv().await.expect("it leads");
        term.cancelled().await;
        let renewed = *server.last.lock().expect("whole");
        assert_eq!(server.left.load(Ordering::Relaxed), 0);
        assert_eq!(renewed.elapsed(), RENEW_DEADLINE);
        tasks.shutdown().await;
    }
}
