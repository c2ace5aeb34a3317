//! One instruction.

use std::path::PathBuf;

use dockerfile::expand::Lexer;
use dockerfile::ignore::{Patterns, clean};
use dockerfile::{Base, CommandLine, Healthcheck, Instruction, Run, Step, Text, Transfer};
use runtime::image::{Times, layer_digest};
use serde_json::{Value, json};

use super::{Build, Scratch, blocking};
use crate::cache::Entry;
use crate::copy::{Job, Source};
use crate::error::{Error, Result};
use crate::run::{self, Command};
use crate::state::{State, digest};

/// Arguments that RUN steps see without an ARG, and that do not count for the cache.
const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

impl Build<'_> {
    pub(super) async fn step(
        &mut self,
        state: &mut State,
        index: usize,
        step: &Step,
    ) -> Result<()> {
        let mut instruction = step.instruction.clone();
        let by = step.original.trim();
        // ARG's later values may use its earlier names, so it expands itself.
        if !matches!(instruction, Instruction::Arg(_)) {
            self.expand(&mut instruction, state)?;
        }
        match instruction {
            Instruction::Arg(list) => self.arg(state, list)?,
            Instruction::Add(transfer) => {
                return self.transfer(state, index, &transfer, true, by).await;
            }
            Instruction::Copy(transfer) => {
                return self.transfer(state, index, &transfer, false, by).await;
            }
            Instruction::Run(run) => return self.run(state, index, &run, by).await,
            Instruction::Workdir(path) => return self.workdir(state, &path, by).await,
            Instruction::Cmd(line) => {
                state.set("Cmd", json!(line_words(&line, state)));
                state.cmd_is_own = true;
            }
            Instruction::Entrypoint(line) => {
                state.set("Entrypoint", json!(line_words(&line, state)));
                // A CMD of the base was for its own entry point.
                if !state.cmd_is_own {
                    state.config.remove("Cmd");
                }
            }
            Instruction::Env(list) => {
                list.iter().for_each(|(key, value)| state.set_env(key, value));
            }
            Instruction::Label(list) => {
                list.iter().for_each(|(key, value)| state.set_label(key, value));
            }
            Instruction::Expose(list) => {
                let list = list.iter().map(|p| ports(p)).collect::<Result<Vec<_>>>()?.concat();
                state.add_to_set("ExposedPorts", &list);
            }
            Instruction::Volume(list) => state.add_to_set("Volumes", &list),
            Instruction::User(user) if user.is_empty() => {
                return Err(Error::refused("USER has an empty name").with_fix("name a user"));
            }
            Instruction::User(user) => state.set("User", json!(user)),
            Instruction::StopSignal(signal) => {
                stop_signal(&signal)?;
                state.set("StopSignal", json!(signal));
            }
            Instruction::Shell(words) => state.set("Shell", json!(words)),
            Instruction::Healthcheck(check) => state.set("Healthcheck", health(&check)),
            Instruction::Onbuild(text) => {
                let mut list = state.list("OnBuild");
                list.push(text);
                state.set("OnBuild", json!(list));
            }
            Instruction::Maintainer(name) => {
                state.set_author(&name);
            }
            Instruction::From(_) => {
                return Err(Error::refused("FROM is no instruction of a stage"));
            }
        }
        state.book(by, None);
        Ok(())
    }

    fn expand(&self, instruction: &mut Instruction, state: &State) -> Result<()> {
        let variables = state.variables();
        let lexer = Lexer::new(self.file.escape);
        let mut expand = |text: &str, kind: Text| match kind {
            Text::Word => Ok(vec![lexer.word(text, &variables)?]),
            Text::Words => lexer.words(text, &variables),
            Text::Raw => {
                let raw = Lexer { ignore_quotes: true, ..Lexer::new('\\') };
                Ok(vec![raw.word(text, &variables)?])
            }
        };
        Ok(instruction.expand(&mut expand)?)
    }

    fn arg(&mut self, state: &mut State, list: Vec<(String, Option<String>)>) -> Result<()> {
        for (key, default) in list {
            let mut one = Instruction::Arg(vec![(key, default)]);
            self.expand(&mut one, state)?;
            let Instruction::Arg(mut list) = one else { continue };
            let Some((key, default)) = list.pop() else { continue };
            self.used_args.insert(key.clone());
            let given = self.request.build_args.get(&key).cloned();
            let epoch = self.request.epoch.filter(|_| key == "SOURCE_DATE_EPOCH");
            let value = given.or(epoch.map(|e| e.to_string())).or(default);
            if let Some(value) = value.or_else(|| self.globals.get(&key).cloned()) {
                state.arguments.insert(key, value);
            }
        }
        Ok(())
    }

    /// Books a layer made of what `made` leaves in a directory, or the one of an earlier build.
    fn finish(&self, state: &mut State, key: String, entry: Entry, by: &str) {
        state.key = key;
        state.created.clone_from(&entry.created);
        state.book(by, entry.layer);
    }

    fn cached(&self, key: &str) -> Option<Entry> {
        let found =
            self.builder.cache.get(key, &self.builder.images).filter(|_| !self.request.no_cache);
        // Times of an earlier build would make this one another image.
        found.filter(|e| self.request.epoch.is_none() || e.created == self.now)
    }

    /// The layer of a directory in overlayfs' form.
    async fn commit(&self, dir: PathBuf) -> Result<Option<String>> {
        let (store, times) = (self.builder.images.clone(), self.times());
        blocking(move || {
            if layer_digest(&dir, Times::Fixed(0))?.is_none() {
                return Ok(None);
            }
            Ok(Some(store.commit_layer(&dir, times)?))
        })
        .await
    }

    async fn transfer(
        &mut self,
        state: &mut State,
        index: usize,
        transfer: &Transfer,
        is_add: bool,
        by: &str,
    ) -> Result<()> {
        let mut transfer = transfer.clone();
        let (source, from_key) = match transfer.from.as_str() {
            "" => (Source::Context(self.request.context.clone()), String::new()),
            name => {
                let (layers, key) = self.from(index, name).await?;
                (Source::Layers(self.dirs(&layers)), key)
            }
        };
        let scratch = Scratch::new(&self.builder.images)?;
        let fetched = match is_add {
            true => self.fetch(&mut transfer, &scratch).await?,
            false => Vec::new(),
        };
        if !transfer.checksum.is_empty() && fetched.is_empty() {
            return Err(Error::refused("checksum can't be specified for non-HTTP(S) sources")
                .with_fix("remove --checksum"));
        }
        let (layers, workdir) = (self.dirs(&state.layers), state.workdir());
        let ignore = self.request.ignore.clone();
        let place = scratch.to_path_buf();
        let content = blocking(move || {
            let job = Job {
                transfer: &transfer,
                is_add,
                source,
                ignore: &ignore,
                layers,
                workdir,
                scratch: place,
                fetched,
            };
            job.run()?;
            Ok(layer_digest(&job.upper(), Times::Fixed(0))?.unwrap_or_default())
        })
        .await;
        self.book_files(state, &scratch, &[&from_key, &content?], by).await
    }

    /// Books what lies in the scratch directory's upper; what it is made of names it.
    async fn book_files(
        &self,
        state: &mut State,
        scratch: &std::path::Path,
        content: &[&str],
        by: &str,
    ) -> Result<()> {
        let mut parts = vec!["files", state.key.as_str()];
        parts.extend(content);
        let key = digest(&parts);
        let entry = match self.cached(&key) {
            Some(entry) => entry,
            None => {
                let layer = self.commit(scratch.join("upper")).await?;
                let entry = Entry { layer, created: self.now.clone() };
                self.builder.cache.put(&key, &entry)?;
                entry
            }
        };
        self.finish(state, key, entry, by);
        Ok(())
    }

    /// The layers and the key of what `--from` names.
    pub(super) async fn from(&mut self, index: usize, name: &str) -> Result<(Vec<String>, String)> {
        match self.file.source(name, index)? {
            Base::Stage(stage) => {
                let state = &self.states[&stage];
                Ok((state.layers.clone(), state.key.clone()))
            }
            Base::Scratch => Ok((Vec::new(), digest(&["scratch"]))),
            Base::Image(name) => {
                let image = self.builder.image(&name, self.request.pull).await?;
                Ok((image.layers, image.id))
            }
        }
    }

    /// Fetches ADD's URLs, and takes them out of its sources.
    async fn fetch(
        &self,
        transfer: &mut Transfer,
        scratch: &std::path::Path,
    ) -> Result<Vec<(String, PathBuf)>> {
        let mut out = Vec::new();
        let mut sources = Vec::new();
        for source in std::mem::take(&mut transfer.sources) {
            let is_url = source.starts_with("http://") || source.starts_with("https://");
            let is_git = source.starts_with("git@")
                || ["git://", "ssh://"].iter().any(|s| source.starts_with(s))
                || (is_url && source.split(['?', '#']).next().is_some_and(|s| s.ends_with(".git")));
            if is_git {
                return Err(Error::refused(format!(
                    "ADD of a Git repository is not supported: {source}"
                ))
                .with_fix("clone it into the build context"));
            }
            if !is_url {
                sources.push(source);
                continue;
            }
            let path = scratch.join(format!("fetched-{}", out.len()));
            runtime::fetch_file(&source, &path, &transfer.checksum).await?;
            let plain = source.split(['?', '#']).next().unwrap_or(&source);
            let (_, after) = plain.split_once("://").unwrap_or(("", plain));
            let name =
                after.split_once('/').map_or("", |(_, p)| p).rsplit('/').next().unwrap_or("");
            if name.is_empty() && transfer.destination.ends_with('/') {
                return Err(Error::refused(format!(
                    "cannot determine filename for source {source}"
                ))
                .with_fix("end the destination with the file's name"));
            }
            out.push((name.to_owned(), path));
        }
        transfer.sources = sources;
        Ok(out)
    }

    async fn workdir(&mut self, state: &mut State, path: &str, by: &str) -> Result<()> {
        if path.is_empty() {
            return Err(Error::refused("WORKDIR requires exactly one argument")
                .with_fix("a variable in it has no value"));
        }
        let absolute = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}/{path}", state.workdir()),
        };
        let path = clean(&absolute);
        state.set("WorkingDir", json!(path));
        let scratch = Scratch::new(&self.builder.images)?;
        let layers = self.dirs(&state.layers);
        let place = scratch.to_path_buf();
        let made = blocking(move || {
            let transfer = Transfer { destination: format!("{path}/"), ..Transfer::default() };
            let nothing = Patterns::default();
            let job = Job {
                transfer: &transfer,
                is_add: false,
                source: Source::Layers(Vec::new()),
                ignore: &nothing,
                layers,
                workdir: path,
                scratch: place,
                fetched: Vec::new(),
            };
            job.make_directory()?;
            Ok(layer_digest(&job.upper(), Times::Fixed(0))?)
        })
        .await;
        match made? {
            Some(content) => self.book_files(state, &scratch, &[&content], by).await,
            None => {
                state.book(by, None);
                Ok(())
            }
        }
    }

    async fn run(&mut self, state: &mut State, index: usize, step: &Run, by: &str) -> Result<()> {
        if step.insecure && !self.request.allow_insecure {
            return Err(Error::refused("security.insecure is not allowed")
                .with_fix("build with --allow security.insecure"));
        }
        let (words, script) = run::words(step, &state.shell())?;
        let scratch = Scratch::new(&self.builder.images)?;
        self.run_in(state, index, step, (words, script), &scratch, by).await
    }

    async fn run_in(
        &mut self,
        state: &mut State,
        index: usize,
        step: &Run,
        (words, script): (Vec<String>, Option<dockerfile::Heredoc>),
        scratch: &std::path::Path,
        by: &str,
    ) -> Result<()> {
        let mounts = self.mounts(state, index, step, script.as_ref(), scratch).await?;
        let mut parts = vec!["run".to_owned(), state.key.clone(), json!(words).to_string()];
        parts.push(json!([state.variables(), state.text("User"), state.workdir()]).to_string());
        parts.push(json!([mounts.key, format!("{:?}", step.network), step.insecure]).to_string());
        parts.extend(script.iter().map(|s| s.text()));
        let key = digest(&parts.iter().map(String::as_str).collect::<Vec<_>>());
        let key = if self.request.epoch.is_some() { digest(&[&key, &self.now]) } else { key };
        if let Some(entry) = self.cached(&key) {
            self.builder.say("cached");
            self.finish(state, key, entry, by);
            return Ok(());
        }
        let image = self.borrowed_image(state)?;
        let mut env = state.arguments.clone();
        let proxies =
            self.request.build_args.iter().filter(|(k, _)| PROXY_ARGS.contains(&k.as_str()));
        env.extend(proxies.map(|(key, value)| (key.clone(), value.clone())));
        env.extend(mounts.env.clone());
        // ENV goes before ARG, and is in the image already.
        for entry in state.list("Env") {
            env.remove(entry.split('=').next().unwrap_or_default());
        }
        let command = Command {
            layers: self.dirs(&state.layers),
            words,
            env,
            workdir: state.workdir(),
            network: match step.network {
                dockerfile::Network::Default => self.request.network,
                other => other,
            },
            insecure: step.insecure,
            mounts: mounts.list.clone(),
            scratch: scratch.to_owned(),
            image,
        };
        let done = self.run_command(&command).await;
        let entry = Entry { layer: done?, created: self.now.clone() };
        self.builder.cache.put(&key, &entry)?;
        self.finish(state, key, entry, by);
        Ok(())
    }

    async fn run_command(&self, command: &Command) -> Result<Option<String>> {
        let finished = run::run(&self.builder.runtime, command, &*self.builder.tell).await?;
        let result = if finished.exit_code == 0 {
            let upper = finished.changes()?;
            let targets: Vec<String> = run::MOUNT_POINTS
                .iter()
                .map(|p| (*p).to_owned())
                .chain(command.mounts.iter().map(|m| m.container_path.clone()))
                .collect();
            let (layers, place) = (command.layers.clone(), upper.clone());
            let cleaned = blocking(move || run::remove_stubs(&place, &layers, &targets)).await;
            match cleaned {
                Ok(()) => self.commit(upper).await,
                Err(error) => Err(error),
            }
        } else {
            let said = finished.last_lines.clone();
            let line = command.words.join(" ");
            let text = format!(
                "process {line:?} did not complete successfully: exit code: {}",
                finished.exit_code
            );
            Err(Error::refused(if said.is_empty() { text } else { format!("{text}\n{said}") }))
        };
        let removed = finished.remove().await;
        result.and_then(|layer| removed.map(|()| layer))
    }
}

