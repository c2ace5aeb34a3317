//! `/containerLogs`: a container's log from disk, and what is added to it while it runs.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use client::Tasks;
use futures::stream::{BoxStream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use runtime::cri::{ContainerEventResponse, ContainerEventType};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::{Request, Response, answer, route};
use crate::kubelet::Shared;
use crate::logs;
use crate::pod::observed::{self, Instance, Observed, State};
use crate::spec::uid_of;

/// Bytes read from the file at once.
const CHUNK: usize = 64 << 10;
/// Longest line that is waited for; runtimes break lines at 16 KiB.
const LINE_MAX: usize = 256 << 10;
/// Chunks waiting for a slow client.
const QUEUE: usize = 8;

/// What of the log is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    follow: bool,
    timestamps: bool,
    tail: Option<usize>,
    since: Option<Timestamp>,
    limit: Option<usize>,
    /// `Some(true)`: only stderr.
    stderr: Option<bool>,
}

impl Options {
    fn parse(query: &route::Query) -> Result<Options, String> {
        let all = route::options(query);
        let flag = |name: &str| all.get(name).is_some_and(|v| route::is_true(v));
        let number = |name: &str| match all.get(name).filter(|v| !v.is_empty()) {
            None => Ok(None),
            Some(text) => text.parse::<i64>().map(Some).map_err(|e| format!("{name}: {e}")),
        };
        let since = match (number("sinceSeconds")?, all.get("sinceTime")) {
            (Some(s), _) => Timestamp::now().checked_sub(SignedDuration::from_secs(s)).ok(),
            (None, Some(text)) => Some(text.parse().map_err(|e| format!("sinceTime: {e}"))?),
            (None, None) => None,
        };
        // Negative: everything.
        let tail = number("tailLines")?.and_then(|n| usize::try_from(n).ok());
        let limit = number("limitBytes")?.and_then(|n| usize::try_from(n).ok());
        let stderr = match all.get("stream").copied() {
            Some("Stdout") => Some(false),
            Some("Stderr") => Some(true),
            _ => None,
        };
        let (follow, timestamps) = (flag("follow"), flag("timestamps"));
        Ok(Options { follow, timestamps, tail, since, limit, stderr })
    }
}

pub(super) async fn serve(
    shared: Arc<Shared>,
    tasks: &Tasks,
    request: &Request,
    ns: &str,
    name: &str,
    container: &str,
) -> Response {
    let query = route::query(request);
    let options = match Options::parse(&query) {
        Ok(options) => options,
        Err(why) => return answer(400, why),
    };
    let Some(pod) = route::pod(&shared, ns, name, None) else {
        return answer(404, format!("pod \"{name}\" not found"));
    };
    if crate::spec::find_container(&pod, container).is_none() {
        return answer(404, format!("container \"{container}\" not found in pod \"{name}\""));
    }
    let seen = observed::observe(&shared, uid_of(&pod), &Observed::default()).await;
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return answer(500, error.chain()),
    };
    let previous = route::get(&query, "previous").is_some_and(route::is_true);
    let instance = match chosen(&seen, &pod, container, previous) {
        Ok(instance) => instance.clone(),
        Err(why) => return answer(400, why),
    };
    let path = log_path(&shared, &pod, &instance);
    // Subscribed before the first read, so that an end in between is not missed.
    let events = match options.follow && instance.state == State::Running {
        true => shared.runtime.events().await.ok(),
        false => None,
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    let log_dir = shared.config.log_dir.clone();
    let mut reader = Reader { options, log_dir, path, sender, sent: 0, id: instance.id };
    tasks.spawn("container log", async move {
        if let Err(error) = reader.run(events).await {
            tracing::debug!(%error, path = %reader.path.display(), "log reading ended");
        }
    });
    let stream = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|data| (Ok::<_, io::Error>(Frame::data(data)), receiver))
    });
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    let plain = http::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

fn chosen<'a>(
    seen: &'a Observed,
    pod: &Pod,
    container: &str,
    previous: bool,
) -> Result<&'a Instance, String> {
    let name = crate::spec::name_of(pod);
    if previous {
        let newest_ended = seen
            .latest(container)
            .filter(|i| i.state == State::Exited && is_waiting(pod, container));
        let found = newest_ended.or_else(|| seen.previous(container));
        return found.ok_or_else(|| {
            format!("previous terminated container \"{container}\" in pod \"{name}\" not found")
        });
    }
    seen.latest(container).filter(|i| i.state != State::Created).ok_or_else(|| {
        let reason = waiting_reason(pod, container).unwrap_or_else(|| "ContainerCreating".into());
        let what = match reason.as_str() {
            "ErrImagePull" => "image can't be pulled",
            "ImagePullBackOff" => "trying and failing to pull image",
            other => other,
        };
        format!("container \"{container}\" in pod \"{name}\" is waiting to start: {what}")
    })
}

