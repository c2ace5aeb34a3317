//! GET with `watch`: the state when asked for, then every change after it.

use std::sync::Arc;
use std::time::Duration;

use api::registry::Resource;
use api::{Object, Status};
use store::{Collection, Event, Watcher};
use tokio_util::sync::CancellationToken;

use super::Answer;
use super::list::Filter;
use super::options::Position;
use crate::call::Call;
use crate::metrics::Sent;
use strategy::ResourceStrategy;

/// Between bookmarks of a quiet watch (upstream sends one about every minute).
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);

/// A watch that is about to stream.
pub struct Watching {
    row: &'static Resource,
    filter: Filter,
    prefix: String,
    /// States to send first.
    initial: Vec<Arc<Object>>,
    /// Send a bookmark that says so when the initial states are through.
    mark_initial: bool,
    initial_revision: u64,
    watcher: Watcher,
    /// Converts what is seen, where objects are selected in the form of the request's version.
    converts: Option<Arc<dyn ResourceStrategy>>,
    /// Cancelled when the resource is no longer served as it is now.
    retired: CancellationToken,
    bookmarks: bool,
    pub timeout: Duration,
    /// Counts what is sent.
    pub sent: Option<Sent>,
}

impl std::fmt::Debug for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watching({})", self.row.name)
    }
}

/// One change as the client sees it.
#[derive(Debug, Clone)]
pub enum Change {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    Deleted(Arc<Object>),
    /// Everything up to this revision was delivered; `true` ends the initial states.
    Bookmark(u64, bool),
}

pub fn watch(call: &Call<'_>) -> Result<Answer, Status> {
    let collection = call.resources.collection(call.row);
    let mut filter = Filter::of(call)?;
    if !call.context.info.name.is_empty() {
        let field = format!("metadata.name={}", call.context.info.name);
        filter = Filter::parse("", &field, call.row).map_err(Status::bad_request)?;
    }
    let (initial, mark_initial, from) = starting_point(call, &collection, &filter)?;
    let watcher = collection.watch(from).map_err(|e| Status::gone(e.to_string()))?;
    let timeout = match call.context.query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds as u64),
        // Watches that began together do not all come back together.
        _ => {
            let part = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0;
            call.resources.settings.watch_min.mul_f64(1.0 + part)
        }
    };
    Ok(Answer::Watch(Watching {
        row: call.row,
        prefix: filter.prefix(call),
        filter,
        initial,
        mark_initial,
        initial_revision: from,
        watcher,
        converts: call.strategy.selects_in_version().then(|| call.strategy.clone()),
        retired: call.strategy.retired(),
        bookmarks: call.context.query.flag("allowWatchBookmarks"),
        timeout,
        sent: None,
    }))
}

/// Initial states, whether their end is marked, and the revision to continue from.
fn starting_point(
    call: &Call<'_>,
    collection: &Arc<Collection>,
    filter: &Filter,
) -> Result<(Vec<Arc<Object>>, bool, u64), Status> {
    let (revision, send_initial) = Position::of_watch(call.context.query, collection.revision())?;
    // An unset or zero revision means: the present state first, as synthetic additions.
    let initial = send_initial.unwrap_or(revision == 0);
    if !initial {
        return Ok((Vec::new(), false, revision));
    }
    let prefix = filter.prefix(call);
    let page = collection
        .list_by(filter.indexed(), (&prefix, None), 0, usize::MAX, &|o| filter.matches(o));
    let page = page.map_err(|e| Status::gone(e.to_string()))?;
    let mark = send_initial == Some(true) && call.context.query.flag("allowWatchBookmarks");
    Ok((page.objects, mark, page.revision))
}

impl Watching {
    /// The next changes, a bookmark when there are none for long; nothing when the watch is over.
    /// An error is its last event. What is dropped before it is through is lost.
    pub async fn next(&mut self) -> Result<Vec<Change>, Status> {
        if !self.initial.is_empty() || self.mark_initial {
            let initial = self.present().await?;
            let mut changes: Vec<Change> = initial.into_iter().map(Change::Added).collect();
            if std::mem::take(&mut self.mark_initial) {
                changes.push(Change::Bookmark(self.initial_revision, true));
            }
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
        let period = if self.bookmarks { BOOKMARK_PERIOD } else { BOOKMARK_PERIOD * 1000 };
        let due = tokio::time::Instant::now() + period;
        loop {
            let events = tokio::select! {
                // What has happened is told before the end, and a bookmark in spite of what is not.
                biased;
                () = tokio::time::sleep_until(due) => return Ok(vec![self.bookmark()]),
                events = self.watcher.next() => events,
                () = self.retired.cancelled() => return Ok(Vec::new()),
            };
            let events = events.map_err(|e| Status::gone(e.to_string()))?;
            let changes = match self.converts.clone() {
                Some(strategy) => self.converted(&*strategy, &events).await?,
                None => events.iter().filter_map(|e| self.seen(e)).collect(),
            };
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    /// The initial states that are selected.
    async fn present(&mut self) -> Result<Vec<Arc<Object>>, Status> {
        let initial = std::mem::take(&mut self.initial);
        let Some(strategy) = &self.converts else { return Ok(initial) };
        let mut shown = strategy.read_watched(initial).await?;
        shown.retain(|object| self.filter.selects(object));
        Ok(shown)
    }

    /// Changes as they are in the version that is watched. A conversion that fails ends the watch,
    /// as it ends those of upstream's cache; the client begins again, with a list.
    async fn converted(
        &self,
        strategy: &dyn ResourceStrategy,
        events: &[Event],
    ) -> Result<Vec<Change>, Status> {
        let here: Vec<&Event> = events.iter().filter(|e| e.key.starts_with(&self.prefix)).collect();
        // A former state is needed to tell whether it was selected, and as what was deleted.
        let all = !self.filter.is_plain();
        let former = |e: &Event| e.old.clone().filter(|_| all || e.new.is_none());
        let stored: Vec<Arc<Object>> =
            here.iter().flat_map(|e| former(e).into_iter().chain(e.new.clone())).collect();
        let shown = strategy.read_watched(stored).await?;
        let mut shown = shown.into_iter();
        let changes = here.into_iter().filter_map(|event| {
            let before = former(event).and_then(|_| shown.next());
            let after = event.new.as_ref().and_then(|_| shown.next());
            // Without a selector, what was there was seen.
            let known = before.as_ref().map_or(event.old.is_some(), |o| self.filter.selects(o));
            let after = after.filter(|o| self.filter.selects(o));
            match (known, after, before) {
                (false, Some(new), _) => Some(Change::Added(new)),
                (true, Some(new), _) => Some(Change::Modified(new)),
                (true, None, Some(old)) => Some(Change::Deleted(Arc::new(old.at(event.revision)))),
                _ => None,
            }
        });
        Ok(changes.collect())
    }

    /// A bookmark of how far this watch has come.
    fn bookmark(&mut self) -> Change {
        Change::Bookmark(self.watcher.progress(), false)
    }

    /// What an event is to a client that sees only what its selector matches.
    fn seen(&self, event: &Event) -> Option<Change> {
        if !event.key.starts_with(&self.prefix) {
            return None;
        }
        let before = event.old.as_ref().filter(|o| self.filter.matches(o));
        let after = event.new.as_ref().filter(|o| self.filter.matches(o));
        match (before, after) {
            (None, Some(new)) => Some(Change::Added(new.clone())),
            (Some(_), Some(new)) => Some(Change::Modified(new.clone())),
            (Some(old), None) => Some(Change::Deleted(Arc::new(old.at(event.revision)))),
            (None, None) => None,
        }
    }
}
