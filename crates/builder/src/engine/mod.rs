//! A build from its first stage to the image.

mod mounts;
mod steps;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dockerfile::{Base, File, Step};
use runtime::cri::{ImageSpec, PodSandboxFilter, PullImageRequest};
use runtime::image::{ImageStore, StoredImage, Times};
use runtime::{Config, Embedded, ImageService as _, LoopbackOnly, RuntimeService as _};

use crate::cache::Cache;
use crate::error::{Error, IoContext, Result};
use crate::request::Request;
use crate::state::{State, time_text};

/// This machine's architecture, as images name it.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// A store, and a runtime to run steps in.
pub struct Builder {
    runtime: Embedded,
    images: Arc<ImageStore>,
    cache: Cache,
    root: PathBuf,
    /// Stores where base images are looked for before a registry is asked.
    nodes: Vec<PathBuf>,
    tell: Box<dyn Fn(&str) + Send + Sync>,
    /// One build at a time.
    _lock: fs::File,
}

/// One build while it runs.
struct Build<'a> {
    builder: &'a Builder,
    request: &'a Request,
    file: File,
    globals: BTreeMap<String, String>,
    states: BTreeMap<usize, State>,
    /// The time of this build's new parts.
    now: String,
    used_args: std::collections::BTreeSet<String>,
    /// Images that only steps of this build need.
    borrowed: Vec<String>,
}

impl Builder {
    /// Opens the builder below `config.root`, which no other process may have open; waits for that one's end
    /// is the caller's business. `tell` shows progress, a line or more at a time.
    pub async fn open(
        config: Config,
        nodes: Vec<PathBuf>,
        tell: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Builder> {
        let root = config.root.clone();
        let mut private = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(private.recursive(true), 0o700);
        private.create(&root).at("make", &root)?;
        let path = root.join("lock");
        let lock = fs::File::create(&path).at("make", &path)?;
        lock.try_lock().map_err(|_| {
            Error::refused(format!("another build is running in {}", root.display()))
                .with_fix("wait for it, or give this one a --root of its own")
        })?;
        unmount_below(&root)?;
        let cache = Cache::open(root.join("cache"))?;
        let runtime = Embedded::open(config, Arc::new(LoopbackOnly)).await?;
        // A killed build leaves its sandboxes.
        for sandbox in runtime.list_pod_sandboxes(PodSandboxFilter::default()).await? {
            runtime.remove_pod_sandbox(&sandbox.id).await?;
        }
        let images = runtime.images();
        Ok(Builder { runtime, images, cache, root, nodes, tell: Box::new(tell), _lock: lock })
    }

    pub fn images(&self) -> Arc<ImageStore> {
        self.images.clone()
    }

    /// Ends the runtime's processes; the store stays.
    pub async fn close(self) -> Result<()> {
        Ok(self.runtime.reset().await?)
    }

    /// Builds an image, names it, and returns it.
    pub async fn build(&self, request: &Request) -> Result<StoredImage> {
        let file = File::parse(&request.file_name, &request.file)?;
        platform(&request.platform)?;
        for warning in &file.warnings {
            self.say(&format!("{}:{}: {}", request.file_name, warning.line, warning.message));
        }
        let globals = file
            .global_arguments(&predefined(request), &request.build_args)
            .map_err(|e| e.in_file(&request.file_name))?;
        let now = request.epoch.unwrap_or_else(|| jiff::Timestamp::now().as_second());
        let mut build = Build {
            builder: self,
            request,
            file,
            globals,
            states: BTreeMap::new(),
            now: time_text(now),
            used_args: Default::default(),
            borrowed: Vec::new(),
        };
        let done = build.all().await;
        for id in build.borrowed {
            self.images.forget(&id)?;
        }
        done
    }

    /// Gives back what the cache holds beyond `limit` bytes: the steps that were not used for longest. Returns
    /// how many bytes of layers have gone.
    ///
    /// # Errors
    /// A file of the cache or the store that cannot be read or removed.
    pub fn collect(&self, limit: u64) -> Result<u64> {
        self.cache.collect(&self.images, limit)
    }

    fn say(&self, text: &str) {
        (self.tell)(text);
    }

    /// An image by name: of this store, of a node's, or of a registry.
    async fn image(&self, name: &str, pull: bool) -> Result<StoredImage> {
        if !pull {
            if let Some(found) = self.images.find(name) {
                return Ok(found);
            }
            for node in &self.nodes {
                let (store, node, name) = (self.images.clone(), node.clone(), name.to_owned());
                let found = blocking(move || Ok(store.adopt(&node, &name, &[])?)).await?;
                if let Some(found) = found {
                    return Ok(found);
                }
            }
        }
        self.say(&format!("pull {name}"));
        let spec = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
        let request = PullImageRequest { image: Some(spec), ..PullImageRequest::default() };
        let exact = self.runtime.pull_image(request).await?;
        self.images
            .find(&exact)
            .ok_or_else(|| Error::refused(format!("{name} is gone after its pull")))
    }
}

/// A directory for one step's work; it goes with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(store: &ImageStore) -> Result<Scratch> {
        Ok(Scratch(store.scratch()?))
    }
}