fn waiting_reason(pod: &Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.find(|s| s.name == container)?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

fn is_waiting(pod: &Pod, container: &str) -> bool {
    waiting_reason(pod, container).is_some()
}

fn log_path(shared: &Shared, pod: &Pod, instance: &Instance) -> PathBuf {
    let given = Path::new(&instance.log_path);
    if given.is_absolute() {
        return given.to_owned();
    }
    let (ns, name) = (crate::spec::namespace_of(pod), crate::spec::name_of(pod));
    let dir = shared.config.log_dir.join(format!("{ns}_{name}_{}", uid_of(pod)));
    dir.join(&instance.name).join(format!("{}.log", instance.attempt))
}

type Events = BoxStream<'static, runtime::Result<ContainerEventResponse>>;

struct Reader {
    options: Options,
    log_dir: PathBuf,
    path: PathBuf,
    sender: mpsc::Sender<Bytes>,
    sent: usize,
    id: String,
}

impl Reader {
    async fn run(&mut self, events: Option<Events>) -> io::Result<()> {
        let mut file = logs::open(&self.log_dir, &self.path)?;
        let watch = events.is_some().then(|| watch(&self.path)).transpose()?;
        if let Some(count) = self.options.tail {
            let from = logs::tail_offset(&mut file, count, 0)?;
            file.seek(SeekFrom::Start(from))?;
        }
        let mut rest = Vec::new();
        if !self.drain(&mut file, &mut rest).await? {
            return Ok(());
        }
        let (Some(mut events), Some(watch)) = (events, watch) else { return Ok(()) };
        loop {
            let ended = tokio::select! {
                ready = changed(&watch) => { ready?; false }
                event = events.next() => self.is_end(event),
                () = self.sender.closed() => return Ok(()),
            };
            if !self.drain(&mut file, &mut rest).await? || ended {
                return Ok(());
            }
            self.reopen(&mut file)?;
        }
    }

    /// Whether the container has ended, or nobody would tell.
    fn is_end(&self, event: Option<runtime::Result<ContainerEventResponse>>) -> bool {
        match event {
            Some(Ok(event)) => {
                let kind = event.container_event_type;
                event.container_id == self.id
                    && (kind == ContainerEventType::Stopped as i32
                        || kind == ContainerEventType::Deleted as i32)
            }
            _ => true,
        }
    }

    /// A rotated log goes on in a new file of the same name.
    fn reopen(&self, file: &mut File) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        if let Ok(now) = logs::open(&self.log_dir, &self.path)
            && now.metadata()?.ino() != file.metadata()?.ino()
        {
            *file = now;
        }
        Ok(())
    }

    /// Sends what the file has; `false` once enough was sent or the client has gone.
    async fn drain(&mut self, file: &mut File, rest: &mut Vec<u8>) -> io::Result<bool> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                return Ok(true);
            }
            rest.extend_from_slice(&buffer[..n]);
            let Some(end) = rest.iter().rposition(|b| *b == b'\n') else {
                // Not a line that a runtime has written.
                if rest.len() > LINE_MAX {
                    rest.clear();
                }
                continue;
            };
            let mut out = Vec::with_capacity(end);
            for line in rest[..end].split(|b| *b == b'\n') {
                self.render(line, &mut out);
            }
            rest.drain(..=end);
            if let Some(limit) = self.options.limit {
                out.truncate(limit - self.sent);
            }
            self.sent += out.len();
            if !out.is_empty() && self.sender.send(Bytes::from(out)).await.is_err() {
                return Ok(false);
            }
            if self.options.limit.is_some_and(|limit| self.sent >= limit) {
                return Ok(false);
            }
        }
    }

    fn render(&self, raw: &[u8], out: &mut Vec<u8>) {
        let Some(line) = logs::parse(raw) else { return };
        let early = self.options.since.is_some_and(|since| line.is_before(since));
        if early || self.options.stderr.is_some_and(|only| only != line.stderr) {
            return;
        }
        if self.options.timestamps {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.content);
        if !line.partial {
            out.push(b'\n');
        }
    }
}

/// Wakes when the log is written to, or replaced.
fn watch(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let flags =
        inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&fd, dir, flags)?;
    // SAFETY: the descriptor is owned by what is registered, and so open for as long as it is.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

async fn changed(watch: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut guard = watch.readable().await?;
    let mut buffer = [0; 4096];
    // What happened does not matter, only that something did.
    match rustix::io::read(guard.get_inner(), &mut buffer) {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::AGAIN) => {
            guard.clear_ready();
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
