//! One question to one plugin: its program is run with the request as its input.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::config::{Variable, go_duration};

/// Upstream's limit for every plugin.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer, and longest complaint that is read. Upstream has no limits.
const OUTPUT_MAX: u64 = 1 << 20;
const ERROR_MAX: u64 = 4 << 10;

/// A plugin's program.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) api_version: String,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<Variable>,
}

/// The request that it gets.
#[derive(Debug, Clone, Default)]
pub(super) struct Question {
    pub(super) image: String,
    pub(super) token: String,
    pub(super) annotations: BTreeMap<String, String>,
}

/// For what else credentials may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyType {
    Image,
    Registry,
    Global,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) key: KeyType,
    /// `None`: as configured.
    pub(super) duration: Option<Duration>,
    /// User and password by pattern of images.
    pub(super) auth: BTreeMap<String, (String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Response {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    kind: String,
    #[serde(default)]
    cache_key_type: String,
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl Program {
    fn request(&self, question: &Question) -> Value {
        let mut request = json!({
            "kind": "CredentialProviderRequest",
            "apiVersion": self.api_version,
            "image": question.image,
        });
        // Earlier versions know no tokens.
        if self.api_version == super::config::V1 {
            request["serviceAccountToken"] = json!(question.token);
            request["serviceAccountAnnotations"] = json!(question.annotations);
        }
        request
    }

    /// The program's output.
    async fn run(&self, input: Vec<u8>) -> Result<Vec<u8>, String> {
        let mut child = Command::new(&self.path)
            .args(&self.args)
            .envs(self.env.iter().map(|v| (&v.name, &v.value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("{e}: "))?;
        let none = || "no pipe: ".to_owned();
        let mut stdin = child.stdin.take().ok_or_else(none)?;
        let mut stdout = child.stdout.take().ok_or_else(none)?.take(OUTPUT_MAX + 1);
        let mut stderr = child.stderr.take().ok_or_else(none)?;
        let (mut output, mut complaint) = (Vec::new(), Vec::new());
        let write = async {
            // One that does not read has ended, or does not care.
            let _unread = stdin.write_all(&input).await;
            drop(stdin);
            Ok(())
        };
        let complain = async {
            let kept = (&mut stderr).take(ERROR_MAX).read_to_end(&mut complaint).await;
            // The rest is read and forgotten, so that the program can end.
            kept.and(tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await.map(drop))
        };
        let read = async {
            let read = stdout.read_to_end(&mut output).await;
            match output.len() as u64 > OUTPUT_MAX {
                true => {
                    Err(std::io::Error::other(format!("more than {OUTPUT_MAX} bytes of output")))
                }
                false => read.map(drop),
            }
        };
        // One that says too much is ended with its handle.
        let done: std::io::Result<_> = tokio::try_join!(write, read, complain);
        done.map_err(|e| format!("{e}: "))?;
        let status = child.wait().await.map_err(|e| format!("{e}: "))?;
        if status.success() {
            return Ok(output);
        }
        let code = status
            .code()
            .map_or_else(|| "signal: killed".to_owned(), |c| format!("exit status {c}"));
        Err(format!("{code}: {}", String::from_utf8_lossy(&complaint)))
    }

    /// Asks the program; errors never show what it has answered.
    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, String> {
        let input = self.request(question).to_string().into_bytes();
        let done = tokio::time::timeout(TIMEOUT, self.run(input)).await;
        let done = done.unwrap_or_else(|_| Err("context deadline exceeded: ".to_owned()));
        let output = done.map_err(|why| {
            format!(
                "error execing credential provider plugin {} for image {}: {why}",
                self.name, question.image
            )
        })?;
        self.read(&output)
    }

    fn read(&self, output: &[u8]) -> Result<Answer, String> {
        let value: Value = serde_json::from_slice(output).map_err(|_| {
            "error reading GVK from response: couldn't get version/kind; json parse error"
                .to_owned()
        })?;
        let version = value["apiVersion"].as_str().unwrap_or("");
        if version != self.api_version {
            return Err(format!(
                "apiVersion from credential plugin response did not match expected apiVersion:{}, actual apiVersion:{version}",
                self.api_version
            ));
        }
        let undecoded =
            || "error decoding credential provider plugin response from stdout".to_owned();
        let response: Response = serde_json::from_value(value).map_err(|_| undecoded())?;
        if response.kind != "CredentialProviderResponse" {
            return Err(undecoded());
        }
        let key = match response.cache_key_type.as_str() {
            "Image" => KeyType::Image,
            "Registry" => KeyType::Registry,
            "Global" => KeyType::Global,
            other => {
                return Err(format!(
                    "credential provider plugin did not return a valid cacheKeyType: {other}"
                ));
            }
        };
        let duration = match response.cache_duration.as_deref().map(go_duration) {
            None => None,
            Some(None) => return Err(undecoded()),
            // One that has ended already is not kept.
            Some(Some(nanos)) => Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))),
        };
        let auth = response.auth.unwrap_or_default().into_iter();
        let auth = auth.map(|(image, auth)| (image, (auth.username, auth.password))).collect();
        Ok(Answer { key, duration, auth })
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::V1;
    use super::*;

    fn shell(script: &str) -> Program {
        Program {
            name: "p".into(),
            path: "/bin/sh".into(),
            api_version: V1.into(),
            args: vec!["-c".into(), script.into()],
            env: vec![Variable { name: "USER_OF".into(), value: "robot".into() }],
        }
    }

    fn question() -> Question {
        Question {
            image: "r.example.com/app".into(),
            token: "t0k3n".into(),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
        }
    }

    async fn said(script: &str) -> String {
        shell(script).ask(&question()).await.unwrap_err()
    }

    fn response(more: &str) -> String {
        format!(r#"echo '{{"kind":"CredentialProviderResponse","apiVersion":"{V1}",{more}}}'"#)
    }

    #[tokio::test]
    async fn a_plugin_reads_its_question_and_answers() {
        let script = format!(
            r#"read -r in; case "$in" in *'"image":"r.example.com/app"'*'"serviceAccountToken":"t0k3n"'*) ;; *) echo "$in" >&2; exit 9;; esac; {}"#,
            response(
                r#""cacheKeyType":"Registry","cacheDuration":"5m","auth":{"r.example.com":{"username":"'$USER_OF'","password":"p"}}"#
            )
        );
        let script = script.replace("read -r in;", "in=$(cat);");
        let answer = shell(&script).ask(&question()).await.unwrap();
        assert_eq!(answer.key, KeyType::Registry);
        assert_eq!(answer.duration, Some(Duration::from_secs(300)));
        assert_eq!(answer.auth["r.example.com"], ("robot".into(), "p".into()));
    }

    #[tokio::test]
    async fn plugins_that_fail_are_refused_by_name() {
        let head = "error execing credential provider plugin p for image r.example.com/app: ";
        assert_eq!(said("echo no >&2; exit 3").await, format!("{head}exit status 3: no\n"));
        assert_eq!(said("kill -9 $$").await, format!("{head}signal: killed: "));
        let long = said("head -c 2000000 /dev/zero").await;
        assert_eq!(long, format!("{head}more than 1048576 bytes of output: "));
        let mut gone = shell("");
        gone.path = "/none/there".into();
        assert!(gone.ask(&question()).await.unwrap_err().starts_with(head));
        assert!(said("echo hello").await.starts_with("error reading GVK from response: "));
        assert_eq!(
            said(r#"echo '{"kind":"CredentialProviderResponse","apiVersion":"x/v1"}'"#).await,
            format!(
                "apiVersion from credential plugin response did not match expected apiVersion:{V1}, actual apiVersion:x/v1"
            )
        );
        let undecoded = "error decoding credential provider plugin response from stdout";
        let secret = response(r#""cacheKeyType":"Image","auth":{"r":{"passwort":"geheim"}}"#);
        assert_eq!(said(&secret).await, undecoded);
        assert_eq!(
            said(&response(r#""cacheKeyType":"Image","cacheDuration":"x""#)).await,
            undecoded
        );
        assert_eq!(
            said(&response(r#""cacheKeyType":"All""#)).await,
            "credential provider plugin did not return a valid cacheKeyType: All"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_plugin_has_a_minute() {
        let said = said("exec sleep 1000").await;
        assert!(said.ends_with("context deadline exceeded: "), "{said}");
    }
}
