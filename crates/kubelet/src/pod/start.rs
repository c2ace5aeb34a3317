//! Starts one container: image, configuration, creation, start, postStart hook.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use client::EventType;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};
use runtime::cri::{CDIDevice, CreateContainerRequest, ImageSpec, PodSandboxConfig};

use crate::beneath::Dir;
use crate::hooks::POST_START_MAX;
use crate::image_volumes;
use crate::images;
use crate::kubelet::Shared;
use crate::logs;
use crate::objects::User;
use crate::spec::downward::Addresses;
use crate::spec::{ConfigError, container, env, find_container, namespace_of, spec_of, uid_of};
use crate::volumes;

/// Upstream's: log collectors read there.
const LOG_DIR_MODE: u32 = 0o755;

/// Longest file of environment variables: more than any environment may have.
const ENV_FILE_MAX: usize = 1 << 20;

/// A failed start, as `state.waiting` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// The image that it is about, if it is about one.
    pub(crate) image: String,
}

impl Failure {
    fn new(reason: &'static str, message: String) -> Failure {
        Failure { reason, message, image: String::new() }
    }
}

impl From<images::Failed> for Failure {
    fn from(failed: images::Failed) -> Failure {
        Failure { reason: failed.reason, message: failed.message, image: failed.image }
    }
}

/// What a start is made of.
pub(crate) struct Start {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) user: User,
    pub(crate) container: String,
    pub(crate) attempt: u32,
    pub(crate) sandbox: String,
    pub(crate) sandbox_config: PodSandboxConfig,
    /// The runtime handler of the pod's RuntimeClass.
    pub(crate) handler: String,
    pub(crate) addresses: Addresses,
    /// Images that are not pulled yet again, with the last error of each.
    pub(crate) backing_off: HashMap<String, String>,
    /// The instance an ephemeral container looks at.
    pub(crate) target: Option<String>,
}

/// The pod's container as events name it.
pub(crate) fn reference(pod: &Pod, container: &str) -> ObjectReference {
    let spec = spec_of(pod);
    let list = if spec.init_containers.iter().flatten().any(|c| c.name == container) {
        "initContainers"
    } else if spec.containers.iter().any(|c| c.name == container) {
        "containers"
    } else {
        "ephemeralContainers"
    };
    ObjectReference {
        field_path: Some(format!("spec.{list}{{{container}}}")),
        ..pod_reference(pod)
    }
}

pub(crate) fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

impl Start {
    /// Returns the id of the started container.
    pub(crate) async fn run(self) -> Result<String, Failure> {
        let about = reference(&self.pod, &self.container);
        self.steps(&about).await.inspect_err(|failure| {
            // A back-off has told its own event.
            if failure.reason == "PostStartHookError" {
                return;
            }
            let message = match images::is_image_error(failure.reason) {
                true => format!("Error: {}", failure.reason),
                false => format!("Error: {}", failure.message),
            };
            self.shared.recorder.event(&about, EventType::Warning, "Failed", message);
        })
    }

    async fn steps(&self, about: &ObjectReference) -> Result<String, Failure> {
        let config_error = |e: ConfigError| Failure::new("CreateContainerConfigError", e.0);
        let missing = || ConfigError(format!("container {} is not in the pod", self.container));
        let spec = find_container(&self.pod, &self.container).ok_or_else(missing);
        let spec = spec.map_err(config_error)?;
        let volumes = self.image_volumes(&spec, about).await?;
        let asked = (spec.image.as_deref().unwrap_or(""), spec.image_pull_policy.as_deref());
        let image = self.ensure(asked, about).await?;
        let config = self.config(&spec, &image, &volumes).await.map_err(config_error)?;
        let request = CreateContainerRequest {
            pod_sandbox_id: self.sandbox.clone(),
            config: Some(config),
            sandbox_config: Some(self.sandbox_config.clone()),
        };
        let started = self.launch(request, about).await;
        if !volumes.is_empty() {
            let failure = started.as_ref().err().map(|failure| failure.message.as_str());
            image_volumes::count(volumes.len(), failure);
        }
        self.release_sub_paths(&spec);
        let id = started?;
        self.post_start(&spec, &id, about).await?;
        Ok(id)
    }

    /// Creates and starts.
    async fn launch(
        &self,
        request: CreateContainerRequest,
        about: &ObjectReference,
    ) -> Result<String, Failure> {
        let failed =
            |reason: &'static str| move |e: runtime::Error| Failure::new(reason, e.chain());
        let recorder = &self.shared.recorder;
        let id = self.shared.runtime.create_container(request).await;
        let id = id.map_err(failed("CreateContainerError"))?;
        recorder.event(about, EventType::Normal, "Created", "Container created");
        self.shared.places.started(&self.pod, &self.container).await;
        let started = self.shared.runtime.start_container(&id).await;
        started.map_err(failed("RunContainerError"))?;
        recorder.event(about, EventType::Normal, "Started", "Container started");
        Ok(id)
    }

