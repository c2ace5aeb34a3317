//! Files as users of containerd and k3s have them, what they mean, and what is refused in them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::{Endpoint, Registries};

/// An endpoint in one line.
fn line(e: &Endpoint) -> String {
    let mut text = format!("{}://{}{} ", e.schemes.join("+"), e.host, e.path);
    for (can, letter) in [(e.can.pull, "p"), (e.can.resolve, "r"), (e.can.push, "P")] {
        text += if can { letter } else { "-" };
    }
    if let Some(registry) = &e.mirror_of {
        write!(text, " ns={registry}").unwrap();
    }
    let name = |p: &Path| p.file_name().unwrap().to_string_lossy().into_owned();
    for file in &e.tls.authorities {
        write!(text, " ca={}", name(file)).unwrap();
    }
    if let Some(pair) = &e.tls.client {
        write!(text, " client={}+{}", name(&pair.certificate), name(&pair.key)).unwrap();
    }
    if e.tls.skip_verify {
        text += " skip_verify";
    }
    for (header, value) in &e.headers {
        write!(text, " {header}={}", value.to_str().unwrap()).unwrap();
    }
    if let Some(login) = &e.login {
        write!(text, " as={}", login.username).unwrap();
    }
    if let Some(time) = e.dial_timeout {
        write!(text, " dial={time:?}").unwrap();
    }
    text
}

