//! A health check that the wiring adds to the server's own.

use std::future::Future;
use std::pin::Pin;

/// A check of something that the server does not know.
pub trait HealthCheck: Send + Sync {
    /// Its name in paths and answers.
    fn name(&self) -> &'static str;

    /// Why it fails, if it does. Has a deadline of its own.
    fn check(&self) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;
}
