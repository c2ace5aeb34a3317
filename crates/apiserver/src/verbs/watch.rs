//! GET with `watch`: the state when asked for, then every change after it.

use std::sync::Arc;
use std::time::Duration;

use api::registry::Resource;
use api::{Object, Status};
use store::{Collection, Event, Expired, Watcher};

use super::Answer;
use super::list::Filter;
use super::options::Position;
use crate::call::Call;

/// A watch that is about to stream.
pub(crate) struct Watching {
    row: &'static Resource,
    filter: Filter,
    prefix: String,
    /// States to send first.
    initial: Vec<Arc<Object>>,
    /// Send a bookmark that says so when the initial states are through.
    mark_initial: bool,
    initial_revision: u64,
    watcher: Watcher,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Duration,
}

impl std::fmt::Debug for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watching({})", self.row.name)
    }
}

/// One change as the client sees it.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    Deleted(Arc<Object>),
    /// Everything up to this revision was delivered; `true` ends the initial states.
    Bookmark(u64, bool),
}

pub(crate) fn watch(call: &Call<'_>) -> Result<Answer, Status> {
    let collection = call.server.collection(call.row);
    let mut filter = Filter::of(call)?;
    if !call.info.name.is_empty() {
        let field = format!("metadata.name={}", call.info.name);
        filter = Filter::parse("", &field, call.row).map_err(Status::bad_request)?;
    }
    let (initial, mark_initial, from) = starting_point(call, &collection, &filter)?;
    let watcher = collection.watch(from).map_err(|e| Status::gone(e.to_string()))?;
    let timeout = match call.query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds as u64),
        // Watches that began together do not all come back together.
        _ => {
            let part = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0;
            call.server.config.limits.watch_min.mul_f64(1.0 + part)
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
        bookmarks: call.query.flag("allowWatchBookmarks"),
        timeout,
    }))
}

/// Initial states, whether their end is marked, and the revision to continue from.
fn starting_point(
    call: &Call<'_>,
    collection: &Arc<Collection>,
    filter: &Filter,
) -> Result<(Vec<Arc<Object>>, bool, u64), Status> {
    let (revision, send_initial) = Position::of_watch(call.query, collection.revision())?;
    // An unset or zero revision means: the present state first, as synthetic additions.
    let initial = send_initial.unwrap_or(revision == 0);
    if !initial {
        return Ok((Vec::new(), false, revision));
    }
    let prefix = filter.prefix(call);
    let page = collection.list(&prefix, None, 0, usize::MAX, &|o| filter.matches(o));
    let page = page.map_err(|e| Status::gone(e.to_string()))?;
    let mark = send_initial == Some(true) && call.query.flag("allowWatchBookmarks");
    Ok((page.objects, mark, page.revision))
}

impl Watching {
    /// The next changes; never empty.
    pub(crate) async fn next(&mut self) -> Result<Vec<Change>, Expired> {
        if !self.initial.is_empty() || self.mark_initial {
            let mut changes: Vec<Change> = self.initial.drain(..).map(Change::Added).collect();
            if std::mem::take(&mut self.mark_initial) {
                changes.push(Change::Bookmark(self.initial_revision, true));
            }
            return Ok(changes);
        }
        loop {
            let events = self.watcher.next().await?;
            let changes: Vec<Change> = events.iter().filter_map(|e| self.seen(e)).collect();
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    /// A bookmark of how far this watch has come.
    pub(crate) fn bookmark(&mut self) -> Change {
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