    async fn post_start(
        &self,
        spec: &Container,
        id: &str,
        about: &ObjectReference,
    ) -> Result<(), Failure> {
        let Some(handler) = spec.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return Ok(());
        };
        let ip = self.addresses.pod.first().map_or("", String::as_str);
        let hook =
            crate::hooks::run(&self.shared, &self.pod, spec, id, ip, handler, POST_START_MAX);
        let Err(message) = hook.await else { return Ok(()) };
        let recorder = &self.shared.recorder;
        recorder.event(about, EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
        recorder.event(about, EventType::Normal, "Killing", "FailedPostStartHook");
        let grace = spec_of(&self.pod).termination_grace_period_seconds.unwrap_or(30);
        if let Err(error) = self.shared.runtime.stop_container(id, grace).await {
            tracing::warn!(%error, container = self.container, "container not stopped after its hook");
        }
        Err(Failure::new("PostStartHookError", message))
    }

    async fn config(
        &self,
        spec: &Container,
        image: &images::Ready,
        image_volumes: &HashMap<String, ImageSpec>,
    ) -> Result<runtime::cri::ContainerConfig, ConfigError> {
        let references = self.references(spec).await?;
        let services = self.shared.services.list_namespace(namespace_of(&self.pod));
        let master = self.shared.services.get("default", "kubernetes");
        let visible = services.iter().chain(&master).map(AsRef::as_ref);
        let node = self.shared.node_resources();
        let environment = env::environment(&env::Inputs {
            pod: &self.pod,
            container: spec,
            services: &env::visible(&self.pod, visible),
            references: &references,
            addresses: &self.addresses,
            node: &node,
        })?;
        let mounts = self.mounts(spec, &environment, image_volumes).await?;
        let log_dir = Path::new(&self.sandbox_config.log_directory).join(&spec.name);
        make_log_dir(&self.shared, &log_dir)
            .map_err(|e| ConfigError(format!("create container log directory: {e}")))?;
        let attempt = match self.attempt {
            0 => logs::next_run(&log_dir),
            later => later,
        };
        let mut config = container::config(container::Inputs {
            pod: &self.pod,
            container: spec,
            attempt,
            image_ref: &image.reference,
            image_user: &image.user,
            environment: &environment,
            mounts,
            node: &node,
            target: self.target.as_deref(),
            users: self.shared.userns.recorded(&self.pod).map_err(ConfigError)?,
            seccomp_default: self.shared.config.seccomp_default,
            seccomp_root: self.shared.config.seccomp_root.as_deref(),
        })?;
        config.devices.extend(self.devices(spec)?);
        let given = self.shared.places.devices(&self.pod, &spec.name).await;
        if let Some(options) = given.map_err(ConfigError)? {
            options.apply(&mut config);
        }
        for name in self.shared.dra.cdi(&self.pod, spec).map_err(ConfigError)? {
            if !config.cdi_devices.iter().any(|device| device.name == name) {
                config.cdi_devices.push(CDIDevice { name });
            }
        }
        if let Some(values) = config.linux.as_mut().and_then(|linux| linux.resources.as_mut()) {
            self.shared.places.bind(&self.pod, &spec.name, values).await;
        }
        Ok(config)
    }

    async fn references(&self, spec: &Container) -> Result<env::References, ConfigError> {
        let (maps, secrets) = env::needed(spec);
        let namespace = namespace_of(&self.pod);
        let objects = &self.shared.objects;
        let mut found = env::References::default();
        for name in maps {
            let map = objects.config_map(&self.user, namespace, &name).await;
            let map = map.map_err(|e| ConfigError(e.to_string()))?;
            found.config_maps.insert(name, map.map(|m| (*m).clone()));
        }
        for name in secrets {
            let secret = objects.secret(&self.user, namespace, &name).await;
            let secret = secret.map_err(|e| ConfigError(e.to_string()))?;
            found.secrets.insert(name, secret.map(|s| (*s).clone()));
        }
        found.files = self.env_files(spec);
        Ok(found)
    }

    fn env_files(&self, spec: &Container) -> HashMap<(String, String), env::EnvFile> {
        let pod_spec = spec_of(&self.pod);
        let (root, uid) = (&self.shared.config.root_dir, uid_of(&self.pod));
        let mut found = HashMap::new();
        for (name, path) in env::needed_files(spec) {
            let mut declared = pod_spec.volumes.iter().flatten();
            let Some(volume) = declared.find(|v| v.name == name) else { continue };
            let Some(place) = volumes::path(root, uid, volume) else { continue };
            let shown = place.join(&path).to_string_lossy().into_owned();
            let read = volumes::read(root, uid, volume, Path::new(&path), ENV_FILE_MAX);
            let content = read.map_err(|error| {
                tracing::debug!(%error, file = shown, "environment file");
                ConfigError("couldn't parse env file".into())
            });
            found.insert((name, path), env::EnvFile { shown, content });
        }
        found
    }
}

/// Makes a directory below the node's log directory.
pub(super) fn make_log_dir(shared: &Shared, dir: &Path) -> io::Result<()> {
    let top = &shared.config.log_dir;
    let below = dir.strip_prefix(top).map_err(io::Error::other)?;
    Dir::make_root(top)?.make(below, LOG_DIR_MODE).map(drop)
}
