//! Pressure stall information: how long work waits for CPU, memory and disk, as the kernel counts it.
//!
//! Beside the figures, the kernel tells at once when memory stalls: the node then looks for what is
//! short without waiting for its next round. A kernel without it (`CONFIG_PSI`) has neither.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Some task waited for memory for 150 ms of a second.
const TRIGGER: &[u8] = b"some 150000 1000000\0";
const MEMORY: &str = "/proc/pressure/memory";

/// The figures of one resource (`cpu`, `memory`, `io`), as `/stats/summary` shows them.
pub(crate) fn figures(resource: &str) -> Option<Value> {
    let text = std::fs::read_to_string(Path::new("/proc/pressure").join(resource)).ok()?;
    parse(&text)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and a line `full`.
fn parse(text: &str) -> Option<Value> {
    let line = |name: &str| {
        let fields = text.lines().find_map(|line| line.strip_prefix(name))?;
        let of = |key: &str| {
            fields.split_whitespace().find_map(|f| f.strip_prefix(key)?.strip_prefix('='))
        };
        let average = |key: &str| of(key)?.parse::<f64>().ok();
        Some(json!({
            "total": of("total")?.parse::<u64>().ok()?,
            "avg10": average("avg10")?, "avg60": average("avg60")?, "avg300": average("avg300")?,
        }))
    };
    Some(json!({"full": line("full ")?, "some": line("some ")?}))
}

/// Told by the kernel when memory stalls.
#[derive(Debug)]
pub(crate) struct MemoryStalls(Option<AsyncFd<std::fs::File>>);

impl MemoryStalls {
    pub(crate) fn watch() -> MemoryStalls {
        let watched = open(Path::new(MEMORY));
        if let Err(error) = &watched {
            tracing::debug!(%error, "memory stalls are not told; the node looks from time to time");
        }
        MemoryStalls(watched.ok())
    }

    /// Waits for the next stall; the kernel tells one a second at most.
    pub(crate) async fn next(&mut self) {
        let told = match &self.0 {
            Some(fd) => fd.ready(Interest::PRIORITY).await,
            None => return std::future::pending().await,
        };
        match told {
            Ok(mut guard) => guard.clear_ready(),
            Err(error) => {
                tracing::warn!(%error, "memory stalls are no longer told");
                self.0 = None;
            }
        }
    }
}

fn open(path: &Path) -> io::Result<AsyncFd<std::fs::File>> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    file.write_all(TRIGGER)?;
    // SAFETY: the descriptor is owned by what is registered, and so open for as long as it is.
    unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=1251631\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=479480\n";
        let found = parse(text).unwrap();
        assert_eq!(
            (&found["some"]["avg10"], &found["some"]["total"]),
            (&json!(1.5), &json!(1251631))
        );
        assert_eq!(found["full"]["total"], 479480);
        assert_eq!(parse("some avg10=1.50"), None);
        assert_eq!(parse(""), None);
    }

    #[tokio::test]
    async fn without_the_kernels_help_there_is_no_news() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(&dir.path().join("memory")).is_err());
        let mut never = MemoryStalls(None);
        let next = tokio::time::timeout(std::time::Duration::from_millis(1), never.next());
        assert!(next.await.is_err());
    }
}
