//! Where events go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::batch::{self, Batching, Buffer, Deliver};
use crate::event::Event;
use crate::log::LogFile;
use crate::stage::Stage;
use crate::truncation::Truncation;

/// When a request waits for its event (`--audit-*-mode`).
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    /// Never: events are gathered.
    Batch(Batching),
    /// Until the event is told, or lost.
    Blocking,
    /// The same; a request whose first event is lost is refused.
    BlockingStrict,
}

/// One place that events go to.
pub enum Sink {
    Log {
        file: LogFile,
        mode: Mode,
        truncation: Option<Truncation>,
    },
    Webhook {
        to: Arc<dyn Deliver>,
        mode: Mode,
        truncation: Option<Truncation>,
        first_wait: Duration,
    },
}

enum Way {
    Log(Arc<LogFile>, Option<Truncation>),
    Webhook(Arc<dyn Deliver>, Option<Truncation>, Duration),
    Buffer(Buffer),
}

struct Place {
    way: Way,
    is_strict: bool,
}

/// Events that ended where nobody waits, before they are taken on.
const LATE_MAX: usize = 10_000;

/// All places, and what went wrong with them.
pub struct Sinks {
    places: Vec<Place>,
    late: mpsc::Sender<Event>,
    /// Events that were made, and those that one place or another did not get.
    counts: Arc<[AtomicU64; 2]>,
}

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sinks({})", self.places.len())
    }
}

type Work = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Sinks {
    /// The places, and the work that has to run beside requests.
    pub fn new(sinks: Vec<Sink>) -> (Arc<Sinks>, Vec<Work>) {
        let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let (late, mut exit) = mpsc::channel(LATE_MAX);
        let mut work: Vec<Work> = Vec::new();
        let places = sinks.into_iter().map(|sink| Place::new(sink, &counts, &mut work)).collect();
        let sinks = Arc::new(Sinks { places, late, counts });
        let own = Arc::downgrade(&sinks);
        work.push(Box::pin(async move {
            while let Some(event) = exit.recv().await {
                let Some(sinks) = own.upgrade() else { return };
                sinks.process(event).await;
            }
        }));
        (sinks, work)
    }

    /// Gives an event to every place. False when its request must not go on.
    pub(crate) async fn process(&self, event: Event) -> bool {
        self.counts[0].fetch_add(1, Ordering::Relaxed);
        let mut goes_on = true;
        for place in &self.places {
            if !place.way.take(event.clone()).await {
                self.counts[1].fetch_add(1, Ordering::Relaxed);
                goes_on &= !(place.is_strict && event.stage == Stage::RequestReceived);
            }
        }
        goes_on
    }

    pub(crate) fn process_later(&self, event: Event) {
        if self.late.try_send(event).is_err() {
            self.counts[1].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that were made, and those that were lost.
    pub fn counts(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.counts[0]), read(&self.counts[1]))
    }
}

impl Place {
    fn new(sink: Sink, counts: &Arc<[AtomicU64; 2]>, work: &mut Vec<Work>) -> Place {
        let (mode, direct) = match sink {
            Sink::Log { file, mode, truncation } => (mode, Way::Log(Arc::new(file), truncation)),
            Sink::Webhook { to, mode, truncation, first_wait } => {
                (mode, Way::Webhook(to, truncation, first_wait))
            }
        };
        let Mode::Batch(batching) = mode else {
            return Place { way: direct, is_strict: matches!(mode, Mode::BlockingStrict) };
        };
        let (direct, counts) = (Arc::new(direct), counts.clone());
        let (buffer, emptied) = Buffer::new(batching, move |events| {
            let (direct, counts) = (direct.clone(), counts.clone());
            async move {
                let lost = direct.take_all(events).await;
                counts[1].fetch_add(lost as u64, Ordering::Relaxed);
            }
        });
        work.push(Box::pin(emptied));
        Place { way: Way::Buffer(buffer), is_strict: false }
    }
}

impl Way {
    async fn take(&self, event: Event) -> bool {
        match self {
            Way::Buffer(buffer) => buffer.offer(event),
            other => other.take_all(vec![event]).await == 0,
        }
    }

    /// How many were lost.
    async fn take_all(&self, events: Vec<Event>) -> usize {
        match self {
            Way::Log(file, truncation) => {
                let written = |event| {
                    Truncation::cut(*truncation, event, Event::text)
                        .is_some_and(|line| write(file, &line))
                };
                events.into_iter().map(written).filter(|written| !written).count()
            }
            Way::Webhook(to, truncation, wait) => {
                batch::send_all(to.clone(), events, *truncation, *wait).await
            }
            Way::Buffer(buffer) => {
                events.into_iter().map(|event| buffer.offer(event)).filter(|taken| !taken).count()
            }
        }
    }
}

fn write(file: &LogFile, line: &str) -> bool {
    let written = file.write(line);
    if let Err(error) = &written {
        tracing::error!(%error, "an audit event was not written");
    }
    written.is_ok()
}
