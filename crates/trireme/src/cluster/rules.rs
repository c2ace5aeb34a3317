//! Keeps a node's service rules as they should be: gathers changes, writes them, and watches that nobody
//! else changes them. What fails (a write, the watch) is tried again by itself: on a quiet cluster no
//! change would come to do so.

use std::time::Duration;

use network::nft::watch::{Seen, Watch};
use proxy::{HealthCheck, HealthServer, Proxy};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::services::Message;

/// Changes gathered into one transaction: long enough for a burst, too short to be noticed.
const GATHER: Duration = Duration::from_millis(2);
/// The first wait before what failed is tried again; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The rules, as far as keeping them depends on it.
pub(super) trait Rules: Send {
    type Watch: Sight;
    fn take(&mut self, message: Message);
    /// Whether a sync would do anything.
    fn is_dirty(&self) -> bool;
    fn sync(&mut self) -> Result<(), String>;
    fn watch(&self) -> Result<Self::Watch, String>;
    /// Whether a sign means that the rules are to be written again.
    fn check(&mut self, seen: Seen) -> Result<bool, String>;
    fn health_checks(&self) -> Vec<HealthCheck>;
}

/// Tells when others have changed the rules.
pub(super) trait Sight: Send {
    fn next(&mut self) -> impl Future<Output = Result<Seen, String>> + Send;
}

impl Sight for Watch {
    async fn next(&mut self) -> Result<Seen, String> {
        Watch::next(self).await.map_err(|e| e.to_string())
    }
}

impl Rules for Proxy {
    type Watch = Watch;

    fn take(&mut self, message: Message) {
        super::services::take(self, message);
    }

    fn is_dirty(&self) -> bool {
        Proxy::is_dirty(self)
    }

    fn sync(&mut self) -> Result<(), String> {
        tokio::task::block_in_place(|| Proxy::sync(self)).map(drop).map_err(|e| e.to_string())
    }

    fn watch(&self) -> Result<Watch, String> {
        Proxy::watch(self).map_err(|e| e.to_string())
    }

    fn check(&mut self, seen: Seen) -> Result<bool, String> {
        self.healed_by_sync(seen).map_err(|e| e.to_string())
    }

    fn health_checks(&self) -> Vec<HealthCheck> {
        Proxy::health_checks(self)
    }
}

/// When something that failed is due again.
#[derive(Default)]
struct Retry {
    failures: u32,
    at: Option<Instant>,
}

impl Retry {
    fn failed(&mut self) {
        let wait = RETRY_FIRST * 2u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        self.at = Some(Instant::now() + wait.min(RETRY_MAX));
    }

    fn done(&mut self) {
        *self = Retry::default();
    }

