//! The components alone, each a process of its own, joined by nothing but HTTPS and a kubeconfig.
//! Node agent and proxy would change this machine's network: only their flags are tested here.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for something that happens by itself; a lease takes 15 s to run out.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what kubectl cannot wait for.
const LOOK: Duration = Duration::from_millis(100);

const TOKENS: &str = r#"admin-token,admin,1,"system:masters"
manager-token,system:kube-controller-manager,2,"system:masters"
scheduler-token,system:kube-scheduler,3
"#;

fn trireme(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trireme"));
    command.args(args);
    command
}

/// A running component; killed when dropped.
struct Component(Child);

impl Component {
    /// Starts it and waits for the line of its standard error that begins so; the line's rest.
    fn start(args: &[&str], line: &str) -> (Component, String) {
        let mut component = Component::spawn(args);
        let rest = component.says(line);
        (component, rest)
    }

    fn spawn(args: &[&str]) -> Component {
        let mut command = trireme(args);
        Component(command.stderr(Stdio::piped()).spawn().expect("trireme runs"))
    }

    /// Waits for such a line; what comes after it is passed on to the test's own output.
    fn says(&mut self, line: &str) -> String {
        let mut lines = BufReader::new(self.0.stderr.take().expect("taken once")).lines();
        let mut seen = Vec::new();
        let rest = lines.by_ref().map_while(Result::ok).find_map(|l| {
            seen.push(l.clone());
            l.split_once(line).map(|(_, rest)| rest.to_owned())
        });
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|l| eprintln!("{l}")));
        rest.unwrap_or_else(|| panic!("it ended without saying {line:?}: {seen:#?}"))
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().expect("a killed process ends");
    }
}

/// An API server of the test's own, and its kubeconfigs.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    url: String,
    process: Component,
}

impl Server {
    fn start() -> Server {
        Server::start_with(&[])
    }

    /// With more flags.
    pub(crate) fn start_with(more: &[&str]) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        std::fs::write(path("tokens"), TOKENS).expect("tokens are written");
        let (pki, data, tokens) = (path("pki"), path("data"), path("tokens"));
        let mut args = vec!["kube-apiserver", "--bind-address=127.0.0.1", "--secure-port=0"];
        args.extend(["--cert-dir", &pki, "--data-dir", &data, "--token-auth-file", &tokens]);
        args.extend(more);
        let (process, url) = Component::start(&args, "serving on ");
        Server { folder, url, process }
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) {
        self.process.0.kill().expect("killed");
        self.process.0.wait().expect("reaped");
    }

    /// Ends it as an administrator does, and waits for that.
    pub(crate) fn terminate(&mut self) {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().expect("kill runs").success());
        self.process.0.wait().expect("reaped");
    }

    fn kubeconfig(&self, user: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{user}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"{}\", certificate-authority: pki/ca.crt}}}}]\n\
             users: [{{name: {user}, user: {{token: {user}-token}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: {user}}}}}]\n",
            self.url
        );
        std::fs::write(&path, text).expect("the kubeconfig is written");
        path
    }

    fn component(&self, name: &str, user: &str) -> Component {
        let kubeconfig = self.kubeconfig(user);
        // Tests run side by side on one network: nobody has the usual health port.
        let (path, none) = (kubeconfig.to_string_lossy().into_owned(), "--secure-port=0");
        Component::spawn(&[name, "--kubeconfig", &path, none])
    }

    pub(crate) fn try_kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_command(args).output().expect("kubectl runs")
    }

    pub(crate) fn kubectl_command(&self, args: &[&str]) -> Command {
        // The dispatcher of some installations picks a version by asking the server: be direct.
        let direct = "/usr/lib/google-cloud-sdk/bin/kubectl.1.33";
        let program = if Path::new(direct).exists() { direct } else { "kubectl" };
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig("admin")).env("HOME", self.folder.path());
        command.args(args);
        command
    }

    /// Runs kubectl until its output satisfies `enough`.
    pub(crate) fn eventually(&self, args: &[&str], enough: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let output = self.try_kubectl(args);
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && enough(&shown) {
                return shown;
            }
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(start.elapsed() < PATIENCE, "kubectl {args:?}: {shown}{errors}");
            std::thread::sleep(LOOK);
        }
    }
}

#[test]
fn components_of_their_own_turn_a_deployment_into_pending_pods() {
    let server = Server::start();
    let _scheduler = server.component("kube-scheduler", "scheduler");
    let _manager = server.component("kube-controller-manager", "manager");
    server.eventually(&["create", "namespace", "alone"], |_| true);
    server.eventually(&["-n", "alone", "get", "serviceaccount,configmap", "-o", "name"], |names| {
        names.contains("serviceaccount/default") && names.contains("configmap/kube-root-ca.crt")
    });
    let create = ["-n", "alone", "create", "deployment", "web", "--image=x", "--replicas=2"];
    server.eventually(&create, |_| true);
    server.eventually(&["-n", "alone", "get", "replicaset", "-o", "name"], |names| {
        names.lines().count() == 1
    });
    let phases = "jsonpath={.items[*].status.phase}";
    server.eventually(&["-n", "alone", "get", "pods", "-o", phases], |p| p == "Pending Pending");
    // The scheduler has looked at them, too: it says why they wait.
    let reason = "jsonpath={.items[*].status.conditions[?(@.type=='PodScheduled')].reason}";
    server.eventually(&["-n", "alone", "get", "pods", "-o", reason], |reasons| {
        reasons == "Unschedulable Unschedulable"
    });
}

