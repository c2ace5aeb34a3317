//! A builder for one test: its own directories, supervisor and cgroups; all gone at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use builder::{Builder, Request};
use runtime::Config;
use runtime::image::{StaticImage, StoredImage};

/// How long one build may take.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    pub(crate) builder: Option<Builder>,
    pub(crate) dir: tempfile::TempDir,
    config: Config,
    /// The output of builds, line by line.
    pub(crate) told: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    pub(crate) async fn new() -> Bench {
        let dir = tempfile::Builder::new().prefix("trireme-build-").tempdir_in("/var/tmp").unwrap();
        let mut config = Config::new(dir.path().join("lib"), dir.path().join("run"));
        let name = dir.path().file_name().unwrap().to_str().unwrap();
        config.cgroup_parent = format!("/{name}");
        let test = std::env::current_exe().unwrap();
        let examples = test.parent().unwrap().parent().unwrap().join("examples");
        config.supervisor_command = vec![examples.join("supervisor").into()];
        std::fs::create_dir(dir.path().join("context")).unwrap();
        let told = Arc::default();
        let mut bench = Bench { builder: None, dir, config, told };
        bench.open().await;
        bench.busybox();
        bench
    }

    pub(crate) async fn open(&mut self) {
        self.builder = None;
        let told = self.told.clone();
        let tell = move |text: &str| {
            eprintln!("| {text}");
            told.lock().unwrap().push(text.to_owned());
        };
        let builder = Builder::open(self.config.clone(), Vec::new(), tell).await;
        self.builder = Some(builder.map_err(|e| e.to_string()).unwrap());
    }

    fn busybox(&self) {
        let file =
            ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|p| p.exists());
        let tools = [
            "sh", "cat", "echo", "id", "ls", "grep", "touch", "rm", "mkdir", "env", "stat",
            "chmod", "ln", "mv", "test", "true", "false", "pwd", "find", "sort", "date", "chown",
            "wc", "mount", "df", "nc", "ip", "hostname", "tail", "head",
        ];
        let image = StaticImage {
            file: file.expect("apt-get install busybox-static").to_owned(),
            path: "/bin/busybox".to_owned(),
            links: tools.iter().map(|t| (format!("/bin/{t}"), "busybox".to_owned())).collect(),
            files: vec![
                (
                    "/etc/passwd".to_owned(),
                    "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n".to_owned(),
                ),
                ("/etc/group".to_owned(), "root:x:0:\nweb:x:34:\nlog:x:4:web\n".to_owned()),
            ],
            cmd: vec!["sh".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            names: vec!["busybox".to_owned()],
            ..StaticImage::default()
        };
        self.builder().images().build_static(&image).unwrap();
    }

    pub(crate) fn builder(&self) -> &Builder {
        self.builder.as_ref().unwrap()
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    /// Writes a file of the context.
    pub(crate) fn file(&self, name: &str, text: &str) {
        let path = self.context().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn request(&self, file: &str) -> Request {
        Request {
            file_name: "Dockerfile".to_owned(),
            file: file.as_bytes().to_vec(),
            context: self.context(),
            names: vec!["test.local/built:1".to_owned()],
            ..Request::default()
        }
    }

    pub(crate) async fn try_request(&self, request: &Request) -> Result<StoredImage, String> {
        let build = self.builder().build(request);
        let done = tokio::time::timeout(LIMIT, build).await.expect("the build ends in time");
        // Nothing of a build stays but its layers.
        let tmp = self.config.root.join("images/tmp");
        assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0, "left in tmp");
        done.map_err(|e| e.to_string())
    }

    pub(crate) async fn try_build(&self, file: &str) -> Result<StoredImage, String> {
        self.try_request(&self.request(file)).await
    }

    pub(crate) async fn build(&self, file: &str) -> StoredImage {
        self.try_build(file).await.unwrap()
    }

    pub(crate) async fn refused(&self, file: &str) -> String {
        self.try_build(file).await.unwrap_err()
    }

    pub(crate) fn config(&self, image: &StoredImage) -> serde_json::Value {
        serde_json::from_slice(&self.builder().images().config(&image.id).unwrap()).unwrap()
    }

    /// All files of the layers above the base, with what they hold: a later layer's go over earlier ones'.
    pub(crate) fn files(&self, image: &StoredImage) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let base = self.builder().images().find("busybox").unwrap();
        for layer in image.layers.iter().filter(|l| !base.layers.contains(l)) {
            let dir = self.builder().images().layer_dir(layer);
            walk(&dir, &dir, &mut out);
        }
        out
    }

    pub(crate) fn tree(&self, image: &StoredImage) -> Vec<String> {
        self.files(image).into_keys().collect()
    }
}

fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            out.insert(format!("{name}/"), String::new());
            walk(root, &path, out);
        } else if meta.is_symlink() {
            out.insert(name, format!("-> {}", std::fs::read_link(&path).unwrap().display()));
        } else if meta.is_file() {
            out.insert(name, String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned());
        } else {
            out.insert(name, "special".to_owned());
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let Some(builder) = self.builder.take() else { return };
        let close = || tokio::runtime::Handle::current().block_on(builder.close());
        if let Err(error) = tokio::task::block_in_place(close) {
            eprintln!("not closed: {error}");
        }
    }
}
