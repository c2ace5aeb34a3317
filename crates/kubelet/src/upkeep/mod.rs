//! What a node does for itself: rotates logs, removes images, ends pods when it is short.
//!
//! These look at the machine, which tells nothing by itself but that memory stalls, so they are timed. With no pressure a
//! round costs a `stat` for each running container's log.

mod eviction;
mod images;
mod limits;
mod logs;
mod orphans;

pub(crate) use eviction::pressures;

use std::sync::Arc;

use crate::kubelet::Shared;
use crate::psi::MemoryStalls;

/// Rounds between two looks at images without pressure: five minutes, as in upstream.
const IMAGE_ROUNDS: u32 = 30;

/// Reason of a pod that the node ended for its own sake.
const EVICTED: &str = "Evicted";

/// Ends pods that use more of the disk than they may.
pub(crate) async fn run_limits(shared: Arc<Shared>) {
    limits::run(shared).await;
}

pub(crate) struct Upkeep {
    images: images::Images,
    eviction: eviction::Eviction,
}

impl Upkeep {
    /// Looks at the machine once: the first pods are judged by it.
    pub(crate) fn new(shared: &Shared) -> Upkeep {
        let mut eviction = eviction::Eviction::default();
        eviction.look(shared);
        Upkeep { images: images::Images::default(), eviction }
    }

    pub(crate) async fn run(mut self, shared: Arc<Shared>) {
        let mut ticks = tokio::time::interval(shared.config.upkeep_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stalls = MemoryStalls::watch();
        for round in 0u32.. {
            loop {
                tokio::select! {
                    _ = ticks.tick() => break,
                    () = stalls.next() => self.eviction.check(&shared, &mut self.images).await,
                }
            }
            logs::rotate_all(&shared).await;
            self.eviction.check(&shared, &mut self.images).await;
            if round % IMAGE_ROUNDS == 0 {
                self.images.collect(&shared).await;
                orphans::remove(&shared).await;
            }
        }
    }
}
