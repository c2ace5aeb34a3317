//! What an actor hears and tells of changes of its pod's resources.

use std::collections::BTreeSet;
use std::time::Duration;

use client::EventType;
use jiff::Timestamp;

use super::actor::Actor;
use super::memory::Slot;
use super::start::pod_reference;
use super::{actuate, resize};
use crate::spec::resize::{News, summary};

/// Wait before a change of resources that failed is tried again.
const RESIZE_RETRY: Duration = Duration::from_secs(10);

impl Actor {
    pub(super) fn heard_of_resize(&mut self, news: News) {
        self.memory.resize.pending = news.pending;
        if news.allocated.is_some() {
            self.memory.resize.generation = news.allocated;
            self.memory.resize.error = None;
            self.memory.resize.retry_at = None;
        }
    }

    /// Tells when a change is everywhere.
    pub(super) fn follow_resize(&mut self, now: Timestamp) {
        let alive: BTreeSet<&str> = self.observed.running().map(|i| i.id.as_str()).collect();
        self.memory.resize.actuated.retain(|id, _| alive.contains(id.as_str()));
        let Some(generation) = self.memory.resize.generation else { return };
        if self.memory.is_busy(&Slot::Resize) || resize::is_in_progress(&self.view(now)) {
            return;
        }
        self.memory.resize.generation = None;
        self.memory.resize.error = None;
        let text = summary("Pod resize completed", &self.pod, generation, "");
        let about = pod_reference(&self.pod);
        self.shared.recorder.event(&about, EventType::Normal, "ResizeCompleted", text);
    }

    pub(super) fn resized(&mut self, done: actuate::Done) {
        let memory = &mut self.memory.resize;
        memory.actuated.extend(done.actuated);
        memory.pod = Some(done.pod);
        memory.retry_at = None;
        let Some(error) = done.error else {
            memory.error = None;
            return;
        };
        memory.retry_at = Timestamp::now().checked_add(RESIZE_RETRY).ok();
        if memory.error.as_ref() == Some(&error) {
            return;
        }
        let generation = memory.generation.or(self.pod.metadata.generation).unwrap_or(0);
        let text = summary("Pod resize error", &self.pod, generation, &error);
        memory.error = Some(error);
        let about = pod_reference(&self.pod);
        self.shared.recorder.event(&about, EventType::Warning, "ResizeError", text);
    }
}
