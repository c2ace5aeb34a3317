//! The connections of a server: how many there may be, and which of them goes when another one comes.
//!
//! Clients of gRPC keep connections that they do not use; some never close them. A connection without a call
//! that is open is asked to end (GOAWAY) when its place is wanted: its client connects again with its next call.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// One connection.
#[derive(Debug)]
pub(super) struct Seat {
    calls: AtomicUsize,
    /// Since when there has been no call.
    idle_since: Mutex<Instant>,
    leave: Notify,
    /// A call of any connection has ended.
    ended: Arc<Notify>,
}

/// A call that is open.
#[derive(Debug)]
pub(super) struct Call(Arc<Seat>);

impl Seat {
    fn new(ended: Arc<Notify>) -> Seat {
        let (calls, leave) = (AtomicUsize::new(0), Notify::new());
        Seat { calls, idle_since: Mutex::new(Instant::now()), leave, ended }
    }

    /// A connection that no one counts.
    pub(super) fn alone() -> Arc<Seat> {
        Arc::new(Seat::new(Arc::default()))
    }

    pub(super) fn call(self: &Arc<Self>) -> Call {
        self.calls.fetch_add(1, Ordering::AcqRel);
        Call(self.clone())
    }

    /// Resolves when the connection is to end.
    pub(super) async fn leaves(&self) {
        self.leave.notified().await;
    }

    fn idle(&self) -> MutexGuard<'_, Instant> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        *self.0.idle() = Instant::now();
        if self.0.calls.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_one();
        }
    }
}

/// All connections of one server.
#[derive(Debug)]
pub(super) struct Seats {
    free: Arc<Semaphore>,
    taken: Mutex<Vec<Arc<Seat>>>,
    ended: Arc<Notify>,
}

/// A connection's place; given back when it is dropped.
pub(super) struct Place {
    pub(super) seat: Arc<Seat>,
    seats: Arc<Seats>,
    _free: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seats.taken().retain(|seat| !Arc::ptr_eq(seat, &self.seat));
    }
}

impl Seats {
    pub(super) fn new(count: usize) -> Arc<Seats> {
        let free = Arc::new(Semaphore::new(count));
        Arc::new(Seats { free, taken: Mutex::default(), ended: Arc::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Arc<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection; when all are taken, the longest idle one is asked to end.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        let free = loop {
            if let Ok(free) = self.free.clone().try_acquire_owned() {
                break free;
            }
            let ended = self.ended.notified();
            self.ask_longest_idle();
            tokio::select! {
                // The semaphore is never closed.
                Ok(free) = self.free.clone().acquire_owned() => break free,
                () = ended => {}
            }
        };
        let seat = Arc::new(Seat::new(self.ended.clone()));
        self.taken().push(seat.clone());
        Place { seat, seats: self.clone(), _free: free }
    }

    fn ask_longest_idle(&self) {
        let taken = self.taken();
        let idle = taken.iter().filter(|seat| seat.calls.load(Ordering::Acquire) == 0);
        if let Some(seat) = idle.min_by_key(|seat| *seat.idle()) {
            seat.leave.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::Seats;

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_gives_way() {
        let seats = Seats::new(2);
        let first = seats.take().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = seats.take().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        // The first is used after the second came: the second is idle for longer.
        drop(first.seat.call());
        let waiting = tokio::spawn({
            let seats: Arc<Seats> = seats.clone();
            async move { seats.take().await }
        });
        second.seat.leaves().await;
        assert!(first.seat.leaves().now_or_never().is_none());
        drop(second);
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_a_call_stays_until_the_call_ends() {
        let seats = Seats::new(1);
        let busy = seats.take().await;
        let call = busy.seat.call();
        let mut waiting = std::pin::pin!(seats.take());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(busy.seat.leaves().now_or_never().is_none());
        drop(call);
        assert!(waiting.as_mut().now_or_never().is_none());
        busy.seat.leaves().await;
        drop(busy);
        waiting.await;
    }
}
