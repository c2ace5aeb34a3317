//! A cluster of the benchmark's own, and what its processes cost.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Credentials, HttpsConfig, HttpsTransport, Tasks};
use k8s_openapi::api::core::v1::ServiceAccount;

/// `/proc` counts CPU time in hundredths of a second (proc(5)).
const TICK: Duration = Duration::from_millis(10);

pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    name: String,
    pid: u64,
}

/// What the cluster's processes have used and hold.
pub(crate) struct Cost {
    pub(crate) cpu: Duration,
    pub(crate) resident_mib: f64,
}

impl Cluster {
    pub(crate) fn up(name: &str) -> Cluster {
        // Short: unix socket paths end at 108 bytes.
        let folder = tempfile::Builder::new().prefix("trb").tempdir_in("/tmp").expect("a folder");
        let name = format!("{name}{}", std::process::id() % 10_000);
        let mut cluster = Cluster { folder, name, pid: 0 };
        cluster.trireme(&["up", "-d", "--host-routes=none"]);
        let status = cluster.trireme(&["status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        cluster.pid = status["pid"].as_u64().expect("a pid");
        cluster
    }

    fn trireme(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trireme"));
        command.env("TRIREME_ROOT", self.folder.path()).args(args).args(["--name", &self.name]);
        let output = command.output().expect("trireme runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// An HTTPS client with the kubeconfig's identity.
    pub(crate) fn client(&self) -> Client {
        let path = self.folder.path().join(&self.name).join("kubeconfig");
        let text = std::fs::read_to_string(path).expect("a kubeconfig");
        let config: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).expect("YAML");
        let decode = |value: &serde_yaml_ng::Value| {
            STANDARD.decode(value.as_str().expect("text")).expect("base64")
        };
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let credentials = Credentials::Certificate {
            cert_pem: decode(&user["client-certificate-data"]),
            key_pem: decode(&user["client-key-data"]),
        };
        let server = cluster["server"].as_str().expect("a URL").to_owned();
        let ca_pem = decode(&cluster["certificate-authority-data"]);
        let config = HttpsConfig::new(server, ca_pem, credentials);
        Client::new(Arc::new(HttpsTransport::new(config, Tasks::new()).expect("a transport")))
    }

    /// Waits for the account that pods of the default namespace run as.
    pub(crate) async fn account(&self, client: &Client) {
        while client.get::<ServiceAccount>("default", "default").await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn cost(&self) -> Cost {
        let mut cost = Cost { cpu: Duration::ZERO, resident_mib: 0.0 };
        let folder = self.folder.path().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/proc").expect("procfs").flatten() {
            let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let supervisor = line.contains("supervisor") && line.contains(&folder);
            if supervisor || entry.file_name().to_string_lossy() == self.pid.to_string() {
                add(&mut cost, &entry.path());
            }
        }
        cost
    }
}

fn add(cost: &mut Cost, process: &Path) {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |number: usize| -> u32 {
        rest.split_whitespace().nth(number - 3).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    cost.cpu += TICK * (field(14) + field(15));
    let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib: f64 = resident.and_then(|r| r.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
    cost.resident_mib += kib / 1024.0;
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.trireme(&["reset", "--yes"]);
    }
}
