//! `RUN --mount`: what a step sees beside the image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dockerfile::expand::Lexer;
use dockerfile::{Heredoc, Mount, MountKind, Run, Transfer};
use runtime::cri::{self, ImageSpec};

use super::{Build, blocking};
use crate::copy::{Job, Source};
use crate::error::{Error, IoContext, Result};
use crate::run::{self, Memory, SCRIPTS};
use crate::state::{State, digest};

/// A step's mounts.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) list: Vec<cri::Mount>,
    pub(super) env: BTreeMap<String, String>,
    /// What they hold, as far as it counts for the cache.
    pub(super) key: Vec<String>,
    /// Held while the step runs.
    memory: Vec<Memory>,
}

impl Build<'_> {
    pub(super) async fn mounts(
        &mut self,
        state: &State,
        index: usize,
        run: &Run,
        script: Option<&Heredoc>,
        scratch: &Path,
    ) -> Result<Mounts> {
        let mut mounts = Mounts::default();
        let hosts = scratch.join("hosts");
        fs::write(&hosts, "127.0.0.1\tlocalhost build\n::1\tlocalhost\n").at("write", &hosts)?;
        mounts.list.push(bind(&hosts, "/etc/hosts", false));
        if let Some(script) = script {
            let dir = scratch.join("scripts");
            fs::create_dir(&dir).at("make", &dir)?;
            let path = dir.join(script.name.replace('/', "_"));
            fs::write(&path, script.text()).at("write", &path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).at("open", &path)?;
            mounts.list.push(bind(&dir, SCRIPTS, true));
        }
        let variables = state.variables();
        let lexer = Lexer::new(self.file.escape);
        for (number, text) in run.mounts.iter().enumerate() {
            let mut expand = |text: &str| lexer.word(text, &variables);
            let mut mount = dockerfile::mount(text, &mut expand)?;
            if !mount.target.is_empty() && !mount.target.starts_with('/') {
                mount.target =
                    format!("{}/{}", state.workdir().trim_end_matches('/'), mount.target);
            }
            mounts.key.push(text.clone());
            let place = scratch.join(format!("mount-{number}"));
            match mount.kind {
                MountKind::Bind => self.bind(&mut mounts, index, &mount, &place).await?,
                MountKind::Cache => self.cache(&mut mounts, index, &mount, &place).await?,
                MountKind::Tmpfs => {
                    mounts.memory.push(Memory::mount(&place, mount.size)?);
                    mounts.list.push(bind(&place, &mount.target, mount.read_only));
                }
                MountKind::Secret => self.secret(&mut mounts, &mount, &place)?,
                MountKind::Ssh => self.ssh(&mut mounts, &mount)?,
            }
        }
        Ok(mounts)
    }

    async fn bind(
        &mut self,
        mounts: &mut Mounts,
        index: usize,
        mount: &Mount,
        place: &Path,
    ) -> Result<()> {
        let (source, layers) = match mount.from.as_str() {
            "" => (Source::Context(self.request.context.clone()), None),
            name => {
                let (layers, key) = self.from(index, name).await?;
                mounts.key.push(key);
                (Source::Layers(self.dirs(&layers)), Some(layers))
            }
        };
        // What may be written to is a copy: the changes are nobody's. Of the context, some is left out.
        let shown = match layers {
            Some(layers) if mount.read_only => {
                let mut state = State::scratch(super::ARCHITECTURE, self.now.clone());
                state.layers = layers;
                let image = self.borrowed_image(&state)?;
                let sub_path = mount.source.trim_matches('/').to_owned();
                cri::Mount {
                    container_path: mount.target.clone(),
                    readonly: true,
                    image: Some(ImageSpec { image: image.id, ..ImageSpec::default() }),
                    image_sub_path: sub_path,
                    ..cri::Mount::default()
                }
            }
            _ => {
                let from_context = matches!(source, Source::Context(_));
                let key = self.copy_of(source, &mount.source, place).await?;
                mounts.key.extend(from_context.then_some(key));
                bind(&place.join("upper/data"), &mount.target, mount.read_only)
            }
        };
        mounts.list.push(shown);
        Ok(())
    }

    /// A copy of a source's part, at `upper/data` of the place; returns its digest.
    async fn copy_of(&self, source: Source, path: &str, place: &Path) -> Result<String> {
        fs::create_dir(place).at("make", place)?;
        let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
        let (ignore, place) = (self.request.ignore.clone(), place.to_owned());
        blocking(move || {
            let (sources, destination) = (vec![path], "/data".to_owned());
            let transfer = Transfer { sources, destination, ..Transfer::default() };
            let job = Job {
                transfer: &transfer,
                is_add: false,
                source,
                ignore: &ignore,
                layers: Vec::new(),
                workdir: "/".to_owned(),
                scratch: place,
                fetched: Vec::new(),
            };
            job.run()?;
            let times = runtime::image::Times::Fixed(0);
            Ok(runtime::image::layer_digest(&job.upper(), times)?.unwrap_or_default())
        })
        .await
    }

    /// A directory that outlives the build. Builds of one root run one after the other, so all ways of
    /// sharing are the same.
    async fn cache(
        &mut self,
        mounts: &mut Mounts,
        index: usize,
        mount: &Mount,
        place: &Path,
    ) -> Result<()> {
        let id = if mount.id.is_empty() { &mount.target } else { &mount.id };
        let dir = self.builder.root.join("mounts").join(digest(&[
            "cache",
            id,
            &mount.from,
            &mount.source,
        ]));
        if !dir.exists() {
            let fresh = place.with_extension("fresh");
            if mount.from.is_empty() {
                fs::create_dir_all(&fresh).at("make", &fresh)?;
            } else {
                let (layers, _) = self.from(index, &mount.from).await?;
                let source = Source::Layers(self.dirs(&layers));
                self.copy_of(source, &mount.source, place).await?;
                fs::rename(place.join("upper/data"), &fresh).at("move", &fresh)?;
            }
            let mode = fs::Permissions::from_mode(mount.mode.unwrap_or(0o755));
            fs::set_permissions(&fresh, mode).at("open", &fresh)?;
            let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
            std::os::unix::fs::chown(&fresh, Some(uid), Some(gid)).at("give away", &fresh)?;
            let parent = self.builder.root.join("mounts");
            fs::create_dir_all(&parent).at("make", &parent)?;
            fs::rename(&fresh, &dir).at("make", &dir)?;
        }
        mounts.list.push(bind(&dir, &mount.target, mount.read_only));
        Ok(())
    }

    fn secret(&self, mounts: &mut Mounts, mount: &Mount, place: &Path) -> Result<()> {
        let id = run::secret_id(mount);
        let Some(value) = self.request.secrets.get(&id) else {
            if !mount.required {
                return Ok(());
            }
            return Err(Error::refused(format!("secret {id}: not found"))
                .with_fix(format!("build with --secret id={id},src=<file>")));
        };
        if let Some(name) = &mount.env {
            let name = if name.is_empty() { &id } else { name };
            let text = String::from_utf8(value.clone()).map_err(|_| {
                Error::refused(format!("secret {id} is no text, and cannot be a variable"))
            })?;
            mounts.env.insert(name.clone(), text);
            if mount.target.is_empty() {
                return Ok(());
            }
        }
        // In memory: a secret is never written to the disk.
        mounts.memory.push(Memory::mount(place, 0)?);
        let path = place.join("secret");
        run::secret_file(mount, value, &path)?;
        let target = if mount.target.is_empty() {
            format!("/run/secrets/{id}")
        } else {
            mount.target.clone()
        };
        mounts.list.push(bind(&path, &target, true));
        Ok(())
    }

    fn ssh(&self, mounts: &mut Mounts, mount: &Mount) -> Result<()> {
        let id = if mount.id.is_empty() { "default" } else { &mount.id };
        let Some(socket) = self.request.ssh.get(id) else {
            if !mount.required {
                return Ok(());
            }
            return Err(Error::refused(format!("unset ssh forward key {id}"))
                .with_fix(format!("build with --ssh {id}")));
        };
        let number = mounts.env.contains_key("SSH_AUTH_SOCK");
        let target = match mount.target.as_str() {
            "" => format!("/run/buildkit/ssh_agent.{}", u8::from(number)),
            target => target.to_owned(),
        };
        mounts.list.push(bind(socket, &target, false));
        mounts.env.entry("SSH_AUTH_SOCK".to_owned()).or_insert(target);
        Ok(())
    }
}

fn bind(source: &Path, target: &str, read_only: bool) -> cri::Mount {
    cri::Mount {
        container_path: target.to_owned(),
        host_path: source.display().to_string(),
        readonly: read_only,
        ..cri::Mount::default()
    }
}