impl std::ops::Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "not removed; the next build will");
        }
    }
}

/// Runs work that blocks.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R> + Send + 'static,
) -> Result<R> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Error::refused(format!("a worker ended: {e}"))))
}

/// Takes away mounts that a killed build has left.
fn unmount_below(root: &Path) -> Result<()> {
    let table = "/proc/self/mountinfo";
    let text = fs::read_to_string(table).at("read", table)?;
    let points = text.lines().filter_map(|l| l.split(' ').nth(4));
    let below: Vec<&str> =
        points.filter(|p| Path::new(p).starts_with(root.join("images/tmp"))).collect();
    for point in below.iter().rev() {
        rustix::mount::unmount(*point, rustix::mount::UnmountFlags::DETACH).at("unmount", point)?;
    }
    Ok(())
}

/// Only the machine's own platform can run steps.
fn platform(wanted: &str) -> Result<()> {
    let own = format!("linux/{ARCHITECTURE}");
    let plain = wanted.trim_end_matches("/v8").to_lowercase();
    let same = ["", own.as_str(), ARCHITECTURE, "linux"].contains(&plain.as_str());
    if same || (ARCHITECTURE == "amd64" && plain == "linux/x86_64") {
        return Ok(());
    }
    Err(Error::refused(format!("platform {wanted} cannot be built on {own}"))
        .with_fix(format!("build on a machine of that platform, or use --platform={own}")))
}

/// The arguments that every build has.
fn predefined(request: &Request) -> BTreeMap<String, String> {
    let own = format!("linux/{ARCHITECTURE}");
    let stage = request.target.clone().unwrap_or_else(|| "default".to_owned());
    let mut all: BTreeMap<String, String> = [
        ("PLATFORM", own.as_str()),
        ("OS", "linux"),
        ("OSVERSION", ""),
        ("ARCH", ARCHITECTURE),
        ("VARIANT", ""),
    ]
    .iter()
    .flat_map(|(key, value)| {
        ["TARGET", "BUILD"].map(|side| (format!("{side}{key}"), (*value).to_owned()))
    })
    .collect();
    all.insert("TARGETSTAGE".to_owned(), stage);
    all
}

