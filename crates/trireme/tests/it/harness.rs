//! A cluster of the test's own: its folder, its name, its kubectl; gone when dropped.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Longest wait for something that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what kubectl cannot wait for.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    name: String,
}

impl Cluster {
    /// Starts `trireme up -d` with further flags.
    pub(crate) fn up(name: &str, flags: &[&str]) -> Cluster {
        // Short: unix socket paths end at 108 bytes.
        let folder = tempfile::Builder::new().prefix("tri").tempdir_in("/tmp").expect("a folder");
        let cluster = Cluster { folder, name: format!("{name}{}", std::process::id() % 10_000) };
        cluster.start(flags);
        cluster
    }

    pub(crate) fn start(&self, flags: &[&str]) {
        let mut args = vec!["up", "-d", "--name", &self.name];
        args.extend(flags);
        let output = self.trireme(&args);
        assert!(output.contains("Cluster is ready"), "{output}");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trireme"));
        command.env("TRIREME_ROOT", self.folder.path());
        command
    }

    pub(crate) fn trireme(&self, args: &[&str]) -> String {
        text(self.command().args(args).output().expect("trireme runs"), args)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let json = self.trireme(&["status", "--name", &self.name, "-o", "json"]);
        serde_json::from_str(&json).expect("status is JSON")
    }

    fn kubectl_command(&self) -> Command {
        // The dispatcher of some installations picks a version by asking the server: be direct.
        let direct = "/usr/lib/google-cloud-sdk/bin/kubectl.1.33";
        let program = if std::path::Path::new(direct).exists() { direct } else { "kubectl" };
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.folder.path().join(&self.name).join("kubeconfig"));
        command.env("HOME", self.folder.path());
        command
    }

    /// Runs kubectl, which must succeed; its output.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        text(self.kubectl_command().args(args).output().expect("kubectl runs"), args)
    }

    /// Runs kubectl with a document on its standard input.
    pub(crate) fn kubectl_stdin(&self, args: &[&str], input: &str) -> String {
        use std::io::Write as _;
        use std::process::Stdio;
        let mut command = self.kubectl_command();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("kubectl reads");
        drop(stdin);
        text(child.wait_with_output().expect("kubectl ends"), args)
    }

    /// Runs kubectl until its output satisfies `enough`.
    pub(crate) fn eventually(&self, args: &[&str], enough: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let output = self.kubectl_command().args(args).output().expect("kubectl runs");
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && enough(&shown) {
                return shown;
            }
            if start.elapsed() > PATIENCE {
                let errors = String::from_utf8_lossy(&output.stderr);
                let events = self.kubectl(&["get", "events", "-A"]);
                panic!(
                    "kubectl {args:?} never got there: {shown}{errors}\n{events}\n{}",
                    self.log()
                );
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Kills the cluster's process the hard way and waits until it is gone.
    pub(crate) fn kill(&self) {
        let pid = self.status()["pid"].as_u64().expect("a pid").to_string();
        let killed = Command::new("kill").args(["-9", &pid]).status().expect("kill runs");
        assert!(killed.success());
        let start = Instant::now();
        while std::path::Path::new(&format!("/proc/{pid}/exe")).exists()
            && start.elapsed() < PATIENCE
        {
            std::thread::sleep(LOOK);
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(&self.name).join("trireme.log"))
            .unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let output = self.command().args(["reset", "--yes", "--name", &self.name]).output();
        if let Ok(output) = output
            && !output.status.success()
        {
            eprintln!("reset failed: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

fn text(output: Output, args: &[&str]) -> String {
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?} failed: {shown}{errors}");
    shown
}
