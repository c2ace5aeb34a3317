//! The span that a task works for.

use std::future::Future;
use std::sync::Arc;

use http::HeaderMap;

use crate::context::SpanContext;
use crate::span::{Active, Kind, Span, child};

tokio::task_local! {
    static CURRENT: Arc<Active>;
}

/// Works for the span; without one, for the one that the task works for already.
pub async fn within<F: Future>(span: Option<&Span>, work: F) -> F::Output {
    match span {
        None => work.await,
        // In a box, so that the rest of the world pays for a pointer.
        Some(span) => CURRENT.scope(span.active.clone(), Box::pin(work)).await,
    }
}

/// The span that the task works for.
pub fn current() -> Option<SpanContext> {
    CURRENT.try_with(|active| active.context.clone()).ok()
}

/// Begins a child of the task's span; nothing where there is none, or where it is not recorded.
pub fn start(name: &str, kind: Kind) -> Option<Span> {
    let begin = |active: &Arc<Active>| {
        let queue = active.queue.as_ref().filter(|_| active.context.sampled)?;
        Some(child(queue, &active.context, (name, kind)))
    };
    CURRENT.try_with(begin).ok().flatten()
}

/// Says in a request's headers that the task's span sends it.
pub fn inject(headers: &mut HeaderMap) {
    // Without a span nothing is written: what another sent is not ours to take out.
    CURRENT.try_with(|active| active.context.write(headers)).unwrap_or_default();
}