/// Another API server is the server that is asked: it knows what its own roles allow.
#[test]
fn an_authorization_webhook_decides_and_its_configuration_is_followed() {
    let knows = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let (kubeconfig, config) = (folder.path().join("webhook"), folder.path().join("authorization"));
    let text = std::fs::read_to_string(knows.kubeconfig("admin")).expect("read");
    let reviews = format!("{}/apis/authorization.k8s.io/v1/subjectaccessreviews", knows.url);
    let authority = knows.folder.path().join("pki/ca.crt").to_string_lossy().into_owned();
    let text = text.replace(&knows.url, &reviews).replace("pki/ca.crt", &authority);
    std::fs::write(&kubeconfig, text).expect("written");
    let head =
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n";
    let webhook = format!(
        "- {{type: Webhook, name: other, webhook: {{timeout: 5s, subjectAccessReviewVersion: v1, \
         matchConditionSubjectAccessReviewVersion: v1, failurePolicy: Deny, unauthorizedTTL: 1ms, \
         connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}, matchConditions: \
         [{{expression: \"request.user != 'nobody'\"}}]}}}}\n",
        kubeconfig.display()
    );
    std::fs::write(&config, format!("{head}{webhook}")).expect("written");
    let flag = format!("--authorization-config={}", config.display());
    let server = Server::start_with(&[&flag]);
    let scheduler = server.kubeconfig("scheduler");
    let as_scheduler = |what: &str| {
        let mut command = server.kubectl_command(&["auth", "can-i", "list", what]);
        let output = command.env("KUBECONFIG", &scheduler).output().expect("kubectl runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    // What roles of this server say is not asked for.
    assert_eq!(as_scheduler("pods"), "yes");
    assert_eq!(as_scheduler("secrets"), "no");
    knows.eventually(
        &["create", "clusterrole", "reads", "--verb=list", "--resource=secrets"],
        |_| true,
    );
    let user = "--user=system:kube-scheduler";
    knows.eventually(
        &["create", "clusterrolebinding", "reads", "--clusterrole=reads", user],
        |_| true,
    );
    assert_eq!(as_scheduler("secrets"), "yes");
    // The file is written anew, without the server.
    assert_eq!(as_scheduler("configmaps"), "no");
    let changed = format!("{head}- {{type: AlwaysAllow, name: alwaysallow}}\n");
    std::fs::write(&config, changed).expect("written");
    server.eventually(&["get", "namespaces"], |_| as_scheduler("configmaps") == "yes");
}

#[test]
fn a_second_controller_manager_takes_over_when_the_leader_dies() {
    let server = Server::start();
    let lease = ["-n", "kube-system", "get", "lease", "kube-controller-manager"];
    let holder: Vec<&str> =
        lease.into_iter().chain(["-o", "jsonpath={.spec.holderIdentity}"]).collect();
    let mut first = server.component("kube-controller-manager", "manager");
    first.says("controllers are running");
    let leader = server.eventually(&holder, |held| !held.is_empty());
    let mut second = server.component("kube-controller-manager", "manager");
    drop(first);
    second.says("controllers are running");
    server.eventually(&holder, |held| !held.is_empty() && held != leader);
    server.eventually(&["create", "namespace", "after"], |_| true);
    server.eventually(&["-n", "after", "get", "serviceaccount", "-o", "name"], |names| {
        names.contains("serviceaccount/default")
    });
}

const ROLES: [&str; 4] = ["kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"];

#[test]
fn every_component_has_help_and_refuses_unknown_flags() {
    for role in ROLES {
        let help = trireme(&[role, "--help"]).output().expect("trireme runs");
        assert!(help.status.success(), "{role}");
        assert!(String::from_utf8_lossy(&help.stdout).contains("--kubeconfig"), "{role}");
        let told = refusal(&[role, "--kubeconfig", "/nowhere", "--no-such-flag"]);
        assert!(told.contains("unexpected argument '--no-such-flag'"), "{role}: {told}");
    }
}

/// What trireme says when it refuses.
pub(crate) fn refusal(args: &[&str]) -> String {
    let output = trireme(args).output().expect("trireme runs");
    assert!(!output.status.success(), "{args:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_a_component_cannot_do_is_refused_by_name() {
    let none = "--kubeconfig=/nowhere";
    let cases: &[(&[&str], &str)] = &[
        (&["kube-controller-manager", none], "kubeconfig /nowhere: read: No such file"),
        (
            &["kube-controller-manager", none, "--use-service-account-credentials=true"],
            "--use-service-account-credentials=true is not supported",
        ),
        (&["kube-scheduler", none, "--config=/x"], "--config /x"),
        (
            &["kube-proxy", none, "--cluster-cidr=10.1.0.0/16", "--proxy-mode=iptables"],
            "--proxy-mode iptables: this proxy has nftables only",
        ),
    ];
    for (args, expected) in cases {
        let told = refusal(args);
        assert!(told.contains(expected), "{args:?}: {told}");
    }
}
