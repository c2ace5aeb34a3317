//! A cluster of five separate processes in one namespace that plays the host, joined by HTTPS and
//! certificates alone: API server, controllers, scheduler, kubelet, kube-proxy.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pki::{Authority, CertSpec, KeyPairPem};

use crate::netns::Netns;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
const ADDRESS: &str = "192.0.2.1";

const TOKENS: &str = r#"admin-token,admin,1,"system:masters"
manager-token,system:kube-controller-manager,2,"system:masters"
scheduler-token,system:kube-scheduler,3
proxy-token,system:kube-proxy,4
node-token,system:node:box,5,"system:nodes"
"#;

struct Machine {
    folder: tempfile::TempDir,
    host: Netns,
    _internet: Netns,
    processes: Vec<Child>,
    cgroup: String,
}

impl Machine {
    fn new() -> Machine {
        let (host, internet) = Netns::host_and_internet();
        // Short: unix socket paths end at 108 bytes.
        let folder = tempfile::Builder::new().prefix("tri").tempdir_in("/tmp").expect("a folder");
        std::fs::write(folder.path().join("tokens"), TOKENS).expect("written");
        let cgroup = format!("/trireme-alone-{}", std::process::id());
        Machine { folder, host, _internet: internet, processes: Vec::new(), cgroup }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn kubeconfig(&self, user: &str) -> String {
        let path = self.path(&format!("{user}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"https://{ADDRESS}:6443\", certificate-authority: pki/ca.crt}}}}]\n\
             users: [{{name: {user}, user: {{token: {user}-token}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: {user}}}}}]\n"
        );
        std::fs::write(&path, text).expect("written");
        path
    }

    fn start(&mut self, role: &str, args: &[&str]) {
        let log = std::fs::File::create(self.path(&format!("{role}.log"))).expect("a log");
        let mut command = self.host.command(env!("CARGO_BIN_EXE_trireme"));
        command.arg(role).args(args).stdin(Stdio::null()).stderr(log);
        self.processes.push(command.spawn().expect("trireme runs"));
    }

    /// Runs a program on the host until it succeeds and its output satisfies `enough`.
    fn until(&self, program: &str, args: &[&str], enough: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let mut command = self.host.command(program);
            command.env("KUBECONFIG", self.kubeconfig("admin")).env("HOME", self.folder.path());
            let output = command.args(args).output().expect("nsenter runs");
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && enough(&shown) {
                return shown;
            }
            assert!(start.elapsed() < PATIENCE, "{program} {args:?}: {output:?}\n{}", self.logs());
            std::thread::sleep(LOOK);
        }
    }

    fn kubectl(&self, args: &[&str]) -> String {
        let direct = "/usr/lib/google-cloud-sdk/bin/kubectl.1.33";
        let program = if Path::new(direct).exists() { direct } else { "kubectl" };
        self.until(program, args, |_| true)
    }

    fn logs(&self) -> String {
        let logs = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let logs = logs.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "log"));
        let show = |path: PathBuf| {
            format!("{}:\n{}", path.display(), std::fs::read_to_string(&path).unwrap_or_default())
        };
        logs.map(show).collect()
    }

    /// The node API's certificate, of the cluster's authority as a real installation has it.
    fn node_certificate(&self) {
        let read = |name: &str| std::fs::read_to_string(self.path(name)).expect("the cluster's CA");
        let pair = KeyPairPem { cert_pem: read("pki/ca.crt"), key_pem: read("pki/ca.key") };
        let authority = Authority::load(pair).expect("the cluster's CA");
        let address = [ADDRESS.parse().expect("an address")];
        let own = authority.issue(&CertSpec::server("system:node:box", &["box"], &address));
        let own = own.expect("a certificate");
        std::fs::write(self.path("node.crt"), own.cert_pem).expect("written");
        std::fs::write(self.path("node.key"), own.key_pem).expect("written");
    }

    fn start_all(&mut self) {
        let [pki, data, tokens] = ["pki", "data", "tokens"].map(|n| self.path(n));
        let mut args = vec!["--advertise-address", ADDRESS, "--cert-dir", &pki];
        args.extend(["--data-dir", &data, "--token-auth-file", &tokens]);
        self.start("kube-apiserver", &args);
        self.kubectl(&["get", "--raw", "/readyz"]);
        self.node_certificate();
        let config = self.kubeconfig("manager");
        let cidr = "--cluster-cidr=10.44.0.0/16";
        self.start("kube-controller-manager", &["--kubeconfig", &config, cidr]);
        let config = self.kubeconfig("scheduler");
        self.start("kube-scheduler", &["--kubeconfig", &config]);
        let config = self.kubeconfig("proxy");
        let name = "--hostname-override=box";
        self.start("kube-proxy", &["--kubeconfig", &config, cidr, name]);
        let config = self.kubeconfig("node");
        let [root, ca, crt, key] =
            ["kubelet", "pki/ca.crt", "node.crt", "node.key"].map(|n| self.path(n));
        let group = self.cgroup.clone();
        let mut args = vec!["--kubeconfig", &config, name, "--root-dir", &root];
        args.extend(["--client-ca-file", &ca, "--tls-cert-file", &crt]);
        args.extend(["--tls-private-key-file", &key, "--cgroup-root", &group]);
        // A machine that runs tests may well have a nearly full disk.
        args.push("--eviction-hard=nodefs.available<1Gi");
        self.start("kubelet", &args);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in &mut self.processes {
            child.kill().unwrap_or_default();
            child.wait().expect("a killed process ends");
        }
        end_supervisor(self.folder.path());
        let unmount = "grep -o \" $0/[^ ]*\" /proc/mounts | sort -r | xargs -r umount -l";
        let folder = self.folder.path().to_string_lossy().into_owned();
        run("sh", &["-c", unmount, &folder]);
        let groups = format!(
            "find /sys/fs/cgroup -depth -type d -path '*{}*' -exec rmdir {{}} +",
            self.cgroup
        );
        run("sh", &["-c", &groups]);
    }
}

