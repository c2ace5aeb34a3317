//! The suite of real containers once more, on Debian's containerd and runc behind the CRI's client: each node has
//! a containerd of its own, in network and mount namespaces that are this run's.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use client::Tasks;
use cri::Client;
use runtime::RuntimeService as _;
use runtime::cgroup::Hierarchies;
use runtime::image::StaticImage;
use serde_json::json;

/// Set in the run that is about containerd.
const WANTED: &str = "TRIREME_TEST_ON_CONTAINERD";
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn is_wanted() -> bool {
    std::env::var_os(WANTED).is_some()
}

/// Modules whose cases are about real containers.
const MODULES: [&str; 5] = ["attacks::", "cgroups::", "features::", "placing::", "real::"];

/// Cases that containerd 1.6 with runc 1.1 does not pass, and why.
const EXCEPTIONS: [(&str, &str); 4] = [
    (
        "attacks::a_user_namespace_is_real_and_its_volumes_belong_to_it",
        "it has no user namespaces (from 1.7 on)",
    ),
    ("features::an_image_or_a_part_of_it_is_a_volume", "it has no image volumes (from 2.1 on)"),
    ("features::a_part_that_an_image_does_not_have_is_an_error", "the same"),
    (
        "features::the_node_tells_what_its_pods_use",
        "it names containers' images by their ids, and the figures say so",
    ),
];

/// containerd with all that it keeps, in a folder of its own. Its processes end with the node's cgroup.
pub(crate) struct Containerd {
    child: Child,
    dir: PathBuf,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // The node's group may have been killed with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Containerd {
    pub(crate) fn start(dir: &Path, cgroup: &str) -> Containerd {
        static NETWORKS: AtomicU8 = AtomicU8::new(0);
        let dir = dir.join("containerd");
        let at = dir.display();
        std::fs::create_dir_all(dir.join("cni")).unwrap();
        let config = format!(
            r#"version = 2
root = "{at}/root"
state = "{at}/state"
[grpc]
address = "{at}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{at}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:it"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
# This machine may have no right to lower it.
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{at}/cni"
"#
        );
        std::fs::write(dir.join("config.toml"), config).unwrap();
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let network = json!({"cniVersion": "0.4.0", "name": "it", "plugins": [{"type": "ptp", "ipam": {
            "type": "host-local", "subnet": format!("10.87.{number}.0/24"), "dataDir": format!("{at}/ipam")}}]});
        std::fs::write(dir.join("cni/it.conflist"), network.to_string()).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(dir.join("config.toml")).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let child = child.expect("apt-get install containerd runc containernetworking-plugins");
        let groups = Hierarchies::detect(Path::new("/sys/fs/cgroup")).unwrap();
        let group = groups.create(&format!("{cgroup}/containerd")).unwrap();
        group.attach(child.id()).unwrap();
        Containerd { child, dir }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("c.sock")
    }

    /// Its client, once it answers.
    pub(crate) async fn client(&self, tasks: &Tasks) -> Arc<Client> {
        let endpoint = format!("unix://{}", self.socket().display());
        let client = Client::new(&endpoint, tasks).unwrap();
        let answers = async {
            while client.version().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, answers).await.expect("containerd answers");
        Arc::new(client)
    }

    /// The image of the suite, and one for sandboxes.
    pub(crate) fn import(&self, image: &StaticImage) {
        let file = self.dir.join("image.tar");
        for (name, entrypoint) in [
            ("docker.io/library/pause:it", ["/bin/sleep", "1000000"].as_slice()),
            ("docker.io/library/busybox:latest", &["/bin/sh"]),
        ] {
            std::fs::write(&file, archive(image, name, entrypoint)).unwrap();
            let mut ctr = Command::new("ctr");
            ctr.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]);
            let done = ctr.args(["images", "import"]).arg(&file).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
    }
}

/// A program and its links as a docker archive.
fn archive(image: &StaticImage, name: &str, entrypoint: &[&str]) -> Vec<u8> {
    let program = std::fs::read(&image.file).unwrap();
    let mut layer = tar::Builder::new(Vec::new());
    let file = |size: usize| {
        let mut head = tar::Header::new_gnu();
        head.set_mode(0o755);
        head.set_size(size as u64);
        head
    };
    let place = image.path.trim_start_matches('/');
    layer.append_data(&mut file(program.len()), place, &program[..]).unwrap();
    for (link, to) in &image.links {
        let mut head = file(0);
        head.set_entry_type(tar::EntryType::Symlink);
        layer.append_link(&mut head, link.trim_start_matches('/'), to).unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    let mut whole = tar::Builder::new(Vec::new());
    for (path, content) in [
        ("layer.tar", &layer[..]),
        ("config.json", config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ] {
        whole.append_data(&mut file(content.len()), path, content).unwrap();
    }
    whole.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// How many cases a run of tests has passed.
fn passed(said: &str) -> usize {
    let line = said.lines().rev().find(|line| line.starts_with("test result: ok."));
    let count = line.and_then(|line| line.split(' ').nth(3)?.parse().ok());
    count.unwrap_or(0)
}

#[test]
fn the_suite_passes_on_debians_containerd() {
    if is_wanted() {
        return;
    }
    // A runc of its own: its state must not be found by others.
    let script = "ip link set lo up && mount -t tmpfs run /run && exec \"$0\" \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount", "--propagation", "private", "sh", "-c", script]);
    unshare.arg(std::env::current_exe().unwrap()).args(MODULES);
    for (case, _) in EXCEPTIONS {
        unshare.args(["--skip", case]);
    }
    let done = unshare.args(["--test-threads", "2"]).env(WANTED, "1").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&done.stdout);
    assert!(done.status.success(), "{said}{}", text(&done.stderr));
    assert!(passed(&said) + EXCEPTIONS.len() >= 24, "{said}");
}
