//! The queue on paused time.

use serde_json::json;

use super::*;
use crate::event::Action;
use crate::testing::pod;

/// A pod labelled `gate` is gated; everything else is helped by deletions if "Fit" rejected it.
struct Fake;

impl Hints for Fake {
    fn gate(&self, pod: &PodInfo) -> Option<&'static str> {
        pod.labels().is_some_and(|l| l.contains_key("gate")).then_some("Gates")
    }

    fn is_worth_requeuing(
        &self,
        _: &PodInfo,
        rejectors: &BTreeSet<&'static str>,
        event: &ClusterEvent,
    ) -> bool {
        rejectors.contains("Fit") && event.action == Action::DELETE
            || rejectors.contains("Gates") && event.action == Action::POD_LABEL
    }
}

fn queue() -> (Queue, Instant) {
    (Queue::new(Duration::from_secs(1), Duration::from_secs(10)), Instant::now())
}

fn gone() -> ClusterEvent {
    ClusterEvent::new(
        Action::DELETE,
        Object::Pod((Some(pod("gone", "1", json!({})).pod.clone()), None)),
    )
}

fn added() -> ClusterEvent {
    ClusterEvent::new(
        Action::ADD,
        Object::Pod((None, Some(pod("new", "1", json!({})).pod.clone()))),
    )
}

fn name(popped: Result<Arc<PodInfo>, Option<Instant>>) -> String {
    popped.map_or_else(|due| format!("{:?}", due.is_some()), |p| p.name().to_owned())
}

#[tokio::test(start_paused = true)]
async fn the_most_important_comes_first_and_then_the_oldest() {
    let (mut queue, now) = queue();
    let second = Duration::from_secs(1);
    queue.put(pod("old", "1", json!({})), &Fake, now);
    queue.put(pod("young", "1", json!({})), &Fake, now + second);
    let high = pod("high", "1", json!({"spec": {"priority": 9}}));
    queue.put(high, &Fake, now + second);
    let names: Vec<String> = (0..3).map(|_| name(queue.pop(&Fake, now + second))).collect();
    assert_eq!(names, ["high", "old", "young"]);
    assert_eq!(queue.pop(&Fake, now).unwrap_err(), None);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_helps_brings_a_pod_back_after_its_back_off() {
    let (mut queue, now) = queue();
    queue.put(pod("p", "1", json!({})), &Fake, now);
    assert_eq!(name(queue.pop(&Fake, now)), "p");
    queue.add_unschedulable("p", ["Fit"].into(), &Fake, now);
    queue.on_event(&added(), &Fake, now);
    // Nothing helps: only the flush is due, after five minutes.
    assert_eq!(queue.pop(&Fake, now).unwrap_err(), Some(now + UNSCHEDULABLE_MAX));
    queue.on_event(&gone(), &Fake, now);
    // Nobody else waits, so it need not wait for its back-off to pass.
    assert_eq!(name(queue.pop(&Fake, now)), "p");
    queue.add_unschedulable("p", ["Fit"].into(), &Fake, now);
    queue.on_event(&gone(), &Fake, now);
    queue.put(pod("other", "1", json!({})), &Fake, now);
    assert_eq!(name(queue.pop(&Fake, now)), "other", "the back-off counts while others wait");
}

#[tokio::test(start_paused = true)]
async fn errors_back_off_in_full_and_longer_each_time() {
    let (mut queue, mut now) = queue();
    let p = pod("p", "1", json!({}));
    queue.put(p.clone(), &Fake, now);
    for seconds in [1, 2, 4, 8, 10, 10] {
        assert_eq!(name(queue.pop(&Fake, now)), "p");
        queue.add_failed(p.clone(), &Fake, now);
        let due = now + Duration::from_secs(seconds);
        assert_eq!(queue.pop(&Fake, now).unwrap_err(), Some(due));
        now = due;
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_during_the_attempt_is_not_missed() {
    let (mut queue, now) = queue();
    queue.put(pod("p", "1", json!({})), &Fake, now);
    assert_eq!(name(queue.pop(&Fake, now)), "p");
    queue.on_event(&gone(), &Fake, now);
    queue.add_unschedulable("p", ["Fit"].into(), &Fake, now);
    assert_eq!(name(queue.pop(&Fake, now)), "p");
    queue.on_event(&added(), &Fake, now);
    queue.add_unschedulable("p", ["Fit"].into(), &Fake, now);
    assert!(queue.pop(&Fake, now).is_err(), "what does not help is no reason");
    assert!(queue.missed.is_empty() && queue.in_flight.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_waits_too_long_is_flushed() {
    let (mut queue, now) = queue();
    queue.put(pod("p", "1", json!({})), &Fake, now);
    assert_eq!(name(queue.pop(&Fake, now)), "p");
    queue.add_unschedulable("p", ["Fit"].into(), &Fake, now);
    let late = now + UNSCHEDULABLE_MAX;
    assert!(queue.pop(&Fake, late - Duration::from_millis(1)).is_err());
    assert_eq!(name(queue.pop(&Fake, late)), "p");
}

#[tokio::test(start_paused = true)]
async fn gated_pods_wait_for_their_gate_only() {
    let (mut queue, now) = queue();
    let gated = pod("p", "1", json!({"metadata": {"labels": {"gate": ""}}}));
    queue.put(gated, &Fake, now);
    queue.on_event(&gone(), &Fake, now);
    assert!(queue.pop(&Fake, now).is_err());
    let late = now + 3 * UNSCHEDULABLE_MAX;
    assert!(queue.pop(&Fake, late).is_err(), "the flush does not let it through");
    queue.put(pod("p", "1", json!({})), &Fake, late);
    assert_eq!(name(queue.pop(&Fake, late)), "p");
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_not_tried_while_its_victims_are_being_ended() {
    let (mut queue, now) = queue();
    queue.put(pod("p", "1", json!({})), &Fake, now);
    assert_eq!(name(queue.pop(&Fake, now)), "p");
    queue.start_preempting("p");
    queue.add_unschedulable("p", ["Fit"].into(), &Fake, now);
    queue.on_event(&gone(), &Fake, now);
    let later = now + Duration::from_secs(20);
    assert!(queue.pop(&Fake, later).is_err());
    queue.end_preempting("p", false, &Fake, later);
    assert_eq!(name(queue.pop(&Fake, later)), "p", "the event of the meantime counts");
    // A preemption that failed is tried again without an event.
    queue.start_preempting("p");
    queue.add_unschedulable("p", ["Fit"].into(), &Fake, later);
    queue.end_preempting("p", true, &Fake, later);
    assert_eq!(name(queue.pop(&Fake, later)), "p");
}
