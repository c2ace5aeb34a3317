//! How often the API may be asked (upstream's `DefaultQPS` and `DefaultBurstTokens`).

use std::sync::{Mutex, PoisonError};

use grpc::Code;
use grpc::server::Status;
use tokio::time::Instant;

/// Requests a second.
const RATE: f64 = 100.0;
/// Requests at once.
const BURST: f64 = 10.0;

/// A bucket of tokens.
pub(super) struct Limit(Mutex<(f64, Instant)>);

impl Default for Limit {
    fn default() -> Limit {
        Limit(Mutex::new((BURST, Instant::now())))
    }
}

impl Limit {
    /// Takes a token, if there is one.
    pub(super) fn take(&self) -> Result<(), Status> {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let filled = bucket.0 + (now - bucket.1).as_secs_f64() * RATE;
        *bucket = (filled.min(BURST), now);
        if bucket.0 < 1.0 {
            return Err(Status::new(Code::ResourceExhausted, "rejected by rate limit"));
        }
        bucket.0 -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_at_once_and_a_hundred_a_second() {
        let limit = Limit::default();
        let taken = |limit: &Limit| (0..20).filter(|_| limit.take().is_ok()).count();
        assert_eq!(taken(&limit), 10);
        assert_eq!(limit.take().unwrap_err().message, "rejected by rate limit");
        tokio::time::advance(Duration::from_millis(35)).await;
        assert_eq!(taken(&limit), 3);
    }
}
