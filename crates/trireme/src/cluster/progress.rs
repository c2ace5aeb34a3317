//! What `up` tells while it works: one line a step, with its time.

use std::time::Instant;

/// Prints a line. A reader that has left, as `up -d` does once the cluster is ready, is no fault.
pub(crate) fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap_or_default();
}

/// Prints steps as they end.
pub(crate) struct Progress {
    start: Instant,
    last: Instant,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        let now = Instant::now();
        Progress { start: now, last: now }
    }

    /// A step that is done.
    pub(crate) fn step(&mut self, what: &str) {
        let now = Instant::now();
        say(&format!("  {:>6.0} ms  {what}", (now - self.last).as_secs_f64() * 1000.0));
        self.last = now;
    }

    /// Seconds since the beginning.
    pub(crate) fn total(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}
