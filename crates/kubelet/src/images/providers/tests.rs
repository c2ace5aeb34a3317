use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::*;

struct Files(tempfile::TempDir);

fn program(dir: &Path, name: &str, script: &str) {
    let path = dir.join("bin").join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Files {
    /// A plugin `p`, which counts its calls in a file `calls`, and more in its configuration.
    fn new(answer: &str, more: &str) -> Files {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        let response = format!(
            r#"{{"kind":"CredentialProviderResponse","apiVersion":"{}",{answer}}}"#,
            config::V1
        );
        let script = format!(
            "cat >>{0}/calls; echo >>{0}/calls; cat <<E\n{response}\nE",
            dir.path().display()
        );
        program(dir.path(), "p", &script);
        let config = format!(
            "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: p\n  matchImages: [\"*.example.com/team\"]\n  defaultCacheDuration: 1m\n  apiVersion: {}\n{more}",
            config::V1
        );
        fs::write(dir.path().join("config.yaml"), config).unwrap();
        Files(dir)
    }

    fn paths(&self) -> ProviderFiles {
        let dir = self.0.path();
        ProviderFiles { config: dir.join("config.yaml"), bin_dir: dir.join("bin") }
    }

    fn load(&self) -> Result<Providers, String> {
        Providers::load(Some(&self.paths()))
    }

    fn calls(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.0.path().join("calls")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// An API with one account that gives tokens.
struct Api;

impl client::Transport for Api {
    fn call(
        &self,
        request: client::Request,
    ) -> client::BoxFuture<'_, Result<client::Response, client::Error>> {
        let answer = match request.target.ends_with("/token") {
            true => {
                json!({"kind": "TokenRequest", "metadata": {}, "spec": {"audiences": []}, "status": {"token": "t0k3n", "expirationTimestamp": "2126-01-01T00:00:00Z"}})
            }
            false => {
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot", "uid": "u-robot", "annotations": {"role": "pull"}}})
            }
        };
        Box::pin(async move {
            let body = serde_json::to_vec(&answer).unwrap().into();
            Ok(client::Response { code: http::StatusCode::OK, body })
        })
    }

    fn follow(&self, _: client::Follow) -> client::Follower {
        client::Follower::channel().1
    }
}

fn client() -> Client {
    Client::new(Arc::new(Api))
}

fn pod(account: &str) -> Pod {
    let spec = json!({"serviceAccountName": account, "containers": []});
    serde_json::from_value(
        json!({"metadata": {"name": "web", "namespace": "ns", "uid": "u1"}, "spec": spec}),
    )
    .unwrap()
}

const AUTH: &str = r#""auth":{"*.example.com":{"username":"user","password":"pass"}}"#;

async fn users(providers: &Providers, pod: &Pod, repository: &str) -> Vec<String> {
    let logins = providers.logins(&client(), pod, repository).await;
    logins.into_iter().map(|login| login.auth.username).collect()
}

#[tokio::test]
async fn a_plugin_is_asked_for_images_that_match_and_its_answer_is_kept() {
    let files = Files::new(&format!(r#""cacheKeyType":"Registry",{AUTH}"#), "");
    let providers = files.load().unwrap();
    let pod = pod("robot");
    assert_eq!(users(&providers, &pod, "r.example.com/team/app").await, ["user"]);
    assert_eq!(users(&providers, &pod, "r.example.com/team/other").await, ["user"]);
    for other in [
        "r.example.com/else",
        "example.com/team",
        "a.r.example.com/team",
        "r.example.com:5000/team",
    ] {
        assert!(users(&providers, &pod, other).await.is_empty(), "{other}");
    }
    assert_eq!(files.calls().len(), 1, "the second image is of the same registry");
    assert_eq!(files.calls()[0]["image"], "r.example.com/team/app");
    assert_eq!(users(&providers, &pod, "s.example.com/team/app").await, ["user"]);
    assert_eq!(files.calls().len(), 2);
    let login = &providers.logins(&client(), &pod, "r.example.com/team/app").await[0];
    assert_eq!(login.source, None, "it is the node's");
    let text = providers.metrics();
    assert!(
        text.contains(r#"kubelet_credential_provider_plugin_duration_count{plugin_name="p"} 2"#),
        "{text}"
    );
    assert!(text.contains("kubelet_credential_provider_config_info{hash=\"sha256:"), "{text}");
}

#[tokio::test]
async fn what_is_not_to_be_kept_is_asked_again_and_failures_leave_others() {
    let answer = format!(r#""cacheKeyType":"Image","cacheDuration":"0s",{AUTH}"#);
    let files = Files::new(&answer, "");
    let providers = files.load().unwrap();
    for _ in 0..2 {
        assert_eq!(users(&providers, &pod(""), "r.example.com/team").await, ["user"]);
    }
    assert_eq!(files.calls().len(), 2);
    program(files.0.path(), "p", "exit 1");
    assert!(users(&providers, &pod(""), "r.example.com/team").await.is_empty());
    let text = providers.metrics();
    assert!(
        text.contains(r#"kubelet_credential_provider_plugin_errors_total{plugin_name="p"} 1"#),
        "{text}"
    );
}

const ATTRIBUTES: &str = "  tokenAttributes:\n    serviceAccountTokenAudience: reg\n    cacheType: ServiceAccount\n    requireServiceAccount: true\n    requiredServiceAccountAnnotationKeys: [role]\n    optionalServiceAccountAnnotationKeys: [none]\n";

#[tokio::test]
async fn a_plugin_that_works_with_accounts_gets_a_token_of_the_pods() {
    let files = Files::new(&format!(r#""cacheKeyType":"Global",{AUTH}"#), ATTRIBUTES);
    let providers = files.load().unwrap();
    assert!(users(&providers, &pod(""), "r.example.com/team").await.is_empty());
    assert!(files.calls().is_empty(), "without an account it is not asked");
    let logins = providers.logins(&client(), &pod("robot"), "r.example.com/team").await;
    let source = logins[0].source.clone().unwrap();
    assert_eq!((&*source.uid, &*source.name, &*source.namespace), ("u-robot", "robot", "ns"));
    let asked = &files.calls()[0];
    assert_eq!(asked["serviceAccountToken"], "t0k3n");
    assert_eq!(asked["serviceAccountAnnotations"], json!({"role": "pull"}));
    // Another pod of the account has the same login.
    assert_eq!(users(&providers, &pod("robot"), "s.example.com/team").await, ["user"]);
    assert_eq!(files.calls().len(), 1);
    // An account without the annotation has no part in it.
    let other = Files::new(AUTH, &ATTRIBUTES.replace("[role]", "[missing]"));
    assert!(users(&other.load().unwrap(), &pod("robot"), "r.example.com/team").await.is_empty());
    assert!(other.calls().is_empty());
    // The token itself as a password would outlive its pod in the cache.
    let echo = format!(r#""cacheKeyType":"Global",{}"#, AUTH.replace("pass\"", "t0k3n\""));
    let echo = echo.replace("t0k3nword", "password");
    let files = Files::new(&echo, ATTRIBUTES);
    assert!(users(&files.load().unwrap(), &pod("robot"), "r.example.com/team").await.is_empty());
    let files =
        Files::new(&echo, &ATTRIBUTES.replace("cacheType: ServiceAccount", "cacheType: Token"));
    assert_eq!(users(&files.load().unwrap(), &pod("robot"), "r.example.com/team").await, ["user"]);
}

#[test]
fn programs_that_are_not_there_are_refused() {
    let files = Files::new(AUTH, "");
    let said = |paths: &ProviderFiles| Providers::load(Some(paths)).err().unwrap();
    let mut paths = files.paths();
    let bin = paths.bin_dir.join("p");
    fs::set_permissions(&bin, fs::Permissions::from_mode(0o644)).unwrap();
    let text = format!("error inspecting binary executable {}: permission denied", bin.display());
    assert_eq!(said(&paths), text);
    fs::remove_file(&bin).unwrap();
    assert_eq!(said(&paths), format!("plugin binary executable {} did not exist", bin.display()));
    paths.bin_dir = "/none/there".into();
    assert_eq!(said(&paths), "plugin binary directory /none/there did not exist");
}
