//! Admission as flags and files configure it, and the clients of the webhooks that it names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::admission::webhooks::{CallFailure, Caller, Callers, Webhooks};
use ::admission::{BoxFuture, Configuration, Selection};
use client::{Credentials, Kubeconfig};
use serde_json::Value;
use webhook::{Client, Endpoint, Services};

/// Which plugins are on, and how they are configured.
#[derive(Debug, Clone, Default)]
pub struct AdmissionOptions {
    /// `--enable-admission-plugins`, `--disable-admission-plugins`.
    pub selection: Selection,
    /// `--admission-control-config-file`.
    pub configuration: Configuration,
}

impl AdmissionOptions {
    /// Reads the file, and those that it names.
    pub fn load(selection: Selection, file: Option<&Path>) -> Result<AdmissionOptions, String> {
        let Some(path) = file else {
            return Ok(AdmissionOptions { selection, ..AdmissionOptions::default() });
        };
        let shown = path.display().to_string();
        let text = std::fs::read(path).map_err(|e| {
            format!("unable to read admission control configuration from {shown:?} [{e}]")
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let other = |named: &str| {
            let path = folder.join(named);
            std::fs::read(&path).map_err(|e| format!("open {}: {e}", path.display()))
        };
        let configuration = Configuration::read(&text, &other);
        let configuration = configuration.map_err(|why| format!("{shown}: {why}"))?;
        Ok(AdmissionOptions { selection, configuration })
    }

    /// The admission webhooks, with the credentials that their configuration gives.
    pub fn webhooks(
        &self,
        objects: &dyn auth::Objects,
        services: &Arc<dyn Services>,
    ) -> Result<Webhooks, String> {
        let of = |plugin: &str| -> Result<Arc<dyn Callers>, String> {
            let own = self.configuration.of(plugin);
            let users = Users::read(own).map_err(|why| format!("{plugin}: {why}"))?;
            Ok(Arc::new(Clients { services: services.clone(), users }))
        };
        let callers = [of("MutatingAdmissionWebhook")?, of("ValidatingAdmissionWebhook")?];
        Ok(Webhooks::new(objects, callers))
    }
}

/// The users of the kubeconfig of a webhook plugin (`WebhookAdmissionConfiguration`).
struct Users(Option<Kubeconfig>);

impl Users {
    fn read(configuration: &Value) -> Result<Users, String> {
        const GROUPS: [&str; 2] = ["apiserver.config.k8s.io", "apiserver.k8s.io"];
        if configuration.is_null() {
            return Ok(Users(None));
        }
        let text = |key: &str| configuration[key].as_str().unwrap_or("");
        let group = text("apiVersion").split('/').next().unwrap_or("");
        let kinds = ["WebhookAdmissionConfiguration", "WebhookAdmission"];
        if !kinds.contains(&text("kind")) || !GROUPS.contains(&group) {
            let (kind, version) = (text("kind"), text("apiVersion"));
            return Err(format!("no kind {kind:?} is registered for version {version:?}"));
        }
        if !text("staticManifestsDir").is_empty() {
            return Err("staticManifestsDir is not supported".into());
        }
        match text("kubeConfigFile") {
            "" => Ok(Users(None)),
            path if !Path::new(path).is_absolute() => {
                Err(format!("kubeConfigFile must be an absolute path: {path:?}"))
            }
            path => Kubeconfig::load(Path::new(path))
                .map(|file| Users(Some(file)))
                .map_err(|e| e.to_string()),
        }
    }

    /// The credentials for `host:port`: a user of that name, of the host where the port is 443, of all hosts
    /// that end so (`*.ns.svc`), of all (`*`), or of the current context.
    fn of(&self, host_and_port: &str) -> Result<Credentials, String> {
        let Some(file) = &self.0 else { return Ok(Credentials::Anonymous) };
        let bare = host_and_port.strip_suffix(":443");
        let names = names(host_and_port).chain(bare.into_iter().flat_map(names));
        let names = names.chain(["*".to_owned()]).chain(file.current_user());
        for name in names {
            if let Some(found) = file.user(&name) {
                return found.map_err(|e| e.to_string());
            }
        }
        Ok(Credentials::Anonymous)
    }
}

/// A name, and the patterns that match it, closest first.
fn names(name: &str) -> impl Iterator<Item = String> {
    let ends = name.match_indices('.').map(|(at, _)| format!("*{}", &name[at..]));
    std::iter::once(name.to_owned()).chain(ends)
}

/// Makes clients of admission webhooks.
struct Clients {
    services: Arc<dyn Services>,
    users: Users,
}

impl Callers for Clients {
    fn caller(&self, client_config: &Value) -> Result<Arc<dyn Caller>, String> {
        let endpoint = Endpoint::of_client_config(client_config)?;
        let credentials = self.users.of(&endpoint.host_and_port())?;
        let client = Client::new(endpoint.with_credentials(credentials), self.services.clone())?;
        Ok(Arc::new(Reached(client)))
    }
}

/// A client of the current context of a kubeconfig.
pub fn reach(path: &str, services: &Arc<dyn Services>) -> Result<Arc<dyn Caller>, String> {
    let config = Kubeconfig::load(Path::new(path)).and_then(|file| file.config(None));
    let endpoint = Endpoint::of_kubeconfig(config.map_err(|e| e.to_string())?)?;
    Ok(Arc::new(Reached(Client::new(endpoint, services.clone())?)))
}

struct Reached(Client);

impl Caller for Reached {
    fn call<'a>(
        &'a self,
        review: &'a Value,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Value, CallFailure>> {
        Box::pin(async move {
            let answer = self.0.post(review, timeout).await;
            answer.map_err(|failure| CallFailure { code: failure.code, message: failure.message })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {user: current}}]
users:
- {name: "hook.ns.svc:8443", user: {token: port}}
- {name: "hook.ns.svc", user: {token: host}}
- {name: "*.other.svc", user: {token: end}}
- {name: current, user: {username: u, password: p}}
"#;

    fn token(file: &str, host: &str) -> String {
        let file = Kubeconfig::parse(file, Path::new("/nowhere/config")).expect("a file");
        match Users(Some(file)).of(host).expect("credentials") {
            Credentials::Token(token) => token,
            Credentials::Basic { username, .. } => username,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_closest_user_is_taken() {
        assert_eq!(token(FILE, "hook.ns.svc:8443"), "port");
        assert_eq!(token(FILE, "hook.ns.svc:443"), "host");
        assert_eq!(token(FILE, "a.other.svc:443"), "end");
        assert_eq!(token(FILE, "example.com:443"), "u");
        let all = format!("{FILE}- {{name: \"*\", user: {{token: all}}}}\n");
        assert_eq!(token(&all, "example.com:443"), "all");
        assert!(matches!(Users(None).of("x:1"), Ok(Credentials::Anonymous)));
    }

    #[test]
    fn what_is_no_configuration_of_webhooks_is_refused() {
        for (configuration, why) in [
            (serde_json::json!({"kind": "Pod", "apiVersion": "v1"}), "no kind \"Pod\""),
            (
                serde_json::json!({"kind": "WebhookAdmissionConfiguration",
                    "apiVersion": "apiserver.config.k8s.io/v1", "kubeConfigFile": "a"}),
                "kubeConfigFile must be an absolute path",
            ),
            (
                serde_json::json!({"kind": "WebhookAdmissionConfiguration",
                    "apiVersion": "apiserver.config.k8s.io/v1", "kubeConfigFile": "/gone"}),
                "kubeconfig /gone",
            ),
        ] {
            let refused = Users::read(&configuration).err().expect("refused");
            assert!(refused.starts_with(why), "{refused}");
        }
    }
}
