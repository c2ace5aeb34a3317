//! Two API servers on one real etcd: each shows what the other stored, and both outlive its absence.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::roles::Server;

/// An etcd in a folder, on a port of its own.
struct Etcd {
    process: Child,
    folder: tempfile::TempDir,
    url: String,
}

fn serve(folder: &Path, url: &str) -> Child {
    Command::new("etcd")
        .arg("--data-dir")
        .arg(folder)
        .args(["--listen-peer-urls", "http://127.0.0.1:0"])
        .args(["--listen-client-urls", url, "--advertise-client-urls", url])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed (cargo xtask test does it)")
}

impl Etcd {
    fn start() -> Etcd {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        drop(listener);
        let folder = tempfile::tempdir().expect("a folder");
        Etcd { process: serve(folder.path(), &url), folder, url }
    }

    fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
    }

    fn restart(&mut self) {
        self.process = serve(self.folder.path(), &self.url);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may be dead already, which is what is wanted.
        self.process.kill().unwrap_or_default();
        drop(self.process.wait());
    }
}

#[test]
fn two_servers_share_an_etcd_and_outlive_its_absence() {
    let mut etcd = Etcd::start();
    let flag = format!("--etcd-servers={}", etcd.url);
    let (one, two) = (Server::start_with(&[&flag]), Server::start_with(&[&flag]));
    one.eventually(&["create", "namespace", "shared"], |_| true);
    // At once: what one acknowledged, the other shows to whoever asks next.
    let seen = two.try_kubectl(&["get", "namespace", "shared", "-o", "name"]);
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "namespace/shared\n");
    let again = two.try_kubectl(&["create", "namespace", "shared"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("AlreadyExists"), "{again:?}");
    let create = ["-n", "shared", "create", "configmap", "settings", "--from-literal=a=1"];
    two.eventually(&create, |_| true);
    let patch = ["-n", "shared", "patch", "configmap", "settings", "-p", r#"{"data":{"b":"2"}}"#];
    one.eventually(&patch, |_| true);
    let data = ["-n", "shared", "get", "configmap", "settings", "-o", "jsonpath={.data}"];
    let shown = String::from_utf8_lossy(&two.try_kubectl(&data).stdout).into_owned();
    assert_eq!(shown, r#"{"a":"1","b":"2"}"#);

    etcd.kill();
    let refused = one.try_kubectl(&["create", "namespace", "lost"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("etcd"), "{told}");
    etcd.restart();
    one.eventually(&["create", "namespace", "found"], |_| true);
    two.eventually(&["get", "namespace", "found", "-o", "name"], |name| !name.is_empty());
    let shown = String::from_utf8_lossy(&two.try_kubectl(&data).stdout).into_owned();
    assert_eq!(shown, r#"{"a":"1","b":"2"}"#);
}

#[test]
fn etcd_flags_alone_are_refused() {
    let told = crate::roles::refusal(&["kube-apiserver", "--etcd-cafile=/x"]);
    assert!(told.contains("--etcd-servers"), "{told}");
}
