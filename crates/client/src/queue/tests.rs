//! The queue's promises, on paused time.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_key_added_twice_runs_once() {
    let queue = Queue::new();
    queue.add("a");
    queue.add("a");
    assert_eq!(queue.next().await, Some("a"));
    queue.done(&"a");
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_added_while_held_runs_again_but_not_at_once() {
    let queue = Queue::new();
    queue.add("a");
    assert_eq!(queue.next().await, Some("a"));
    queue.add("a");
    assert!(queue.is_empty());
    queue.done(&"a");
    assert_eq!(queue.next().await, Some("a"));
}

#[tokio::test(start_paused = true)]
async fn the_earlier_due_time_wins() {
    let queue = Queue::new();
    let start = Instant::now();
    queue.add_after("a", Duration::from_secs(10));
    queue.add_after("a", Duration::from_secs(2));
    queue.add_after("a", Duration::from_secs(5));
    queue.next().await;
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_sooner_key_overtakes_a_sleeping_worker() {
    let queue = Queue::new();
    queue.add_after("late", Duration::from_secs(60));
    let worker = tokio::spawn({
        let queue = queue.clone();
        async move { queue.next().await }
    });
    tokio::task::yield_now().await;
    queue.add("now");
    assert_eq!(worker.await.ok().flatten(), Some("now"));
}

#[tokio::test(start_paused = true)]
async fn backoff_doubles_and_is_forgotten() {
    let queue = Queue::new();
    let mut delays = Vec::new();
    for _ in 0..4 {
        let start = Instant::now();
        queue.add_backoff("a");
        queue.next().await;
        queue.done(&"a");
        delays.push(start.elapsed().as_millis());
    }
    assert_eq!(delays, [5, 10, 20, 40]);
    queue.forget(&"a");
    let start = Instant::now();
    queue.add_backoff("a");
    queue.next().await;
    assert_eq!(start.elapsed().as_millis(), 5);
}

#[tokio::test(start_paused = true)]
async fn closing_releases_every_worker() {
    let queue: Queue<&str> = Queue::new();
    let waiting =
        [queue.clone(), queue.clone()].map(|q| tokio::spawn(async move { q.next().await }));
    tokio::task::yield_now().await;
    queue.close();
    for worker in waiting {
        assert_eq!(worker.await.ok(), Some(None));
    }
}
