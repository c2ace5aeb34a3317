//! Compaction of etcd's history, agreed on with the other servers as upstream does.
//!
//! A key counts compactions by its version. Who raises it from the version it knows compacts to
//! where etcd was when it last looked; the others learn the version by failing, and try again an
//! interval later. So history is kept for one interval at least and two at most.

use std::sync::Arc;

use super::Link;
use super::grpc::CallError;

/// Upstream's key; it lies outside any prefix.
const KEY: &str = "compact_rev_key";

/// What one server knows of the agreement.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    version: i64,
    /// etcd's revision when it last looked; 0 before.
    revision: u64,
}

impl Link {
    pub(super) async fn compact_regularly(self: Arc<Self>) {
        if self.compaction_interval.is_zero() {
            return;
        }
        let mut known = Known::default();
        loop {
            tokio::time::sleep(self.compaction_interval).await;
            match self.compact(known).await {
                Ok(now) => known = now,
                Err(error) => tracing::warn!(%error, "etcd was not compacted"),
            }
        }
    }

    async fn compact(&self, known: Known) -> Result<Known, CallError> {
        let value = known.revision.to_string();
        let (put, version, revision) =
            self.channel.put_if_version(KEY, known.version, value).await?;
        if put && known.revision > 0 {
            self.channel.compact(known.revision).await?;
        }
        Ok(Known { version, revision })
    }
}
