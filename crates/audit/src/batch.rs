//! Events in lists, one request each (apiserver `plugin/pkg/audit/buffered` and `webhook`).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;

use crate::event::Event;
use crate::truncation::Truncation;

/// How events are gathered (`--audit-*-batch-*`).
#[derive(Debug, Clone, Copy)]
pub struct Batching {
    /// Events that wait at most; more are lost, and counted.
    pub buffer: usize,
    /// Events of a list at most.
    pub size: usize,
    /// Longest wait for a list to fill.
    pub wait: Duration,
    /// Lists a second, and how many at once; none without a throttle.
    pub throttle: Option<(f64, u32)>,
}

impl Batching {
    /// Upstream's defaults for webhooks.
    pub const WEBHOOK: Batching = Batching {
        buffer: 10_000,
        size: 400,
        wait: Duration::from_secs(30),
        throttle: Some((10.0, 15)),
    };
    /// Upstream's defaults for files.
    pub const LOG: Batching =
        Batching { buffer: 10_000, size: 1, wait: Duration::ZERO, throttle: None };
}

/// Takes lists of events elsewhere.
pub trait Deliver: Send + Sync {
    /// Sends an `EventList`, or says why that failed.
    fn deliver(
        &self,
        list: String,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;
}

/// First wait before an attempt is repeated grows by half each time (upstream's webhook back-off).
const ATTEMPTS: u32 = 5;
const GROWTH: f64 = 1.5;

/// Sends events, and sends them again when that failed. False when they are lost.
pub(crate) async fn send(to: &dyn Deliver, events: &[String], first_wait: Duration) -> bool {
    let items = events.join(",");
    let head = r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
    let list = format!("{head}{items}]}}");
    let mut wait = first_wait;
    for attempt in 1..=ATTEMPTS {
        match to.deliver(list.clone()).await {
            Ok(()) => return true,
            Err(why) if attempt == ATTEMPTS => {
                tracing::error!(why, events = events.len(), "audit events are lost");
            }
            Err(why) => {
                tracing::warn!(why, attempt, "audit events could not be sent");
                tokio::time::sleep(wait).await;
                wait = wait.mul_f64(GROWTH);
            }
        }
    }
    false
}

/// The entrance of a buffer.
#[derive(Debug)]
pub(crate) struct Buffer {
    entrance: Sender<Event>,
}

impl Buffer {
    /// A buffer, and what empties it: run it until the process ends.
    pub(crate) fn new<F>(
        batching: Batching,
        take: impl Fn(Vec<Event>) -> F + Send + 'static,
    ) -> (Buffer, impl Future<Output = ()> + Send)
    where
        F: Future<Output = ()> + Send,
    {
        let (entrance, exit) = channel(batching.buffer.max(1));
        (Buffer { entrance }, drain(exit, batching, take))
    }

    /// False when the buffer is full: the event is lost.
    pub(crate) fn offer(&self, event: Event) -> bool {
        self.entrance.try_send(event).is_ok()
    }
}

async fn drain<F: Future<Output = ()> + Send>(
    mut exit: Receiver<Event>,
    batching: Batching,
    take: impl Fn(Vec<Event>) -> F + Send,
) {
    let mut throttle = batching.throttle.map(Throttle::new);
    while let Some(first) = exit.recv().await {
        let list = gather(first, &mut exit, &batching).await;
        if let Some(throttle) = &mut throttle {
            throttle.pass().await;
        }
        take(list).await;
    }
}

/// Takes what comes until the list is full or the time is over.
async fn gather(first: Event, exit: &mut Receiver<Event>, batching: &Batching) -> Vec<Event> {
    let mut list = vec![first];
    let end = Instant::now() + batching.wait;
    while list.len() < batching.size {
        match tokio::time::timeout_at(end, exit.recv()).await {
            Ok(Some(event)) => list.push(event),
            Ok(None) | Err(_) => break,
        }
    }
    list
}

/// A bucket of tokens.
struct Throttle {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Throttle {
    fn new((rate, burst): (f64, u32)) -> Throttle {
        let burst = f64::from(burst.max(1));
        Throttle { rate: rate.max(0.001), burst, tokens: burst, at: Instant::now() }
    }

    async fn pass(&mut self) {
        let now = Instant::now();
        let gained = now.duration_since(self.at).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(self.burst) - 1.0;
        self.at = now;
        if self.tokens < 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(-self.tokens / self.rate)).await;
        }
    }
}

/// The items of a list that are not too large.
pub(crate) fn items(events: Vec<Event>, truncation: Option<Truncation>) -> Vec<Vec<String>> {
    let fitting =
        events.into_iter().filter_map(|event| Truncation::cut(truncation, event, Event::item));
    let mut lists: Vec<Vec<String>> = Vec::new();
    let (mut size, max) = (0, truncation.map_or(usize::MAX, |t| t.max_batch));
    for item in fitting {
        size += item.len();
        match lists.last_mut().filter(|_| size <= max) {
            Some(list) => list.push(item),
            None => {
                size = item.len();
                lists.push(vec![item]);
            }
        }
    }
    lists
}

/// Sends events, list by list. How many were lost.
pub(crate) async fn send_all(
    to: Arc<dyn Deliver>,
    events: Vec<Event>,
    truncation: Option<Truncation>,
    first_wait: Duration,
) -> usize {
    let all = events.len();
    let lists = items(events, truncation);
    let mut lost = all - lists.iter().map(Vec::len).sum::<usize>();
    for list in lists {
        if !send(&*to, &list, first_wait).await {
            lost += list.len();
        }
    }
    lost
}
