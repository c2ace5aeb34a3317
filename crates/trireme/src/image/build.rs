//! `trireme image build`: an image from a Dockerfile, into the stores of a cluster's nodes.
//!
//! The build has a store and a runtime of its own, so it works whether the cluster runs or not.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use builder::{Builder, Request};
use dockerfile::Network;
use dockerfile::ignore::Patterns;
use runtime::Config;
use runtime::image::{ImageStore, StoredImage};

use crate::cluster::ClusterPaths;
use crate::control;
use crate::runtime_flags::RegistryFlags;

/// Bytes of a Dockerfile, an ignore file or a secret.
const DOCUMENT_MAX: u64 = 16 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct BuildArgs {
    /// The build context: a directory.
    context: PathBuf,
    /// The Dockerfile; `-` reads it from standard input. [default: CONTEXT/Dockerfile]
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// A name for the image; may be given several times.
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// A value for an ARG; without `=`, the variable of the environment.
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    build_args: Vec<String>,
    /// The stage to build, by name or number.
    #[arg(long)]
    target: Option<String>,
    /// The image's platform: only this machine's.
    #[arg(long, default_value = "")]
    platform: String,
    /// A label for the image.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Run every step again.
    #[arg(long)]
    no_cache: bool,
    /// Fetch base images even when they are here.
    #[arg(long)]
    pull: bool,
    /// A secret for `RUN --mount=type=secret`: `id=NAME[,src=FILE|,env=VARIABLE]`.
    #[arg(long = "secret", value_name = "SPEC")]
    secrets: Vec<String>,
    /// An SSH agent for `RUN --mount=type=ssh`: `default` or `ID=SOCKET`.
    #[arg(long = "ssh", value_name = "SPEC")]
    ssh: Vec<String>,
    /// The network of RUN steps: `host` (this machine's, also the default) or `none`.
    #[arg(long, default_value = "default", value_parser = ["default", "host", "none"])]
    network: String,
    /// Allow `RUN --security=insecure`.
    #[arg(long, value_parser = ["security.insecure"])]
    allow: Vec<String>,
    /// Where the image goes: `type=node` (the cluster's nodes) or `type=oci,dest=FILE`.
    #[arg(short, long, default_value = "type=node", value_name = "SPEC")]
    output: Vec<String>,
    /// The builder's own store and cache. [default: beside the clusters' folders]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Most that the cache may take, as a quantity; what was not used for longest goes after the build.
    #[arg(long, value_name = "SIZE", default_value = "20Gi", value_parser = crate::roles::kubelet::bytes)]
    cache_limit: u64,
    #[command(flatten)]
    registries: RegistryFlags,
}

/// Where a built image goes.
#[derive(Debug, PartialEq, Eq)]
enum Output {
    Nodes,
    Archive(PathBuf),
}

pub(super) fn run(args: BuildArgs, paths: &ClusterPaths) -> Result<()> {
    let outputs = args.output.iter().map(|o| output(o)).collect::<Result<Vec<_>>>()?;
    let request = request(&args)?;
    crate::doctor::require()?;
    let root = match &args.root {
        Some(root) => std::path::absolute(root)?,
        None => paths.root.parent().unwrap_or(Path::new("/")).with_file_name("build"),
    };
    crate::cluster::folder::make_private(&root)?;
    let mut config = Config::new(root.join("lib"), root.join("run"));
    config.cgroup_parent = "/trireme-build".to_owned();
    config.registries = args.registries.read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let image = runtime.block_on(build(config, &request, (paths, args.cache_limit)))?;
    let store = root.join("lib/images");
    for output in &outputs {
        match output {
            Output::Nodes => to_nodes(&store, &image, &request.names, paths)?,
            Output::Archive(path) => to_archive(&store, &image, &request.names, path)?,
        }
    }
    println!("{}", image.id);
    Ok(())
}

async fn build(
    config: Config,
    request: &Request,
    (paths, cache_limit): (&ClusterPaths, u64),
) -> Result<StoredImage> {
    let nodes = nodes(paths).into_iter().map(|n| n.join("runtime/images")).collect();
    let builder = Builder::open(config, nodes, |text| eprintln!("{text}")).await?;
    let interrupted = tokio::signal::ctrl_c();
    let done = tokio::select! {
        done = builder.build(request) => done.map_err(anyhow::Error::from),
        _ = interrupted => Err(anyhow::anyhow!("interrupted")),
    };
    // The image is there: what cannot be given back now goes after the next build.
    match builder.collect(cache_limit) {
        Ok(0) => {}
        Ok(bytes) => {
            eprintln!("{:.1} MiB of the cache given back", bytes as f64 / f64::from(1 << 20))
        }
        Err(error) => eprintln!("the cache is not cleaned up: {error:#}"),
    }
    let closed = builder.close().await;
    let image = done?;
    closed?;
    Ok(image)
}

