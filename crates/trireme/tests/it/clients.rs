//! Other people's clients, each against a one-node cluster that is killed and started again in the
//! middle: list, watch, patches, server-side apply, logs, exec.
//!
//! Each client does the same and has a script of its own in its own language, in `clients/`.

mod rust;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::harness::Cluster;

/// Where they work, and the label of what they watch.
const SPACE: &str = "clients";
const SELECTOR: &str = "test=clients";

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec: {containers: [{name: echo, image: "trireme.local/demo:v1"}]}
"#;

/// A cluster with a running pod and an empty namespace.
fn prepared(name: &str) -> Cluster {
    let cluster = Cluster::up(name, &[]);
    cluster.kubectl(&["create", "namespace", SPACE]);
    cluster.eventually(&["get", "serviceaccount", "default"], |_| true);
    cluster.kubectl_stdin(&["apply", "-f", "-"], POD);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/echo", "--timeout=30s"]);
    cluster
}

/// What the client missed: the server dies, and before it watches again two objects are made and one
/// deleted.
fn restart(cluster: &Cluster) {
    cluster.kill();
    cluster.start(&[]);
    for name in ["b", "c"] {
        let map = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, labels: {{test: clients}}}}}}"
        );
        cluster.kubectl_stdin(&["-n", SPACE, "create", "-f", "-"], &map);
    }
    cluster.kubectl(&["-n", SPACE, "delete", "configmap", "a"]);
}

/// Where `cargo xtask test` installed a client.
fn installed(language: &str) -> PathBuf {
    let variable = "TRIREME_TEST_CLIENTS";
    let folder = std::env::var_os(variable).map(PathBuf::from);
    let folder = folder
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/clients"));
    let found = folder.join(language).join("complete").exists();
    assert!(
        found,
        "the {language} client is not in {} ({variable}): `cargo xtask test` installs it from the \
         network, and says why when it cannot",
        folder.display()
    );
    folder.join(language)
}

/// Runs a client's script, and restarts the cluster when it asks for that.
fn run(cluster: &Cluster, mut script: Command) {
    script.env("KUBECONFIG", cluster.kubeconfig()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = script.spawn().expect("the language is installed (cargo xtask test does it)");
    let mut stdin = running.stdin.take().expect("piped");
    let lines = BufReader::new(running.stdout.take().expect("piped")).lines();
    let mut restarts = 0;
    for line in lines.map_while(Result::ok) {
        if line == "restart" {
            restart(cluster);
            restarts += 1;
            stdin.write_all(b"restarted\n").expect("the script listens");
        } else {
            eprintln!("{line}");
        }
    }
    assert!(running.wait().expect("it ends").success(), "the script failed");
    assert_eq!(restarts, 1);
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients").join(name)
}

#[test]
fn the_python_client_is_served() {
    let modules = installed("python");
    let cluster = prepared("kpy");
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", modules).arg(script("client.py"));
    run(&cluster, python);
}

#[test]
fn the_javascript_client_is_served() {
    let folder = installed("javascript");
    let cluster = prepared("kjs");
    // Modules are looked for beside the script.
    let copy = folder.join(format!("client-{}.mjs", std::process::id()));
    std::fs::copy(script("client.mjs"), &copy).expect("copied");
    let mut node = Command::new("node");
    node.arg(&copy);
    run(&cluster, node);
    std::fs::remove_file(copy).expect("removed");
}