    async fn due(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

struct Keeper<R: Rules> {
    rules: R,
    watch: Option<R::Watch>,
    write: Retry,
    open: Retry,
}

/// Runs until the node ends.
pub(super) async fn keep<R: Rules>(
    rules: R,
    mut changes: mpsc::UnboundedReceiver<Message>,
    mut health: HealthServer,
) {
    let mut keeper = Keeper { rules, watch: None, write: Retry::default(), open: Retry::default() };
    keeper.open();
    keeper.sync();
    while keeper.turn(&mut changes).await {
        for (check, error) in health.update(&keeper.rules.health_checks()) {
            tracing::warn!(?check, %error, "health check port not served");
        }
    }
}

async fn look<W: Sight>(watch: &mut Option<W>) -> Result<Seen, String> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

impl<R: Rules> Keeper<R> {
    /// One event and what follows from it; `false` when the node ends.
    async fn turn(&mut self, changes: &mut mpsc::UnboundedReceiver<Message>) -> bool {
        tokio::select! {
            message = changes.recv() => {
                let Some(message) = message else { return false };
                self.rules.take(message);
                tokio::time::sleep(GATHER).await;
                while let Ok(more) = changes.try_recv() {
                    self.rules.take(more);
                }
            }
            seen = look(&mut self.watch) => self.seen(seen),
            () = self.open.due() => self.open(),
            () = self.write.due() => {}
        }
        self.sync();
        true
    }

    fn seen(&mut self, seen: Result<Seen, String>) {
        let checked = match seen {
            Ok(seen) => self.rules.check(seen),
            Err(error) => {
                tracing::warn!(error, "watching the service rules, will watch anew");
                self.watch = None;
                self.open.failed();
                return;
            }
        };
        match checked {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!("service rules were changed by another program, writing them again")
            }
            Err(error) => {
                tracing::warn!(error, "service rules could not be checked, will look again");
                self.watch = None;
                self.open.failed();
            }
        }
    }

    /// Opens the watch, and looks at what happened while there was none.
    fn open(&mut self) {
        let opened = self.rules.watch();
        let checked = opened.and_then(|watch| {
            self.watch = Some(watch);
            self.rules.check(Seen::Lost)
        });
        match checked {
            Ok(_) => self.open.done(),
            Err(error) => {
                tracing::warn!(error, "service rules are not watched, will try again");
                self.watch = None;
                self.open.failed();
            }
        }
    }

    fn sync(&mut self) {
        if !self.rules.is_dirty() {
            return self.write.done();
        }
        match self.rules.sync() {
            Ok(()) => self.write.done(),
            Err(error) => {
                tracing::warn!(error, "service rules not updated, will try again");
                self.write.failed();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is to fail, and what was done.
    #[derive(Default)]
    struct State {
        failing_syncs: u32,
        failing_watches: u32,
        dirty: bool,
        synced: u32,
        watched: u32,
        signs: Vec<Result<Seen, String>>,
    }

    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<State>>);

    impl Fake {
        fn state(&self) -> std::sync::MutexGuard<'_, State> {
            self.0.lock().unwrap()
        }
    }

    impl Sight for Fake {
        async fn next(&mut self) -> Result<Seen, String> {
            let sign = self.state().signs.pop();
            match sign {
                Some(sign) => sign,
                None => std::future::pending().await,
            }
        }
    }

    impl Rules for Fake {
        type Watch = Fake;
        fn take(&mut self, _: Message) {
            self.state().dirty = true;
        }
        fn is_dirty(&self) -> bool {
            self.state().dirty
        }
        fn sync(&mut self) -> Result<(), String> {
            let mut state = self.state();
            if state.failing_syncs > 0 {
                state.failing_syncs -= 1;
                return Err("no memory".into());
            }
            (state.dirty, state.synced) = (false, state.synced + 1);
            Ok(())
        }
        fn watch(&self) -> Result<Fake, String> {
            let mut state = self.state();
            if state.failing_watches > 0 {
                state.failing_watches -= 1;
                return Err("no descriptor".into());
            }
            state.watched += 1;
            Ok(self.clone())
        }
        fn check(&mut self, seen: Seen) -> Result<bool, String> {
            self.state().dirty |= seen == Seen::Foreign;
            Ok(seen == Seen::Foreign)
        }
        fn health_checks(&self) -> Vec<HealthCheck> {
            Vec::new()
        }
    }

    async fn until(fake: &Fake, done: impl Fn(&State) -> bool) {
        let wait = async {
            while !done(&fake.state()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(3600), wait).await.unwrap();
    }

    fn start(fake: &Fake) -> mpsc::UnboundedSender<Message> {
        let (sender, changes) = mpsc::unbounded_channel();
        let rules = fake.clone();
        tokio::spawn(keep(rules, changes, HealthServer::new(None)));
        sender
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_write_is_tried_again_by_itself() {
        let fake = Fake::default();
        fake.state().failing_syncs = 5;
        let sender = start(&fake);
        sender.send(Message::HostPortsGone(Vec::new())).unwrap();
        until(&fake, |s| s.synced == 1).await;
        assert_eq!(fake.state().failing_syncs, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_cannot_be_had_does_not_end_the_proxy() {
        let fake = Fake::default();
        fake.state().failing_watches = 3;
        let sender = start(&fake);
        sender.send(Message::HostPortsGone(Vec::new())).unwrap();
        until(&fake, |s| s.synced == 1).await;
        until(&fake, |s| s.watched == 1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_watch_is_opened_anew_and_signs_are_followed() {
        let fake = Fake::default();
        fake.state().signs = vec![Ok(Seen::Foreign), Err("broken".into())];
        let _sender = start(&fake);
        until(&fake, |s| s.watched == 2 && s.synced == 1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_to_a_limit() {
        let mut retry = Retry::default();
        for expected in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            retry.failed();
            let wait = retry.at.unwrap() - Instant::now();
            assert_eq!(wait, Duration::from_millis(expected));
        }
    }
}
