//! Starts one container: image, configuration, creation, start, postStart hook.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::EventType;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod};
use runtime::cri::{CreateContainerRequest, ImageSpec, Mount, MountPropagation, PodSandboxConfig};

use crate::beneath::Dir;
use crate::hooks::POST_START_MAX;
use crate::images;
use crate::kubelet::Shared;
use crate::objects::User;
use crate::spec::downward::Addresses;
use crate::spec::{
    ConfigError, container, described, env, find_container, mounts, namespace_of, spec_of, uid_of,
};
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
        self.release_sub_paths(&spec);
        let id = started?;
        self.post_start(&spec, &id, about).await?;
        Ok(id)
    }

    async fn ensure(
        &self,
        (image, policy): (&str, Option<&str>),
        about: &ObjectReference,
    ) -> Result<images::Ready, images::Failed> {
        let wanted = images::Wanted {
            pod: &self.pod,
            image,
            policy,
            about,
            user: &self.user,
            backing_off: self.backing_off.get(image).map(String::as_str),
            sandbox: self.sandbox_config.clone(),
        };
        images::ensure(&self.shared, wanted).await
    }

    /// The images that the container mounts, by their volumes. What fails is told of the pod, and again of
    /// the container, which waits for the last that failed.
    async fn image_volumes(
        &self,
        spec: &Container,
        about: &ObjectReference,
    ) -> Result<HashMap<String, ImageSpec>, Failure> {
        let pod_spec = spec_of(&self.pod);
        let mounted = |name: &str| spec.volume_mounts.iter().flatten().any(|m| m.name == name);
        let (mut found, mut failed) = (HashMap::new(), None);
        for volume in pod_spec.volumes.iter().flatten().filter(|v| mounted(&v.name)) {
            let Some(image) = &volume.image else { continue };
            let reference = image.reference.as_deref().unwrap_or("");
            let asked = (reference, image.pull_policy.as_deref());
            match self.ensure(asked, &pod_reference(&self.pod)).await {
                Ok(ready) => {
                    let spec = ImageSpec {
                        image: ready.reference,
                        user_specified_image: reference.to_owned(),
                        ..ImageSpec::default()
                    };
                    found.insert(volume.name.clone(), spec);
                }
                Err(error) => {
                    if let Some(before) = failed.replace(error) {
                        self.tell_failed(about, &before);
                    }
                }
            }
        }
        failed.map_or(Ok(found), |error| Err(error.into()))
    }

    fn tell_failed(&self, about: &ObjectReference, failed: &images::Failed) {
        let text = format!("Error: {}", failed.reason);
        self.shared.recorder.event(about, EventType::Warning, "Failed", text);
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
        let logs = Path::new(&self.sandbox_config.log_directory).join(&spec.name);
        make_log_dir(&self.shared, &logs)
            .map_err(|e| ConfigError(format!("create container log directory: {e}")))?;
        container::config(container::Inputs {
            pod: &self.pod,
            container: spec,
            attempt: self.attempt,
            image_ref: &image.reference,
            image_user: &image.user,
            environment: &environment,
            mounts,
            node: &node,
            target: self.target.as_deref(),
            users: self.shared.userns.recorded(&self.pod).map_err(ConfigError)?,
        })
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

    async fn mounts(
        &self,
        spec: &Container,
        environment: &[(String, Vec<u8>)],
        image_volumes: &HashMap<String, ImageSpec>,
    ) -> Result<Vec<Mount>, ConfigError> {
        let root = &self.shared.config.root_dir;
        let uid = uid_of(&self.pod);
        let pod_spec = spec_of(&self.pod);
        let paths: HashMap<String, PathBuf> = pod_spec
            .volumes
            .iter()
            .flatten()
            .filter_map(|v| Some((v.name.clone(), volumes::path(root, uid, v)?)))
            // The runtime finds these itself.
            .chain(image_volumes.keys().map(|name| (name.clone(), PathBuf::new())))
            .collect();
        let recursive = self.recursive_read_only(spec).await;
        let planned = mounts::mounts(&self.pod, spec, &paths, environment, recursive)?;
        let mut out = Vec::with_capacity(planned.len() + 2);
        for mount in planned {
            if let Some(image) = image_volumes.get(&mount.name) {
                out.push(Mount {
                    container_path: mount.target,
                    readonly: true,
                    image: Some(image.clone()),
                    image_sub_path: mount.sub_path.to_string_lossy().into_owned(),
                    propagation: MountPropagation::Private as i32,
                    ..Mount::default()
                });
                continue;
            }
            out.push(Mount {
                host_path: self.source(spec, &mount)?.to_string_lossy().into_owned(),
                container_path: mount.target,
                readonly: mount.readonly,
                recursive_read_only: mount.recursive_read_only,
                propagation: mount.propagation as i32,
                ..Mount::default()
            });
        }
        self.own_files(spec, &mut out)?;
        Ok(out)
    }

    /// Whether the runtime makes whole trees read-only; asked only when it matters.
    async fn recursive_read_only(&self, spec: &Container) -> bool {
        let mut all = spec.volume_mounts.iter().flatten();
        if !all.any(|m| m.recursive_read_only.is_some()) {
            return false;
        }
        let features = self.shared.handler_features(&self.handler).await;
        features.is_ok_and(|f| f.recursive_read_only_mounts)
    }

    /// The path that the runtime mounts: the volume, or the place where a part of it was bound.
    fn source(
        &self,
        spec: &Container,
        mount: &mounts::PlannedMount,
    ) -> Result<PathBuf, ConfigError> {
        if mount.sub_path.as_os_str().is_empty() {
            return Ok(mount.volume.clone());
        }
        let pod_spec = spec_of(&self.pod);
        let mut declared = pod_spec.volumes.iter().flatten();
        let volume = declared.find(|v| v.name == mount.name);
        let volume = volume.ok_or_else(|| ConfigError(format!("no volume \"{}\"", mount.name)))?;
        let part = volumes::subpath::Mount {
            volume,
            container: &spec.name,
            index: mount.index,
            sub: &mount.sub_path,
        };
        let uid = uid_of(&self.pod);
        volumes::subpath::prepare(&self.shared.config.root_dir, uid, &part).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(pod = described(&self.pod), cause, "{error}");
            ConfigError(error.to_string())
        })
    }

    /// The runtime has what it needs of the bound parts, or never will.
    fn release_sub_paths(&self, spec: &Container) {
        let mut all = spec.volume_mounts.iter().flatten();
        let set = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
        if !all.any(|m| set(&m.sub_path) || set(&m.sub_path_expr)) {
            return;
        }
        let (root, uid) = (&self.shared.config.root_dir, uid_of(&self.pod));
        if let Err(error) = volumes::subpath::release(root, uid, &spec.name) {
            // The pod's end takes them away.
            tracing::warn!(%error, pod = described(&self.pod), "sub paths not released");
        }
    }

    /// `/etc/hosts` and the termination message file.
    fn own_files(&self, spec: &Container, out: &mut Vec<Mount>) -> Result<(), ConfigError> {
        let root = &self.shared.config.root_dir;
        let uid = uid_of(&self.pod);
        let bind = |host: PathBuf, target: &str| Mount {
            container_path: target.to_owned(),
            host_path: host.to_string_lossy().into_owned(),
            propagation: MountPropagation::Private as i32,
            ..Mount::default()
        };
        if !out.iter().any(|m| m.container_path == "/etc/hosts") {
            out.push(bind(volumes::pod_dir(root, uid).join("etc-hosts"), "/etc/hosts"));
        }
        let path = spec.termination_message_path.as_deref().filter(|p| !p.is_empty());
        if let Some(target) = path {
            let file = volumes::message::make(root, uid, &spec.name, self.attempt)
                .map_err(|e| ConfigError(format!("create termination message file: {e}")))?;
            out.push(bind(file, target));
        }
        Ok(())
    }
}

/// Makes a directory below the node's log directory.
pub(super) fn make_log_dir(shared: &Shared, dir: &Path) -> io::Result<()> {
    let top = &shared.config.log_dir;
    let below = dir.strip_prefix(top).map_err(io::Error::other)?;
    Dir::make_root(top)?.make(below, LOG_DIR_MODE).map(drop)
}