fn line_words(line: &CommandLine, state: &State) -> Vec<String> {
    match line.shell {
        true if line.words.is_empty() => Vec::new(),
        true => state.shell().into_iter().chain(line.words.clone()).collect(),
        false => line.words.clone(),
    }
}

/// `port`, `from-to`, each with a protocol: as names of ports.
fn ports(text: &str) -> Result<Vec<String>> {
    let bad = || {
        Error::refused(format!("invalid containerPort: {text}"))
            .with_fix("write a port from 1 to 65535, a range, or one with /tcp, /udp or /sctp")
    };
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(bad());
    }
    // What stands before a colon is the host's, which an image does not have.
    let range = range.rsplit(':').next().unwrap_or(range);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) =
        (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first > last {
        return Err(bad());
    }
    Ok((first..=last).map(|p| format!("{p}/{protocol}")).collect())
}

fn stop_signal(text: &str) -> Result<()> {
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let number = text.parse::<u32>().is_ok_and(|n| (1..=64).contains(&n));
    const NAMES: [&str; 31] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT",
        "KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM",
        "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "WINCH",
    ];
    let known = NAMES.contains(&name)
        || ["VTALRM", "XCPU", "XFSZ"].contains(&name)
        || name.starts_with("RTMIN")
        || name.starts_with("RTMAX");
    if number || known {
        return Ok(());
    }
    Err(Error::refused(format!("Invalid signal: {text}")).with_fix("write e.g. SIGTERM"))
}

fn health(check: &Healthcheck) -> Value {
    let mut value = json!({ "Test": check.test });
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (key, time) in times.iter().filter(|(_, t)| !t.is_zero()) {
        value[*key] = json!(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
    if check.retries > 0 {
        value["Retries"] = json!(check.retries);
    }
    value
}
