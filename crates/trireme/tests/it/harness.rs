//! A cluster of the test's own: its folder, its name, its kubectl; gone when dropped.

use std::cell::RefCell;
use std::process::{Command, Output, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::busybox;
use crate::netns::Netns;

/// Longest wait for something that happens by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what kubectl cannot wait for.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    name: String,
    /// `up` or `server`.
    role: &'static str,
    /// The namespace that plays the host; none for the machine's own.
    host: Option<Rc<Netns>>,
    /// What the last start printed.
    said: RefCell<String>,
}

impl Cluster {
    /// Starts `trireme up -d` with further flags. The machine's own network gets nothing.
    pub(crate) fn up(name: &str, flags: &[&str]) -> Cluster {
        Cluster::begin(name, "up", None, &[&["--host-routes=none"], flags].concat())
    }

    /// The same inside a namespace that plays the host.
    pub(crate) fn inside(name: &str, host: Netns, flags: &[&str]) -> Cluster {
        Cluster::begin(name, "up", Some(Rc::new(host)), flags)
    }

    /// Starts `trireme server -d` in a namespace that plays the host.
    pub(crate) fn server(name: &str, host: Netns, flags: &[&str]) -> Cluster {
        Cluster::begin(name, "server", Some(Rc::new(host)), flags)
    }

    fn begin(name: &str, role: &'static str, host: Option<Rc<Netns>>, flags: &[&str]) -> Cluster {
        // Short: unix socket paths end at 108 bytes.
        let folder = tempfile::Builder::new().prefix("tri").tempdir_in("/tmp").expect("a folder");
        let name = format!("{name}{}", std::process::id() % 10_000);
        let cluster = Cluster { folder, name, role, host, said: RefCell::default() };
        cluster.start(flags);
        cluster
    }

    pub(crate) fn start(&self, flags: &[&str]) {
        let mut args = vec![self.role, "-d", "--name", &self.name];
        args.extend(flags);
        let output = self.trireme(&args);
        assert!(output.contains("Cluster is ready"), "{output}");
        self.said.replace(output);
    }

    /// Another cluster on the same host.
    pub(crate) fn beside(&self, name: &str) -> Cluster {
        Cluster::begin(name, "up", self.host.clone(), &[])
    }

    /// Loads the image of [`busybox`].
    pub(crate) fn import_busybox(&self) {
        let folder = tempfile::tempdir().expect("a folder");
        let archive = busybox::archive(folder.path()).to_string_lossy().into_owned();
        let images = self.trireme(&["image", "--name", &self.name, "import", &archive]);
        assert!(images.contains(busybox::NAME), "{images}");
    }

    /// What the last start printed.
    pub(crate) fn said(&self) -> String {
        self.said.borrow().clone()
    }

    /// The namespace that plays the host.
    pub(crate) fn host(&self) -> &Netns {
        self.host.as_ref().expect("this cluster has a host of the test's own")
    }

    /// A program as the host runs it.
    fn program(&self, program: &str) -> Command {
        match &self.host {
            Some(host) => host.command(program),
            None => Command::new(program),
        }
    }

