//! Debian's containerd and runc behind the client, in network and mount namespaces of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cri::Client;
use runtime::cri::*;
use runtime::{ImageService, RuntimeService};
use tasks::Tasks;

use crate::LIMIT;

/// Set in the process that runs inside the namespaces.
const INSIDE: &str = "TRIREME_TEST_INSIDE";

/// A program, its links and the image's first command, as a docker archive.
fn archive(name: &str, entrypoint: &[&str]) -> Vec<u8> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
    let busybox = busybox.into_iter().find(|path| path.exists());
    let program = std::fs::read(busybox.expect("apt-get install busybox-static")).unwrap();
    let mut layer = tar::Builder::new(Vec::new());
    let mut head = tar::Header::new_gnu();
    head.set_mode(0o755);
    head.set_size(program.len() as u64);
    layer.append_data(&mut head, "bin/busybox", &program[..]).unwrap();
    for tool in ["sh", "cat", "echo", "sleep", "nc", "true"] {
        let mut head = tar::Header::new_gnu();
        head.set_entry_type(tar::EntryType::Symlink);
        head.set_size(0);
        layer.append_link(&mut head, format!("bin/{tool}"), "busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = config.to_string();
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let mut whole = tar::Builder::new(Vec::new());
    let manifest = manifest.to_string();
    for (path, content) in [
        ("layer.tar", &layer[..]),
        ("config.json", config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut head = tar::Header::new_gnu();
        head.set_mode(0o644);
        head.set_size(content.len() as u64);
        whole.append_data(&mut head, path, content).unwrap();
    }
    whole.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// containerd with all that it keeps; it and its containers' shims go with this.
struct Containerd {
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Pods are removed by the test: a shim that is left would hold its mounts.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Containerd {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    fn start() -> Containerd {
        let dir = tempfile::Builder::new().prefix("trireme-cd-").tempdir_in("/var/tmp").unwrap();
        let at = dir.path().display();
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
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        std::fs::create_dir(dir.path().join("cni")).unwrap();
        let network = format!(
            r#"{{"cniVersion": "0.4.0", "name": "it", "plugins": [{{"type": "ptp", "ipam":
            {{"type": "host-local", "subnet": "10.87.0.0/24", "dataDir": "{at}/ipam"}}}}]}}"#
        );
        std::fs::write(dir.path().join("cni/it.conflist"), network).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(dir.path().join("config.toml"));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child =
            child.spawn().expect("apt-get install containerd runc containernetworking-plugins");
        Containerd { child, dir }
    }

    fn import(&self, name: &str, entrypoint: &[&str]) {
        let file = self.dir.path().join("image.tar");
        std::fs::write(&file, archive(name, entrypoint)).unwrap();
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io", "images", "import"]);
        let done = ctr.arg(&file).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

async fn ready(client: &Client) {
    let answers = async {
        while client.version().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, answers).await.expect("containerd answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_serves_a_pod() {
    if std::env::var_os(INSIDE).is_none() {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--propagation", "private", "sh", "-c"]);
        // A runc of its own: its state must not be found by others.
        unshare.arg("ip link set lo up && mount -t tmpfs run /run && exec \"$0\" \"$@\"");
        unshare.arg(std::env::current_exe().unwrap());
        let test = "containerd::containerd_serves_a_pod";
        let done = unshare.args([test, "--exact", "--nocapture"]).env(INSIDE, "1").output();
        let done = done.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
        return;
    }
    let containerd = Containerd::start();
    let tasks = Tasks::new();
    let client = Client::new(&format!("unix://{}", containerd.socket().display()), &tasks).unwrap();
    ready(&client).await;
    containerd.import("docker.io/library/pause:it", &["/bin/sleep", "1000000"]);
    containerd.import("docker.io/library/busybox:it", &["/bin/sh"]);
    let name = containerd.dir.path().file_name().unwrap().to_string_lossy().into_owned();
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "pod".into(),
            uid: "u".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        log_directory: containerd.dir.path().join("logs").to_string_lossy().into_owned(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: format!("/{name}"),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    };
    let pod = crate::client::a_pod(&client, config, "docker.io/library/busybox:it");
    tokio::time::timeout(3 * LIMIT, pod).await.unwrap();
    let images = client.list_images(ImageFilter::default()).await.unwrap();
    assert!(images.iter().any(|i| i.repo_tags == ["docker.io/library/busybox:it"]), "{images:?}");
    let missing = ImageSpec { image: "127.0.0.1:9/nothing:here".into(), ..ImageSpec::default() };
    let request = PullImageRequest { image: Some(missing), ..PullImageRequest::default() };
    let refused = client.pull_image(request).await.unwrap_err();
    assert!(refused.chain().contains("127.0.0.1:9/nothing:here"), "{}", refused.chain());
    tasks.cancel();
    let groups = runtime::cgroup::Hierarchies::detect(Path::new("/sys/fs/cgroup")).unwrap();
    groups.group(&format!("/{name}")).unwrap().remove().unwrap();
}
