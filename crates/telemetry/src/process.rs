//! Figures of this process in Prometheus' text form, named as its client libraries name them.

use std::sync::{PoisonError, RwLock};

use crate::Source;

/// What the wiring adds to the process's own figures.
static SOURCES: RwLock<Vec<Source>> = RwLock::new(Vec::new());

/// Adds families to those that every component of this process tells as the process's own.
pub fn add_process_source(source: impl Fn() -> String + Send + Sync + 'static) {
    SOURCES.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
}

/// `/proc` counts CPU time in hundredths of a second (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time, memory, start and open files, and what was added; what cannot be read is left out.
pub fn process_metrics() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok());
    let files = std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    let sources = SOURCES.read().unwrap_or_else(PoisonError::into_inner);
    text(&stat, boot, files) + &build() + &sources.iter().map(|source| source()).collect::<String>()
}

/// The version that is served (component-base `metrics/prometheus/version`). What upstream tells of Go is told of
/// this binary's compiler.
fn build() -> String {
    let labels = [
        ("build_date", ""),
        ("compiler", "rustc"),
        ("git_commit", ""),
        ("git_tree_state", ""),
        ("git_version", "v1.36.2"),
        ("go_version", ""),
        ("major", "1"),
        ("minor", "36"),
        ("platform", "linux/amd64"),
    ];
    let about = ("kubernetes_build_info", "gauge", "The version that is served.");
    crate::family(about, [(labels, 1.0)])
}

fn text(stat: &str, boot: Option<f64>, files: Option<usize>) -> String {
    // The name, in brackets, may hold blanks; the third field comes after it.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |number: usize| -> Option<f64> {
        rest.split_whitespace().nth(number - 3).and_then(|n| n.parse().ok())
    };
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS_PER_SECOND);
    let start = field(22).zip(boot).map(|(ticks, boot)| boot + ticks / TICKS_PER_SECOND);
    let page = rustix::param::page_size() as f64;
    let figures = [
        (
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            cpu,
        ),
        ("process_open_fds", "gauge", "Number of open file descriptors.", files.map(|n| n as f64)),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory size in bytes.",
            field(24).map(|n| n * page),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            start,
        ),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", field(23)),
    ];
    let known = figures.into_iter().filter_map(|(name, kind, help, value)| {
        Some(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}\n", value?))
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn fields_are_counted_after_the_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 9 0 300 8192 2 x";
        let shown = text(stat, Some(1000.0), None);
        assert!(shown.contains("\nprocess_cpu_seconds_total 2\n"), "{shown}");
        assert!(shown.contains("\nprocess_start_time_seconds 1003\n"), "{shown}");
        assert!(shown.contains("\nprocess_virtual_memory_bytes 8192\n"), "{shown}");
        assert!(!shown.contains("open_fds"));
    }
}