/// The nodes' folders that there are.
fn nodes(paths: &ClusterPaths) -> Vec<PathBuf> {
    (0..).map(|n| paths.node(n)).take_while(|n| n.exists()).collect()
}

/// Into a running cluster by its process, into one that does not run directly.
fn to_nodes(
    store: &Path,
    image: &StoredImage,
    names: &[String],
    paths: &ClusterPaths,
) -> Result<()> {
    if paths.holder()?.is_some() {
        let (store, id, names) = (store.to_owned(), image.id.clone(), names.to_vec());
        control::ask(&paths.control_socket(), &control::Request::Adopt { store, id, names })?;
        return Ok(());
    }
    let nodes = nodes(paths);
    for node in &nodes {
        let images = ImageStore::open(node.join("runtime/images"))?;
        control::adopt(&images, store, &image.id, names)?;
    }
    if nodes.is_empty() {
        eprintln!("there is no cluster {:?}: the image is in the builder's store only", paths.name);
    }
    Ok(())
}

fn to_archive(store: &Path, image: &StoredImage, names: &[String], path: &Path) -> Result<()> {
    let images = ImageStore::open(store)?;
    images.export(&image.id, names, path).map_err(|e| anyhow::anyhow!(e.chain()))
}

fn output(text: &str) -> Result<Output> {
    let fields: BTreeMap<&str, &str> =
        text.split(',').map(|f| f.split_once('=').unwrap_or((f, ""))).collect();
    match (fields.get("type").copied(), fields.get("dest")) {
        (Some("node"), None) => Ok(Output::Nodes),
        (Some("oci"), Some(dest)) => Ok(Output::Archive(PathBuf::from(dest))),
        _ => bail!("--output {text:?}: use type=node or type=oci,dest=<file>"),
    }
}

fn request(args: &BuildArgs) -> Result<Request> {
    let context = args.context.canonicalize();
    let context = context.with_context(|| format!("build context {}", args.context.display()))?;
    if !context.is_dir() {
        bail!("build context {} is no directory", context.display());
    }
    let (file_name, file, ignore) = files(args, &context)?;
    let network = match args.network.as_str() {
        "none" => Network::None,
        "host" => Network::Host,
        _ => Network::Default,
    };
    let mut build_args = BTreeMap::new();
    for text in &args.build_args {
        match text.split_once('=') {
            Some((key, value)) => build_args.insert(key.to_owned(), value.to_owned()),
            // One that is not set is as if it had not been given.
            None => {
                std::env::var(text).ok().and_then(|value| build_args.insert(text.clone(), value))
            }
        };
    }
    let label = |text: &String| {
        let pair = text.split_once('=');
        let pair = pair.with_context(|| format!("--label {text:?}: use KEY=VALUE"))?;
        Ok((pair.0.to_owned(), pair.1.to_owned()))
    };
    Ok(Request {
        file_name,
        file,
        context,
        ignore,
        epoch: epoch(&build_args)?,
        build_args,
        target: args.target.clone(),
        names: args.tags.clone(),
        labels: args.labels.iter().map(label).collect::<Result<_>>()?,
        secrets: args.secrets.iter().map(|s| secret(s)).collect::<Result<_>>()?,
        ssh: args.ssh.iter().map(|s| agent(s)).collect::<Result<_>>()?,
        no_cache: args.no_cache,
        pull: args.pull,
        network,
        allow_insecure: !args.allow.is_empty(),
        platform: args.platform.clone(),
    })
}

/// The Dockerfile and what its context leaves out.
fn files(args: &BuildArgs, context: &Path) -> Result<(String, Vec<u8>, Patterns)> {
    let path = args.file.clone().unwrap_or_else(|| context.join("Dockerfile"));
    let (name, bytes) = match path.as_os_str() == "-" {
        true => {
            let mut bytes = Vec::new();
            std::io::stdin().take(DOCUMENT_MAX).read_to_end(&mut bytes)?;
            ("<stdin>".to_owned(), bytes)
        }
        false => {
            let bytes = read(&path).with_context(|| format!("read {}", path.display()))?;
            (path.display().to_string(), bytes)
        }
    };
    // An ignore file of the Dockerfile's own goes before the context's.
    let mut own = path.into_os_string().into_vec();
    own.extend(b".dockerignore");
    let own = PathBuf::from(std::ffi::OsString::from_vec(own));
    for ignore in [own, context.join(".dockerignore")] {
        if ignore.exists() {
            let text = read(&ignore).with_context(|| format!("read {}", ignore.display()))?;
            let patterns = Patterns::read(&String::from_utf8_lossy(&text));
            let patterns = patterns.map_err(|e| e.in_file(&ignore.display().to_string()))?;
            return Ok((name, bytes, patterns));
        }
    }
    Ok((name, bytes, Patterns::default()))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > DOCUMENT_MAX {
        true => Err(std::io::Error::other(format!("more than {DOCUMENT_MAX} bytes"))),
        false => Ok(bytes),
    }
}

