//! Listening where a process listened that was killed a moment ago.

use std::io::{ErrorKind, Result};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// The kernel closes a killed process' sockets some time after it has let go of its locks and memory.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Binds a socket. An address in use is tried again for a second.
///
/// # Errors
/// What `bind(2)` says, at last.
pub async fn bind(at: SocketAddr) -> Result<TcpListener> {
    let start = Instant::now();
    loop {
        match TcpListener::bind(at).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && start.elapsed() < PATIENCE => {
                sleep(LOOK).await;
            }
            bound => return bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let at = listener.local_addr().expect("an address");
        (listener, at)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_closed_meanwhile_is_bound() {
        let (other, at) = taken().await;
        let closed = async {
            sleep(PATIENCE / 2).await;
            drop(other);
        };
        let (bound, ()) = tokio::join!(bind(at), closed);
        assert_eq!(bound.expect("bound").local_addr().expect("an address"), at);
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_in_use_is_refused() {
        let (_other, at) = taken().await;
        assert_eq!(bind(at).await.expect_err("in use").kind(), ErrorKind::AddrInUse);
    }
}
