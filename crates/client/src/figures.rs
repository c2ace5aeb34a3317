//! Figures of clients, under upstream's names: requests over HTTPS, work queues, leader election
//! (component-base `metrics/prometheus/{restclient,workqueue,clientgo/leaderelection}`).
//!
//! They are the process's, whichever of its parts counted: a queue is known by the name of its workers.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;

use telemetry::{HistogramVec, IntCounterVec, IntGaugeVec, Registry, exponential, family};

/// Upper bounds of requests, in seconds (upstream's).
const REQUEST_BOUNDS: [f64; 13] =
    [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 45.0, 60.0];

struct Families {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    leading: IntGaugeVec,
    waits: HistogramVec,
    work: HistogramVec,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let registry = Registry::default();
    let bounds = exponential(10e-9, 10.0, 10);
    Families {
        requests: registry.counters(
            "rest_client_requests_total",
            "Number of HTTP requests, partitioned by status code, method, and host.",
            &["code", "method", "host"],
        ),
        durations: registry.histograms(
            "rest_client_request_duration_seconds",
            "Request latency in seconds. Broken down by verb, and host.",
            &["verb", "host"],
            &REQUEST_BOUNDS,
        ),
        leading: registry.gauges(
            "leader_election_master_status",
            "Whether this process holds the lease of this name: 1, or 0 when it stands by.",
            &["name"],
        ),
        waits: registry.histograms(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested.",
            &["name"],
            &bounds,
        ),
        work: registry.histograms(
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes.",
            &["name"],
            &bounds,
        ),
        registry,
    }
});

/// All figures, in Prometheus' text form.
pub fn figures() -> String {
    FAMILIES.registry.families() + &queues()
}

/// Counts an answer of the API server, or `<error>` when there is none.
pub(crate) fn requested(code: Option<u16>, method: &str, host: &str, took: Duration) {
    let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
    FAMILIES.requests.with_label_values(&[code.as_str(), method, host]).inc();
    FAMILIES.durations.with_label_values(&[method, host]).observe(took.as_secs_f64());
}

/// Tells whether this process holds a lease.
pub(crate) fn leading(lease: &str, holds: bool) {
    FAMILIES.leading.with_label_values(&[lease]).set(holds.into());
}

/// A key was taken after it had been due for a while.
pub(crate) fn taken(queue: &str, waited: Duration) {
    FAMILIES.waits.with_label_values(&[queue]).observe(waited.as_secs_f64());
}

/// A key was worked on.
pub(crate) fn worked(queue: &str, took: Duration) {
    FAMILIES.work.with_label_values(&[queue]).observe(took.as_secs_f64());
}

/// The state of one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct QueueState {
    /// Keys that are due.
    pub(crate) depth: usize,
    pub(crate) adds: u64,
    pub(crate) retries: u64,
    /// How long the keys that are worked on have been, together and at most.
    pub(crate) unfinished: Duration,
    pub(crate) longest: Duration,
}

/// A queue that is asked when figures are.
pub(crate) trait Figured: Send + Sync {
    fn state(&self) -> QueueState;
}

static QUEUES: Mutex<Vec<(String, Weak<dyn Figured>)>> = Mutex::new(Vec::new());

/// From now on a queue is told under this name.
pub(crate) fn name_queue(name: &str, queue: Weak<dyn Figured>) {
    let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
    queues.retain(|(_, known)| known.strong_count() > 0);
    queues.push((name.to_owned(), queue));
}

/// Queues of one name are told together: a name's workers may have been started again.
fn queues() -> String {
    let mut states: BTreeMap<String, QueueState> = BTreeMap::new();
    for (name, queue) in QUEUES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let Some(queue) = queue.upgrade() else { continue };
        let one = queue.state();
        let all = states.entry(name.clone()).or_default();
        all.depth += one.depth;
        all.adds += one.adds;
        all.retries += one.retries;
        all.unfinished += one.unfinished;
        all.longest = all.longest.max(one.longest);
    }
    let told = |name, kind, help, figure: fn(&QueueState) -> f64| {
        let figures =
            states.iter().map(|(queue, state)| ([("name", queue.as_str())], figure(state)));
        family((name, kind, help), figures)
    };
    [
        told("workqueue_depth", "gauge", "Current depth of workqueue", |s| s.depth as f64),
        told("workqueue_adds_total", "counter", "Total number of adds handled by workqueue", |s| {
            s.adds as f64
        }),
        told(
            "workqueue_retries_total",
            "counter",
            "Total number of retries handled by workqueue",
            |s| s.retries as f64,
        ),
        told(
            "workqueue_unfinished_work_seconds",
            "gauge",
            "How many seconds the items have been worked on that are not finished, together.",
            |s| s.unfinished.as_secs_f64(),
        ),
        told(
            "workqueue_longest_running_processor_seconds",
            "gauge",
            "How many seconds the item has been worked on that was begun first.",
            |s| s.longest.as_secs_f64(),
        ),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::queue::Queue;
    use crate::worker::{Action, run_workers};

    #[tokio::test(start_paused = true)]
    async fn queues_are_told_by_the_name_of_their_workers() {
        let queue = Queue::new();
        for key in ["a", "b", "a"] {
            queue.add(key);
        }
        let name = "figures-test";
        let (closing, first) = (queue.clone(), std::sync::atomic::AtomicBool::new(true));
        let reconcile = |key: &'static str| {
            let fails = key == "a" && first.swap(false, std::sync::atomic::Ordering::Relaxed);
            let closing = closing.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                match (key, fails) {
                    ("a", true) => return Err("once"),
                    ("a", false) => closing.close(),
                    _ => {
                        let text = super::figures();
                        let line = "workqueue_longest_running_processor_seconds{name=\"figures-test\"} 0.02\n";
                        assert!(text.contains(line), "{text}");
                    }
                }
                Ok(Action::Done)
            }
        };
        run_workers(name, queue.clone(), 1, reconcile).await;
        let text = super::figures();
        for line in [
            "workqueue_depth{name=\"figures-test\"} 0\n",
            "workqueue_adds_total{name=\"figures-test\"} 3\n",
            "workqueue_retries_total{name=\"figures-test\"} 1\n",
            "workqueue_work_duration_seconds_count{name=\"figures-test\"} 3\n",
            "workqueue_queue_duration_seconds_count{name=\"figures-test\"} 3\n",
            "workqueue_unfinished_work_seconds{name=\"figures-test\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop((queue, closing));
        assert!(!super::figures().contains("workqueue_depth{name=\"figures-test\"}"), "it is gone");
    }

    #[test]
    fn requests_and_leases_are_counted() {
        super::requested(Some(429), "GET", "figures-test:6443", Duration::from_millis(3));
        super::requested(None, "GET", "figures-test:6443", Duration::from_secs(1));
        super::leading("figures-lease", true);
        super::leading("figures-lease", false);
        let text = super::figures();
        for line in [
            "rest_client_requests_total{code=\"429\",host=\"figures-test:6443\",method=\"GET\"} 1\n",
            "rest_client_requests_total{code=\"<error>\",host=\"figures-test:6443\",method=\"GET\"} 1\n",
            "rest_client_request_duration_seconds_count{host=\"figures-test:6443\",verb=\"GET\"} 2\n",
            "leader_election_master_status{name=\"figures-lease\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
