//! Memory that requests may take together. Each reserves what it may need before it takes it, so
//! that many large ones wait for each other instead of exhausting the process.

use std::time::Duration;

use api::Status;
use api::limits::TREE_MAX;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::too_many;

/// Unit of reservations, so that a permit's count fits.
const UNIT: usize = 1024;

/// Bytes of bodies that are being read, all requests together.
const READING_MAX: usize = 96 * 1024 * 1024;
/// Bytes of a body that need no reservation: as many as every request in flight may have.
const READING_FREE: usize = 64 * 1024;

/// Bytes of trees that are worked on, all requests together, where memory allows it.
const TREES_MAX: usize = 16 * TREE_MAX;
/// Part of the memory limit that trees may take together: the rest is for what is stored, bodies,
/// responses and connections.
const TREES_PART: u64 = 2;

/// Bytes of answers that are made as a whole and not yet sent.
const UNSENT_MAX: usize = 128 * 1024 * 1024;
/// Shorter answers are not counted: they are as long as the request that they answer.
const UNSENT_FREE: usize = 16 * 1024;

#[derive(Debug)]
pub struct Room {
    reading: Semaphore,
    trees: Semaphore,
    /// Bytes of `trees` when nothing is taken.
    trees_max: usize,
    unsent: std::sync::Arc<Semaphore>,
    /// Longest wait for room.
    wait: Duration,
}

/// Room that is taken until this is dropped.
pub type Taken<'a> = Option<SemaphorePermit<'a>>;

/// The same, for as long as an answer is being sent.
pub(super) type Held = Option<tokio::sync::OwnedSemaphorePermit>;

impl Room {
    /// Room within `memory` bytes that the process may take; 0 is no limit.
    pub(super) fn new(wait: Duration, memory: u64) -> Room {
        let of = |bytes: usize| Semaphore::new(bytes / UNIT);
        let part = usize::try_from(memory / TREES_PART).unwrap_or(usize::MAX);
        let trees_max = if part == 0 { TREES_MAX } else { part.min(TREES_MAX) };
        Room {
            reading: of(READING_MAX),
            trees: of(trees_max),
            trees_max,
            unsent: std::sync::Arc::new(of(UNSENT_MAX)),
            wait,
        }
    }

    /// Room for `more` bytes of a body of which `read` are there.
    pub async fn reading(&self, read: usize, more: usize) -> Result<Taken<'_>, Status> {
        if read + more <= READING_FREE {
            return Ok(None);
        }
        self.take(&self.reading, more).await
    }

    /// Room for `bytes` of trees. Fails with 413 where they are more than all the room, 429 where none
    /// came free in time.
    pub async fn trees(&self, bytes: usize) -> Result<Taken<'_>, Status> {
        if bytes > self.trees_max {
            let (needed, limit) = (bytes >> 20, self.trees_max >> 20);
            let message = format!(
                "Request entity too large: the object may take {needed} MiB of memory, more than the {limit} MiB that the server's --memory-limit leaves for requests"
            );
            return Err(Status::failure(413, "RequestEntityTooLarge", message));
        }
        self.take(&self.trees, bytes).await
    }

    /// Room for `bytes` of trees of a request that must not be refused, but for all the room at most.
    pub async fn trees_up_to(&self, bytes: usize) -> Result<Taken<'_>, Status> {
        self.take(&self.trees, bytes.min(self.trees_max)).await
    }

    /// Room for an answer of `bytes`, until it is sent.
    pub async fn unsent(&self, bytes: usize) -> Result<Held, Status> {
        if bytes <= UNSENT_FREE {
            return Ok(None);
        }
        let units = units(bytes.min(UNSENT_MAX));
        let permit = self.unsent.clone().acquire_many_owned(units);
        match tokio::time::timeout(self.wait, permit).await {
            // The semaphore is never closed.
            Ok(permit) => Ok(permit.ok()),
            Err(_) => Err(too_many()),
        }
    }

    async fn take<'a>(&self, room: &'a Semaphore, bytes: usize) -> Result<Taken<'a>, Status> {
        match tokio::time::timeout(self.wait, room.acquire_many(units(bytes))).await {
            Ok(permit) => Ok(permit.ok()),
            Err(_) => Err(too_many()),
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_ones_wait_for_each_other() {
        let room = Room::new(Duration::from_secs(15), 400 << 20);
        let first = room.trees(100 << 20).await.expect("room");
        let second = room.trees(100 << 20).await.expect("room");
        assert_eq!(room.trees(1 << 20).await.expect_err("full").code, 429);
        drop(first);
        assert!(room.trees(100 << 20).await.is_ok());
        drop(second);
        assert_eq!(room.trees(201 << 20).await.expect_err("never").code, 413);
        assert!(room.trees_up_to(201 << 20).await.is_ok(), "reads and deletions");
        assert!(Room::new(Duration::ZERO, 0).trees(TREES_MAX).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn small_bodies_are_read_whatever_others_do() {
        let room = Room::new(Duration::from_secs(15), 0);
        let mut taken = Vec::new();
        for _ in 0..32 {
            taken.push(room.reading(0, 3 << 20).await.expect("room"));
        }
        assert_eq!(room.reading(0, 3 << 20).await.expect_err("full").code, 429);
        assert!(room.reading(0, 2048).await.is_ok());
    }
}