impl Build<'_> {
    async fn all(&mut self) -> Result<StoredImage> {
        let name = &self.request.file_name;
        let target =
            self.file.target(self.request.target.as_deref()).map_err(|e| e.in_file(name))?;
        let needed = self.file.needed(target, &self.globals).map_err(|e| e.in_file(name))?;
        for index in needed {
            let state = self.stage(index).await?;
            self.states.insert(index, state);
        }
        let mut state = self.states.get(&target).cloned().expect("the target was built");
        for (key, value) in &self.request.labels {
            state.set_label(key, value);
        }
        let unused = self.request.build_args.keys().filter(|k| !self.used_args.contains(*k));
        let unused: Vec<&str> = unused.map(String::as_str).collect();
        if !unused.is_empty() {
            self.builder.say(&format!("build arguments that no ARG takes: {}", unused.join(", ")));
        }
        let (store, names) = (self.builder.images.clone(), self.request.names.clone());
        let image = blocking(move || Ok(store.commit_image(&state.bytes(), &names, true)?)).await?;
        Ok(image)
    }

    async fn stage(&mut self, index: usize) -> Result<State> {
        let stage = self.file.stages[index].clone();
        let name = self.request.file_name.clone();
        let at = |error: Error| error.in_step(&name, stage.lines.0);
        self.say_step(index, &format!("FROM {}", stage.from.base));
        let mut platform_text = stage.from.platform.clone();
        if !platform_text.is_empty() {
            let lexer = dockerfile::expand::Lexer::new(self.file.escape);
            platform_text = lexer.word(&platform_text, &self.globals).map_err(|e| at(e.into()))?;
        }
        platform(&platform_text).map_err(at)?;
        let used = self.file.base(index, &self.globals).map_err(|e| at(e.into()))?;
        self.used_args.extend(
            self.file.arguments.iter().flat_map(|a| a.list.iter().map(|(key, _)| key.clone())),
        );
        let (mut state, triggers) = self.begin(used).await.map_err(at)?;
        for text in triggers {
            self.trigger(&mut state, index, &text).await.map_err(at)?;
        }
        for step in &stage.steps {
            let line = step.lines.0;
            self.say_step(index, &step.original);
            let done = self.step(&mut state, index, step).await;
            done.map_err(|e| e.in_step(&name, line))?;
        }
        Ok(state)
    }

    fn say_step(&self, index: usize, text: &str) {
        let stage = &self.file.stages[index].from.name;
        let stage = if stage.is_empty() { format!("stage {index}") } else { stage.clone() };
        self.builder.say(&format!("[{stage}] {}", text.trim()));
    }

    /// The state before a stage's first step, and the ONBUILD triggers of its base.
    async fn begin(&mut self, base: Base) -> Result<(State, Vec<String>)> {
        let mut state = match base {
            Base::Scratch => State::scratch(ARCHITECTURE, self.now.clone()),
            Base::Stage(index) => self.states.get(&index).cloned().expect("stages come in order"),
            Base::Image(name) => {
                let image = self.builder.image(&name, self.request.pull).await?;
                let bytes = self.builder.images.config(&image.id)?;
                State::of_image(&image.id, &bytes, self.now.clone())?
            }
        };
        let triggers = state.list("OnBuild");
        state.config.remove("OnBuild");
        state.cmd_is_own = false;
        Ok((state, triggers))
    }

    async fn trigger(&mut self, state: &mut State, index: usize, text: &str) -> Result<()> {
        let nodes = dockerfile::nodes(text.as_bytes())?;
        for node in &nodes.nodes {
            let step: Step = dockerfile::step(node)?;
            self.say_step(index, &format!("ONBUILD {}", step.original));
            Box::pin(self.step(state, index, &step)).await?;
        }
        Ok(())
    }

    /// The directories of a list of layers, topmost first.
    fn dirs(&self, layers: &[String]) -> Vec<PathBuf> {
        layers.iter().rev().map(|l| self.builder.images.layer_dir(l)).collect()
    }

    /// An image for the time of this build.
    fn borrowed_image(&mut self, state: &State) -> Result<StoredImage> {
        let before: Vec<String> = self.builder.images.list().into_iter().map(|i| i.id).collect();
        let image = self.builder.images.commit_image(&state.bytes(), &[], false)?;
        if !before.contains(&image.id) {
            self.borrowed.push(image.id.clone());
        }
        Ok(image)
    }

    fn times(&self) -> Times {
        self.request.epoch.map_or(Times::AsTheyAre, Times::Capped)
    }
}