fn lines(found: &[Endpoint]) -> Vec<String> {
    found.iter().map(line).collect()
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        for name in ["ca.pem", "c.pem", "k.pem"] {
            fs::write(place.0.path().join(name), "x").unwrap();
        }
        place
    }

    fn registries(&self) -> Registries {
        let root = self.0.path();
        Registries { dirs: vec![root.join("certs.d")], file: Some(root.join("registries.yaml")) }
    }

    fn hosts(&self, name: &str, text: &str) {
        let dir = self.0.path().join("certs.d").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("hosts.toml"), text).unwrap();
    }

    fn yaml(&self, text: &str) {
        fs::write(self.0.path().join("registries.yaml"), text).unwrap();
    }

    fn of(&self, registry: &str) -> Vec<String> {
        lines(&self.registries().endpoints(registry).unwrap())
    }

    /// What is said of a mistake, without the folder's name; a node that starts says the same.
    fn refused(&self, registry: &str) -> String {
        let why = self.registries().endpoints(registry).unwrap_err();
        assert_eq!(self.registries().check().unwrap_err().to_string(), why.to_string());
        why.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

#[test]
fn without_files_a_registry_is_itself() {
    let place = Place::new();
    assert_eq!(place.of("docker.io"), ["https://registry-1.docker.io/v2 prP"]);
    assert_eq!(place.of("quay.io"), ["https://quay.io/v2 prP"]);
    assert_eq!(place.of("10.0.0.1:5000"), ["https://10.0.0.1:5000/v2 prP"]);
    assert_eq!(place.of("localhost:5000"), ["https+http://localhost:5000/v2 prP skip_verify"]);
    assert_eq!(place.of("[::1]:80"), ["http://[::1]:80/v2 prP skip_verify"]);
    assert_eq!(place.of("127.0.0.1"), ["https://127.0.0.1/v2 prP skip_verify"]);
}

#[test]
fn hosts_come_in_the_order_of_the_file_and_then_the_server() {
    let place = Place::new();
    place.hosts(
        "docker.io",
        r#"
server = "https://registry-1.docker.io"
ca = "../../ca.pem"

[host."https://mirror.example:8443/docker"]
  capabilities = ["pull"]
  ca = ["../../ca.pem", "/etc/hosts"]
  client = [["../../c.pem", "../../k.pem"]]
  skip_verify = true
  dial_timeout = "1m30s"
  [host."https://mirror.example:8443/docker".header]
    x-team = ["a", "b"]

[host."http://second.example"]
  capabilities = ["Pull", "resolve", "referrers"]
  override_path = true

[host."third.example/api/v2"]
  client = "../../c.pem"
"#,
    );
    assert_eq!(
        place.of("docker.io"),
        [
            "https://mirror.example:8443/docker/v2 p-- ns=docker.io ca=ca.pem ca=hosts \
             client=c.pem+k.pem skip_verify x-team=a x-team=b dial=90s",
            "http://second.example pr- ns=docker.io",
            "https://third.example/api/v2 prP ns=docker.io client=c.pem+c.pem",
            "https://registry-1.docker.io/v2 prP ca=ca.pem",
        ]
    );
}

#[test]
fn a_file_without_a_server_ends_with_the_registry_itself() {
    let place = Place::new();
    place.hosts("r.example_5000_", "skip_verify = true\ncapabilities = [\"pull\"]\n");
    place.hosts("_default", "[host.\"http://m.example:5000\"]\nca = \"/etc/hosts\"\n");
    assert_eq!(place.of("r.example:5000"), ["https://r.example:5000/v2 prP skip_verify"]);
    // A host of HTTP with TLS set up is asked by TLS first.
    let both = "https+http://m.example:5000/v2 prP ns=other.example ca=hosts";
    assert_eq!(place.of("other.example"), [both, "https://other.example/v2 prP"]);
}

#[test]
fn dockers_certificates_are_found_without_a_hosts_file() {
    let place = Place::new();
    place.hosts("r.example", "");
    let dir = place.0.path().join("certs.d/r.example");
    for name in ["a.crt", "me.cert", "me.key", "readme"] {
        fs::write(dir.join(name), "x").unwrap();
    }
    assert_eq!(place.of("r.example"), ["https://r.example/v2 prP ca=a.crt client=me.cert+me.key"]);
    fs::write(dir.join("you.cert"), "x").unwrap();
    assert_eq!(
        place.refused("r.example"),
        "certs.d/r.example/you.cert: more than one client certificate is not supported"
    );
}

#[test]
fn mistakes_in_hosts_files_are_told_by_field() {
    for (text, why) in [
        ("server = ", "line 1: "),
        ("x = 1", "x: no such field"),
        ("skip_verify = \"yes\"", "skip_verify: true or false is expected, not a string"),
        ("server = 7", "server: a string is expected, not a number or a date"),
        ("server = \"ftp://x\"", "server: scheme \"ftp\": use http or https"),
        (
            "server = \"https://u:p@x\"",
            "server: \"https://u:p@x\": use [scheme://]host[:port][/path]",
        ),
        ("capabilities = \"pull\"", "capabilities: a list is expected, not a string"),
        ("capabilities = [\"fly\"]", "capabilities[0]: unknown capability fly"),
        (
            "ca = \"none.pem\"",
            "ca: certs.d/r.example/none.pem: No such file or directory (os error 2)",
        ),
        ("ca = [1]", "ca[0]: a string is expected, not a number or a date"),
        ("client = [[\"a\"]]", "client[0]: a pair is a certificate and a key"),
        (
            "client = [\"../../c.pem\", \"../../c.pem\"]",
            "client: more than one client certificate is not supported",
        ),
        ("dial_timeout = \"soon\"", "dial_timeout: \"soon\" is no duration (30s, 1m30s, 500ms)"),
        ("dial_timeout = \"0s\"", "dial_timeout: \"0s\" is no duration (30s, 1m30s, 500ms)"),
        ("[header]\n\"a b\" = \"x\"", "header.\"a b\": invalid HTTP header name"),
        ("[header]\na = [\"x\\ny\"]", "header.a[0]: failed to parse header value"),
        ("[host.\"https://m\"]\nskip_verfy = true", "host.\"https://m\".skip_verfy: no such field"),
        (
            "[host.\"https://m/?x=1\"]",
            "host.\"https://m/?x=1\": \"https://m/?x=1\": a query has no meaning here",
        ),
    ] {
        let place = Place::new();
        place.hosts("r.example", text);
        let said = place.refused("r.example");
        let wanted = format!("certs.d/r.example/hosts.toml: {why}");
        assert!(said.starts_with(&wanted), "{said}\nfor\n{wanted}");
    }
}

const YAML: &str = r#"
mirrors:
  docker.io:
    endpoint:
      - "https://mirror.example:5000"
      - "https://mirror.example:5000"
      - http://plain.example/artifactory/api/docker/hub
    rewrite:
      "^library/(.*)": "proxied/$1"
  quay.io:
    endpoint: ["https://quay.io", "https://m2.example"]
  quiet.example:
  "*":
    endpoint: ["https://all.example"]
configs:
  "mirror.example:5000":
    auth: {username: me, password: 12345}
    tls: {ca_file: ca.pem, cert_file: c.pem, key_file: k.pem}
  r.example:
    auth:
      identity_token: t
      username: you
    tls: {insecure_skip_verify: true}
"#;

#[test]
fn mirrors_of_k3s_are_tried_before_the_registry() {
    let place = Place::new();
    place.yaml(YAML);
    assert_eq!(
        place.of("docker.io"),
        [
            "https://mirror.example:5000/v2 pr- ns=docker.io ca=ca.pem client=c.pem+k.pem as=me",
            "http://plain.example/artifactory/api/docker/hub pr- ns=docker.io",
            "https://registry-1.docker.io/v2 prP",
        ]
    );
    // A registry that is named among its mirrors keeps its place.
    assert_eq!(
        place.of("quay.io"),
        ["https://quay.io/v2 prP", "https://m2.example/v2 pr- ns=quay.io"]
    );
    assert_eq!(place.of("quiet.example"), ["https://quiet.example/v2 prP"]);
    assert_eq!(
        place.of("r.example"),
        ["https://all.example/v2 pr- ns=r.example", "https://r.example/v2 prP skip_verify as=you"]
    );
    let hub = place.registries().endpoints("docker.io").unwrap();
    assert_eq!(hub[0].repository("library/nginx"), "proxied/nginx");
    assert_eq!(hub[0].repository("team/app"), "team/app");
    assert_eq!(hub[2].repository("library/nginx"), "library/nginx");
    assert_eq!(hub[0].login.as_ref().unwrap().password, "12345");
}

#[test]
fn a_folder_goes_before_the_file_of_k3s() {
    let place = Place::new();
    place.yaml(YAML);
    place.hosts("docker.io", "[host.\"https://toml.example\"]\ndial_timeout = \"500ms\"\n");
    let found = place.registries().endpoints("docker.io").unwrap();
    assert_eq!((found.len(), found[0].host.as_str()), (2, "toml.example"));
    assert_eq!(found[0].dial_timeout, Some(Duration::from_millis(500)));
}

#[test]
fn mistakes_in_registries_yaml_are_told_by_field() {
    for (text, why) in [
        ("a: [", ""),
        ("mirror: {}", "mirror: no such field"),
        ("mirrors: []", "mirrors: a table is expected, not a list"),
        ("mirrors: {x: {endpoints: []}}", "mirrors.x.endpoints: no such field"),
        ("mirrors: {x: {endpoint: y}}", "mirrors.x.endpoint: a list is expected, not a string"),
        ("mirrors: {x: {endpoint: ['ftp://y']}}", "mirrors.x.endpoint[0]: scheme \"ftp\""),
        ("mirrors: {x: {endpoint: ['']}}", "mirrors.x.endpoint[0]: "),
        ("mirrors: {x: {rewrite: {'(': y}}}", "mirrors.x.rewrite.\"(\": regex parse error"),
        ("configs: {x: {auths: {}}}", "configs.x.auths: no such field"),
        ("configs: {x: {auth: {user: y}}}", "configs.x.auth.user: no such field"),
        ("configs: {x: {tls: {ca_file: none}}}", "configs.x.tls.ca_file: none: No such file"),
        ("configs: {x: {tls: {cert_file: c.pem}}}", "configs.x.tls: cert_file without key_file"),
        ("configs: {x: {tls: {key_file: k.pem}}}", "configs.x.tls: key_file without cert_file"),
        ("configs: {x: {tls: {insecure_skip_verify: 1}}}", "configs.x.tls.insecure_skip_verify: "),
    ] {
        let place = Place::new();
        place.yaml(text);
        let said = place.refused("r.example");
        let wanted = format!("registries.yaml: {why}");
        assert!(said.starts_with(&wanted), "{said}\nfor\n{wanted}");
    }
}

#[test]
fn files_that_are_too_large_are_not_read() {
    let place = Place::new();
    place.yaml(&"# x\n".repeat(300_000));
    assert_eq!(place.refused("x"), "registries.yaml: it has more than 1048576 bytes");
}
