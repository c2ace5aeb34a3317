//! An etcd of Debian's, with TLS and client certificates, that a test owns.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use store::EtcdOptions;

pub(crate) struct EtcdServer {
    folder: tempfile::TempDir,
    port: u16,
    /// Where it serves while its clients shall not find it.
    hidden: u16,
    process: Child,
}

/// A port that nobody has now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

fn write_certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = CertifiedIssuer::self_signed(params, key).expect("signs itself");
    std::fs::write(folder.join("ca.crt"), ca.pem()).expect("written");
    for name in ["server", "client"] {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        let signed = params.signed_by(&key, &ca).expect("signs");
        std::fs::write(folder.join(format!("{name}.crt")), signed.pem()).expect("written");
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }
}

fn start(folder: &Path, port: u16) -> Child {
    let url = format!("https://127.0.0.1:{port}");
    let file = |name: &str| folder.join(name).display().to_string();
    Command::new("etcd")
        .args(["--data-dir", &file("data"), "--listen-peer-urls", "http://127.0.0.1:0"])
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--cert-file", &file("server.crt"), "--key-file", &file("server.key")])
        .args(["--client-cert-auth", "--trusted-ca-file", &file("ca.crt")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed (cargo xtask test does it)")
}

impl EtcdServer {
    pub(crate) fn start() -> EtcdServer {
        let folder = tempfile::tempdir().expect("folder");
        write_certificates(folder.path());
        let port = free_port();
        let process = start(folder.path(), port);
        EtcdServer { folder, port, hidden: port, process }
    }

    pub(crate) fn options(&self) -> EtcdOptions {
        let file = |name: &str| -> Option<PathBuf> { Some(self.folder.path().join(name)) };
        EtcdOptions {
            servers: vec![format!("https://127.0.0.1:{}", self.port)],
            ca_file: file("ca.crt"),
            cert_file: file("client.crt"),
            key_file: file("client.key"),
            prefix: "/registry".into(),
            transformer: None,
            form: store::Form::default(),
            compaction_interval: Duration::from_secs(300),
        }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
    }

    /// Serves the same data again, on its old port or on one that nobody knows.
    pub(crate) fn restart(&mut self, hidden: bool) {
        let port = if hidden { free_port() } else { self.port };
        self.process = start(self.folder.path(), port);
        self.hidden = port;
        self.ctl_at(&self.hidden_url(), &["endpoint", "health"]);
    }

    /// Runs etcdctl; what it prints.
    pub(crate) fn ctl(&self, args: &[&str]) -> Vec<u8> {
        self.ctl_at(&format!("https://127.0.0.1:{}", self.port), args)
    }

    pub(crate) fn ctl_at(&self, url: &str, args: &[&str]) -> Vec<u8> {
        let output = self.ctl_command(url, args).output().expect("etcdctl is installed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {args:?}: {errors}");
        output.stdout
    }

    pub(crate) fn ctl_command(&self, url: &str, args: &[&str]) -> Command {
        let file = |name: &str| self.folder.path().join(name);
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", url, "--dial-timeout=20s"]);
        command.args(["--command-timeout=20s"]);
        command.arg("--cacert").arg(file("ca.crt")).arg("--cert").arg(file("client.crt"));
        command.arg("--key").arg(file("client.key")).args(args);
        command
    }

    pub(crate) fn hidden_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.hidden)
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        // It may be dead already, which is what is wanted.
        self.process.kill().unwrap_or_default();
        drop(self.process.wait());
    }
}
