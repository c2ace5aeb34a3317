//! What admission policies cost a request: dry-run creations of a ConfigMap, which write nothing, without a
//! policy, beside one that does not match, and through one that does. Budgets: at most 2 µs where no policy
//! matches, at most 15 µs for one cheap policy.

use std::sync::Arc;
use std::time::Duration;

use crate::world::{Bench, server};

const REQUESTS: usize = 20_000;
const JSON: &str = "application/json";
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

pub(crate) async fn run(stick: Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = Arc::new(server(folder.path()).await);
    measure(&bench, "dry-run create, warming up", stick).await;
    measure(&bench, "dry-run create, no policy", stick).await;
    make(&bench, "elsewhere", "secrets").await;
    measure(&bench, "dry-run create, policy elsewhere", stick).await;
    make(&bench, "cheap", "configmaps").await;
    measure(&bench, "dry-run create, one cheap policy", stick).await;
}

async fn measure(bench: &Arc<Bench>, what: &str, stick: Duration) {
    let path = "/api/v1/namespaces/default/configmaps?dryRun=All";
    let request = move |n: usize| {
        let body = format!(r#"{{"metadata":{{"name":"c{n}"}},"data":{{"key":"value"}}}}"#);
        ("POST", path.to_owned(), JSON, body)
    };
    bench.measure(what, stick, REQUESTS, request).await;
}

async fn make(bench: &Bench, name: &str, resource: &str) {
    let policy = format!(
        r#"{{"metadata":{{"name":"{name}"}},"spec":{{"matchConstraints":{{"resourceRules":[{{
            "operations":["CREATE"],"apiGroups":[""],"apiVersions":["v1"],"resources":["{resource}"]}}]}},
            "validations":[{{"expression":"has(object.data) && object.data.key != ''"}}]}}}}"#
    );
    let binding = format!(
        r#"{{"metadata":{{"name":"{name}"}},"spec":{{"policyName":"{name}","validationActions":["Deny"]}}}}"#
    );
    for (path, body) in
        [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", binding)]
    {
        let (code, answer) = bench.ask("POST", &format!("{GROUP}/{path}"), JSON, body).await;
        assert_eq!(code, 201, "{}", String::from_utf8_lossy(&answer));
    }
}
