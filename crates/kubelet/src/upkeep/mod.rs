//! What a node does for itself: rotates logs, removes images, ends pods when it is short.
//!
//! These look at the machine, which tells nothing by itself, so they are timed. With no pressure a
//! round costs a `stat` for each running container's log.

mod eviction;
mod images;
mod limits;
mod logs;

use std::sync::Arc;

use crate::kubelet::Shared;

/// Rounds between two looks at images without pressure: five minutes, as in the original.
const IMAGE_ROUNDS: u32 = 30;

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(shared.config.upkeep_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut images, mut eviction) = (images::Images::default(), eviction::Eviction::default());
    for round in 0u32.. {
        ticks.tick().await;
        logs::rotate_all(&shared).await;
        limits::check(&shared).await;
        eviction.check(&shared, &mut images).await;
        if round % IMAGE_ROUNDS == 0 {
            images.collect(&shared).await;
        }
    }
}