    fn command(&self) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_trireme"));
        command.env("TRIREME_ROOT", self.folder.path());
        command
    }

    pub(crate) fn trireme(&self, args: &[&str]) -> String {
        text(self.command().args(args).output().expect("trireme runs"), args)
    }

    /// Runs trireme, which must refuse; what it says.
    pub(crate) fn trireme_fails(&self, args: &[&str]) -> String {
        let output = self.command().args(args).output().expect("trireme runs");
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs the same command in two processes at once.
    pub(crate) fn trireme_twice(&self, args: &[&str]) -> [Output; 2] {
        let spawn = || {
            let mut command = self.command();
            let command = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("trireme runs")
        };
        [spawn(), spawn()].map(|child| child.wait_with_output().expect("trireme runs"))
    }

    /// Where the cluster keeps its files.
    pub(crate) fn folder(&self) -> std::path::PathBuf {
        self.folder.path().join(&self.name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let json = self.trireme(&["status", "--name", &self.name, "-o", "json"]);
        serde_json::from_str(&json).expect("status is JSON")
    }

    pub(crate) fn kubeconfig(&self) -> std::path::PathBuf {
        self.folder.path().join(&self.name).join("kubeconfig")
    }

    fn kubectl_command(&self) -> Command {
        // The dispatcher of some installations picks a version by asking the server: be direct.
        let direct = "/usr/lib/google-cloud-sdk/bin/kubectl.1.33";
        let program = if std::path::Path::new(direct).exists() { direct } else { "kubectl" };
        self.kubectl_command_of(program)
    }

    fn kubectl_command_of(&self, program: &str) -> Command {
        let mut command = self.program(program);
        command.env("KUBECONFIG", self.kubeconfig());
        command.env("HOME", self.folder.path());
        command
    }

    /// Runs kubectl, which must succeed; its output.
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        text(self.kubectl_command().args(args).output().expect("kubectl runs"), args)
    }

    /// Runs every other kubectl that is installed: old ones ask for other forms of things.
    pub(crate) fn other_kubectls(&self, args: &[&str]) -> Vec<String> {
        let versions = ["1.27", "1.28", "1.30", "1.32"];
        let programs = versions.map(|v| format!("/usr/lib/google-cloud-sdk/bin/kubectl.{v}"));
        let installed = programs.iter().filter(|p| std::path::Path::new(p).exists());
        let run = |program: &String| {
            let mut command = self.kubectl_command_of(program);
            text(command.args(args).output().expect("kubectl runs"), args)
        };
        installed.map(run).collect()
    }

    /// A kubectl with these arguments, to be run as the caller likes.
    pub(crate) fn kubectl_command_for(&self, args: &[&str]) -> Command {
        let mut command = self.kubectl_command();
        command.args(args);
        command
    }

    /// Runs kubectl, which must not succeed; its exit code and what it said.
    pub(crate) fn kubectl_fails_with(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.kubectl_command().args(args).output().expect("kubectl runs");
        assert!(!output.status.success(), "{args:?} succeeded");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Runs kubectl, which must not succeed.
    pub(crate) fn kubectl_fails(&self, args: &[&str]) {
        let output = self.kubectl_command().args(args).output().expect("kubectl runs");
        assert!(!output.status.success(), "{args:?} succeeded");
    }

    /// Runs kubectl with a document on its standard input.
    pub(crate) fn kubectl_stdin(&self, args: &[&str], input: &str) -> String {
        text(self.with_input(args, input), args)
    }

    fn with_input(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        use std::process::Stdio;
        let mut command = self.kubectl_command();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl runs");
        let mut stdin = child.stdin.take().expect("piped");
        // A kubectl that does not read its input closes it, which is its right.
        stdin.write_all(input.as_bytes()).unwrap_or_default();
        drop(stdin);
        child.wait_with_output().expect("kubectl ends")
    }

    /// Runs kubectl with a document that the server must refuse; what kubectl says.
    pub(crate) fn kubectl_refused(&self, args: &[&str], input: &str) -> String {
        let output = self.with_input(args, input);
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs kubectl until it succeeds.
    pub(crate) fn kubectl_until(&self, args: &[&str]) -> String {
        self.eventually(args, |_| true)
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
                panic!("kubectl {args:?} never got there: {shown}{errors}");
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

    /// The end of what the cluster's process said, unasked.
    pub(crate) fn log(&self) -> String {
        tail(&std::fs::read(self.folder().join("trireme.log")).unwrap_or_default())
    }

    /// What a failed test leaves behind to be read.
    fn tell(&self) {
        for what in [&["get", "pods", "-A", "-o", "yaml"][..], &["get", "events", "-A"]] {
            let shown = self.kubectl_command().args(what).output();
            eprintln!("{what:?}: {}", shown.map(|o| tail(&o.stdout)).unwrap_or_default());
        }
        eprintln!("log: {}", self.log());
    }
}

/// The last of it: a report that is longer is not read.
fn tail(bytes: &[u8]) -> String {
    const SHOWN: usize = 16 << 10;
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SHOWN)..]).into_owned()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        let output = self.command().args(["reset", "--yes", "--name", &self.name]).output();
        let failed = output.ok().filter(|o| !o.status.success());
        if let Some(output) = failed {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(std::thread::panicking(), "reset failed: {told}");
            eprintln!("reset failed: {told}");
        }
    }
}

/// GETs `/` from a port of the host's loopback until there is an answer.
pub(crate) fn eventually_http(port: u16) -> String {
    use std::io::{Read as _, Write as _};
    let start = Instant::now();
    loop {
        let mut answer = String::new();
        let asked = std::net::TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            stream.read_to_string(&mut answer)
        });
        if asked.is_ok() && answer.contains("200 OK") {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "port {port} never answered: {asked:?} {answer}");
        std::thread::sleep(LOOK);
    }
}

fn text(output: Output, args: &[&str]) -> String {
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?} failed: {shown}{errors}");
    shown
}
