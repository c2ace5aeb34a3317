//! What a collection holds: the present objects, and the changes that led to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::Object;

use super::objects::{Objects, Row};
use super::places::Places;
use super::{Event, Expired, Page};

/// Bytes of object states a log may hold on to besides the present state. At 4 KB a pod this is
/// about 4,000 changes: minutes of a busy small cluster, and watchers read within milliseconds.
const LOG_BYTES: usize = 16 << 20;
/// Entries kept however large they are, so that a few huge objects do not starve watchers.
pub(super) const LOG_ENTRIES_MIN: usize = 64;
/// Entries kept at most: bounds the log of tiny objects.
const LOG_ENTRIES_MAX: usize = 32_768;

/// Earlier states of keys that changed since; absent ones were not there.
pub(super) type Undone<'a> = BTreeMap<&'a Arc<str>, Option<&'a Arc<Object>>>;

/// A page that a list asks for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Of the indexed field: only objects that have it are wanted.
    pub(super) value: Option<&'a str>,
    pub(super) prefix: &'a str,
    pub(super) after: Option<&'a str>,
    pub(super) limit: usize,
    pub(super) keep: &'a dyn Fn(&Object) -> bool,
    /// That of the state that is shown.
    pub(super) revision: u64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) objects: Objects,
    pub(super) log: VecDeque<Event>,
    pub(super) log_bytes: usize,
    /// Events after this revision are all in the log.
    pub(super) floor: u64,
    /// Lists of earlier revisions are refused, whether or not they could still be made.
    pub(super) forgotten: u64,
    /// How often a state came whose history is not known: watchers of an earlier one have missed something.
    pub(super) gaps: u64,
}

impl State {
    pub(super) fn check(&self, revision: u64) -> Result<(), Expired> {
        if revision < self.floor {
            return Err(Expired { asked: revision, oldest: self.floor });
        }
        Ok(())
    }

    pub(super) fn apply(&mut self, event: Event) {
        match &event.new {
            Some(object) => self.objects.insert(event.key.clone(), object.clone()),
            None => self.objects.remove(&event.key),
        };
        self.log_bytes += weight(&event);
        self.log.push_back(event);
        while self.log.len() > LOG_ENTRIES_MIN
            && (self.log_bytes > LOG_BYTES || self.log.len() > LOG_ENTRIES_MAX)
        {
            self.drop_oldest();
        }
    }

    pub(super) fn drop_oldest(&mut self) {
        if let Some(oldest) = self.log.pop_front() {
            self.log_bytes -= weight(&oldest);
            self.floor = oldest.revision;
        }
    }

    /// States at `revision` of the keys that changed since.
    pub(super) fn undo_to(&self, revision: u64) -> Result<Undone<'_>, Expired> {
        self.check(revision)?;
        let mut undone = BTreeMap::new();
        for event in self.log.iter().rev().take_while(|e| e.revision > revision) {
            undone.insert(&event.key, event.old.as_ref());
        }
        Ok(undone)
    }

    pub(super) fn page(&self, undone: &Undone<'_>, asked: Asked<'_>, places: &Places) -> Page {
        let Asked { value, prefix, after, limit, keep, revision } = asked;
        if let Some(value) = value.filter(|_| undone.is_empty()) {
            return self.indexed_page(value, asked);
        }
        let mut rows = self.rows(undone, prefix, after);
        let (mut objects, mut looked_at) = (Vec::new(), 0);
        while let Some((key, object)) = rows.next() {
            looked_at += 1;
            if !keep(object) {
                continue;
            }
            objects.push(object.clone());
            if objects.len() == limit {
                let known = match after {
                    Some(after) => places.behind(revision, prefix, after),
                    None if undone.is_empty() => Some(self.objects.count(prefix)),
                    None => None,
                };
                let remaining =
                    known.map_or_else(|| rows.count(), |known| known.saturating_sub(looked_at));
                places.learn(revision, prefix, key, remaining);
                let last_key = (remaining > 0).then(|| key.clone());
                return Page { objects, revision, last_key, remaining };
            }
        }
        Page { objects, revision, last_key: None, remaining: 0 }
    }

    /// The present objects that the index has under a value.
    fn indexed_page(&self, value: &str, asked: Asked<'_>) -> Page {
        let Asked { prefix, after, limit, keep, revision, .. } = asked;
        let mut rows = self.objects.indexed(value, prefix, after);
        let (mut objects, mut last_key) = (Vec::new(), None);
        for (key, object) in rows.by_ref().filter(|(_, object)| keep(object)) {
            objects.push(object.clone());
            if objects.len() == limit {
                last_key = Some(key.clone());
                break;
            }
        }
        let remaining = rows.count();
        Page { objects, revision, last_key: last_key.filter(|_| remaining > 0), remaining }
    }

    /// Those that start with `prefix` and come after `after`, by key.
    fn rows<'a>(
        &'a self,
        undone: &'a Undone<'a>,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = Row<'a>> {
        let now = self.objects.range(prefix, after);
        let untouched = now.filter(|(key, _)| undone.is_empty() || !undone.contains_key(key));
        let before = move |key: &str| key.starts_with(prefix) && after.is_none_or(|a| key > a);
        let restored = undone.iter().filter(move |(key, _)| before(key));
        let restored = restored.filter_map(|(key, old)| Some((*key, (*old)?)));
        merged(untouched, restored)
    }
}

/// The rows of both, by key; no key is in both.
fn merged<'a>(
    a: impl Iterator<Item = Row<'a>>,
    b: impl Iterator<Item = Row<'a>>,
) -> impl Iterator<Item = Row<'a>> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some((first, _)), Some((second, _))) if second < first => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}

/// Bytes an entry keeps alive that the present state does not need.
fn weight(event: &Event) -> usize {
    event.old.as_ref().map_or(64, |old| old.json().len() + 256)
}
