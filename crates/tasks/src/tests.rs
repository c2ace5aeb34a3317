//! Restarts, health and cancellation, on paused time.

use std::sync::Mutex;

use super::*;

/// Counts starts, and fails as often as told.
fn fails(times: u64, how: fn()) -> (Arc<Mutex<Vec<Instant>>>, impl Fn() -> Work + Send) {
    let starts = Arc::new(Mutex::new(Vec::new()));
    let counted = starts.clone();
    let start = move || -> Work {
        let mut starts = counted.lock().expect("no panic here");
        starts.push(Instant::now());
        let fails = starts.len() as u64 <= times;
        drop(starts);
        Box::pin(async move {
            match fails {
                true => how(),
                false => std::future::pending().await,
            }
        })
    };
    (starts, start)
}

type Work = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn an_essential_task_that_panics_or_ends_is_started_again() {
    for how in [|| panic!("on purpose"), || ()] {
        let tasks = Tasks::new();
        let (starts, start) = fails(3, how);
        let begun = Instant::now();
        tasks.child().essential("loop", start);
        seconds(2).await;
        assert_eq!(tasks.health().failing(), ["loop"]);
        seconds(8).await;
        let at: Vec<u64> =
            starts.lock().expect("whole").iter().map(|at| (*at - begun).as_secs()).collect();
        assert_eq!(at, [0, 1, 3, 7], "with back-off");
        assert_eq!(tasks.health().failing(), ["loop"], "red until it has run for a while");
        seconds(30).await;
        assert!(tasks.health().failing().is_empty());
        tasks.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_is_ill_alone_and_ends_with_the_whole() {
    let tasks = Tasks::new();
    let (ill, well) = (tasks.part(), tasks.part());
    let (_, start) = fails(u64::MAX, || panic!("on purpose"));
    ill.essential("loop", start);
    well.required("work", std::future::pending());
    seconds(2).await;
    assert_eq!(ill.health().failing(), ["loop"]);
    assert!(well.health().failing().is_empty() && tasks.health().failing().is_empty());
    tasks.shutdown().await;
    assert!(ill.is_cancelled() && well.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_stays_ended_and_leaves_health_green() {
    let tasks = Tasks::new();
    let (starts, start) = fails(u64::MAX, || panic!("on purpose"));
    tasks.essential("loop", start);
    seconds(2).await;
    let shutdown = Instant::now();
    tasks.shutdown().await;
    assert_eq!(shutdown.elapsed(), Duration::ZERO, "the pause is cut short");
    let count = starts.lock().expect("whole").len();
    seconds(3600).await;
    assert_eq!(starts.lock().expect("whole").len(), count);
    assert!(tasks.health().failing().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_one_off_task_may_end() {
    let tasks = Tasks::new();
    tasks.spawn("once", async {});
    tasks.spawn("fails", async { panic!("on purpose") });
    seconds(1).await;
    assert!(tasks.health().failing().is_empty());
    tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_required_task_that_ends_is_told_for_good() {
    let tasks = Tasks::new();
    let term = tasks.child();
    term.required("panics", async { panic!("on purpose") });
    term.required("ends", async {});
    term.required("works", std::future::pending());
    seconds(3600).await;
    assert_eq!(tasks.health().failing(), ["ends", "panics"]);
    tasks.shutdown().await;
    assert_eq!(tasks.health().failing(), ["ends", "panics"], "cancelled is not failed");
}