/// `SOURCE_DATE_EPOCH` as a build argument, or of the environment.
fn epoch(build_args: &BTreeMap<String, String>) -> Result<Option<i64>> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let text = build_args.get(NAME).cloned().or_else(|| std::env::var(NAME).ok());
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
    let seconds = text.parse::<i64>().ok().filter(|s| *s >= 0);
    let seconds = seconds.with_context(|| format!("{NAME}={text}: use seconds since 1970"))?;
    Ok(Some(seconds))
}

/// `id=…` with `src=` or `env=`; the id alone names a file or a variable.
fn secret(text: &str) -> Result<(String, Vec<u8>)> {
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for field in text.split(',') {
        let pair = field.split_once('=');
        let (key, value) =
            pair.with_context(|| format!("--secret {text:?}: use id=NAME,src=FILE"))?;
        let key = if key == "source" { "src" } else { key };
        if !["id", "src", "env", "type"].contains(&key) {
            bail!("--secret {text:?}: unexpected key {key:?}");
        }
        fields.insert(key, value);
    }
    let id = fields.get("id").or(fields.get("src"));
    let id = id.with_context(|| format!("--secret {text:?}: id is missing"))?;
    let value = match (fields.get("src"), fields.get("env")) {
        (Some(path), None) if fields.get("type") != Some(&"env") => {
            read(Path::new(path)).with_context(|| format!("--secret {text:?}"))?
        }
        (None, None) if std::env::var_os(id).is_none() => {
            read(Path::new(id)).with_context(|| format!("--secret {text:?}"))?
        }
        (source, name) => {
            let name = name.or(source).unwrap_or(id);
            let value = std::env::var_os(name);
            let value = value.with_context(|| format!("--secret {text:?}: {name} is not set"))?;
            value.into_vec()
        }
    };
    Ok(((*id).to_owned(), value))
}

fn agent(text: &str) -> Result<(String, PathBuf)> {
    let (id, socket) = match text.split_once('=') {
        Some((id, socket)) => (id, PathBuf::from(socket)),
        None => {
            let socket = std::env::var_os("SSH_AUTH_SOCK");
            let socket =
                socket.with_context(|| format!("--ssh {text}: SSH_AUTH_SOCK is not set"))?;
            (text, PathBuf::from(socket))
        }
    };
    let kind = std::fs::metadata(&socket).with_context(|| format!("--ssh {text}"))?.file_type();
    if !std::os::unix::fs::FileTypeExt::is_socket(&kind) {
        bail!("--ssh {text}: {} is no agent's socket; keys are not read", socket.display());
    }
    Ok((id.to_owned(), socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_nodes_or_an_archive() {
        assert_eq!(output("type=node").unwrap(), Output::Nodes);
        assert_eq!(output("type=oci,dest=/x").unwrap(), Output::Archive("/x".into()));
        for bad in ["", "type=tar,dest=x", "type=oci", "type=node,dest=x", "dest=x"] {
            assert!(output(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_come_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "hidden").unwrap();
        let text = format!("id=a,src={}", path.display());
        assert_eq!(secret(&text).unwrap(), ("a".to_owned(), b"hidden".to_vec()));
        for bad in ["a", "id=a,src=/none/x", "id=a,env=NONE_SUCH", "src", "id=a,mode=1", "env=X"] {
            assert!(secret(bad).is_err(), "{bad}");
        }
        assert!(agent(&format!("k={}", path.display())).is_err(), "a file is no agent");
    }

    #[test]
    fn an_epoch_is_a_number_of_seconds() {
        let with = |text: &str| epoch(&BTreeMap::from([("SOURCE_DATE_EPOCH".into(), text.into())]));
        assert_eq!(with("0").unwrap(), Some(0));
        assert!(with("-1").is_err() && with("today").is_err());
    }
}