fn run(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).status().expect("it runs");
    assert!(done.success() || std::thread::panicking(), "{program} {args:?}");
}

/// The supervisor outlives the kubelet on purpose; it is the one whose state lies in the folder.
fn end_supervisor(folder: &Path) {
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let ours = line.contains("supervisor") && line.contains(&*folder.to_string_lossy());
        if ours {
            run("kill", &["-9", &entry.file_name().to_string_lossy()]);
            while entry.path().join("exe").exists() {
                std::thread::sleep(LOOK);
            }
        }
    }
}

#[test]
fn five_processes_make_a_cluster() {
    let mut machine = Machine::new();
    machine.start_all();
    machine.kubectl(&["wait", "--for=condition=Ready", "node/box", "--timeout=30s"]);
    machine.kubectl(&["create", "deployment", "web", "--image=trireme.local/demo:v1"]);
    machine.kubectl(&[
        "expose",
        "deployment/web",
        "--port=80",
        "--target-port=8080",
        "--type=NodePort",
    ]);
    machine.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(
        machine.kubectl(&["logs", "deployment/web"]).contains("demo v1"),
        "logs by certificate"
    );
    let version = machine.kubectl(&["exec", "deployment/web", "--", "/trireme", "--version"]);
    assert!(version.contains("trireme"), "exec by certificate: {version}");
    let port =
        machine.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    let by_port = format!("http://{ADDRESS}:{port}/");
    machine.until("curl", &["-sf", &by_port], |answer| answer.contains("version: v1"));
    health(&machine);
    machine.kubectl(&["delete", "deployment", "web", "--timeout=30s"]);
    machine.until(
        "sh",
        &["-c", "! ls /sys/fs/cgroup/*/$0/kubepods/*/pod* 2>/dev/null", &machine.cgroup],
        |_| true,
    );
}

fn health(machine: &Machine) {
    for url in [
        "http://127.0.0.1:10248/healthz",
        "http://127.0.0.1:10249/healthz",
        "http://127.0.0.1:10256/healthz",
        "https://127.0.0.1:10257/healthz",
        "https://127.0.0.1:10257/readyz",
        "https://127.0.0.1:10259/livez",
    ] {
        assert_eq!(machine.until("curl", &["-skf", url], |_| true), "ok", "{url}");
    }
    let has_memory = |text: &str| text.contains("process_resident_memory_bytes");
    machine.until("curl", &["-sf", "http://127.0.0.1:10249/metrics"], has_memory);
    for (token, wanted) in [("none", "401"), ("scheduler-token", "403"), ("admin-token", "200")] {
        let header = format!("Authorization: Bearer {token}");
        let code = ["-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header];
        let url = ["https://127.0.0.1:10257/metrics"];
        assert_eq!(machine.until("curl", &[&code[..], &url].concat(), |_| true), wanted, "{token}");
    }
    let metrics = machine.kubectl(&["get", "--raw", "/api/v1/nodes/box/proxy/metrics"]);
    assert!(metrics.contains("kubelet_running_pods 1"), "{metrics}");
    let usage = machine.kubectl(&["get", "--raw", "/api/v1/nodes/box/proxy/metrics/resource"]);
    assert!(usage.contains("container_memory_working_set_bytes{container=\"demo\""), "{usage}");
    let summary = machine.kubectl(&["get", "--raw", "/api/v1/nodes/box/proxy/stats/summary"]);
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    let container = &summary["pods"][0]["containers"][0];
    assert!(container["memory"]["workingSetBytes"].as_u64().is_some_and(|n| n > 0), "{summary}");
    assert!(container["startTime"].is_string(), "{summary}");
}
