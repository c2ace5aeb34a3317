//! The audit's cost per request: dry-run creations of a ConfigMap without an audit, with a policy that wants nothing
//! of them, and at the level `Metadata` into a log file. Budgets: nothing where nothing is wanted, at most 5 µs for
//! `Metadata`.

use std::sync::Arc;
use std::time::Duration;

use apiserver::audit::{Auditor, LogFile, Mode, Policy, Rotation, Sink, Sinks};

use crate::world::{Bench, server, server_with};

const REQUESTS: usize = 20_000;
const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";

pub(crate) async fn run(stick: Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = Arc::new(server(&folder.path().join("plain")).await);
    measure(&plain, "dry-run create, warming up", stick).await;
    measure(&plain, "dry-run create, no audit", stick).await;
    for (what, rules) in [
        ("dry-run create, audit of nothing", "rules: [{level: None}]"),
        ("dry-run create, audit of metadata", "rules: [{level: Metadata}]"),
    ] {
        let place = folder.path().join(what);
        std::fs::create_dir(&place).expect("a folder");
        let bench = Arc::new(server_with(&place.join("db"), Some(auditor(&place, rules))).await);
        measure(&bench, what, stick).await;
    }
}

fn auditor(folder: &std::path::Path, rules: &str) -> Arc<Auditor> {
    let file = LogFile::open(&folder.join("audit.log"), Rotation::default()).expect("opened");
    let sink = Sink::Log { file, mode: Mode::Blocking, truncation: None };
    let (sinks, work) = Sinks::new(vec![sink]);
    for part in work {
        tokio::spawn(part);
    }
    Arc::new(Auditor::new(Policy::parse(&format!("{HEAD}{rules}")).expect("a policy"), sinks))
}

async fn measure(bench: &Arc<Bench>, what: &str, stick: Duration) {
    let path = "/api/v1/namespaces/default/configmaps?dryRun=All";
    let request = move |n: usize| {
        let body = format!(r#"{{"metadata":{{"name":"c{n}"}},"data":{{"key":"value"}}}}"#);
        ("POST", path.to_owned(), "application/json", body)
    };
    bench.measure(what, stick, REQUESTS, request).await;
}
