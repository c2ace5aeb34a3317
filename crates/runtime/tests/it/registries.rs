//! Registries as users configure them: Debian's docker-registry with logins, TLS of an authority of its own and
//! client certificates; mirrors that are away, lack something, or have it wrong.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use runtime::ImageService;
use runtime::cri::*;
use runtime::image::Times;

use crate::harness::{LIMIT, Node};

/// An authority, with its certificate in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
    name: &'static str,
}

impl Authority {
    fn new(dir: &Path, name: &'static str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        fs::write(dir.join(format!("{name}.pem")), issuer.pem()).unwrap();
        Authority { issuer, dir: dir.to_owned(), name }
    }

    fn file(&self) -> String {
        self.dir.join(format!("{}.pem", self.name)).display().to_string()
    }

    /// A certificate for this machine's loopback, as server or client: its file and its key's.
    fn issue(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str, text: String| {
            let path = self.dir.join(format!("{name}-{end}.pem"));
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        (file("cert", certificate.pem()), file("key", key.serialize_pem()))
    }
}

/// Debian's registry; it ends with this value.
struct Distribution {
    child: Child,
    port: u16,
    storage: PathBuf,
}

impl Distribution {
    /// `more` are further lines of its configuration, below `http`, then others.
    async fn start(dir: &Path, name: &str, http: &str, more: &str) -> Distribution {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let storage = dir.join(name);
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n{http}{more}",
            storage.display()
        );
        let file = dir.join(format!("{name}.yml"));
        fs::write(&file, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.expect("apt-get install docker-registry");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "the registry has ended");
            tokio::task::yield_now().await;
        }
        Distribution { child, port, storage }
    }

    async fn plain(dir: &Path, name: &str) -> Distribution {
        Distribution::start(dir, name, "", "").await
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The file of a blob.
    fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.storage.join("docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node whose registries are configured below its folder.
async fn node() -> Node {
    let node = Node::with(|config| {
        let root = config.root.parent().unwrap().to_owned();
        config.registries.dirs = vec![root.join("certs.d")];
        config.registries.file = Some(root.join("registries.yaml"));
    })
    .await;
    let layer = node.dir.path().join("layer");
    fs::create_dir(&layer).unwrap();
    fs::write(layer.join("file"), "content").unwrap();
    let images = node.rt().images();
    let layers = [images.commit_layer(&layer, Times::AsTheyAre).unwrap()];
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":{layers:?}}}}}"#
    );
    images.commit_image(config.as_bytes(), &["app:1".to_owned()], false).unwrap();
    node
}

fn yaml(node: &Node, text: &str) {
    fs::write(node.dir.path().join("registries.yaml"), text).unwrap();
}

fn hosts(node: &Node, registry: &str, text: &str) {
    let dir = node.dir.path().join("certs.d").join(registry);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("hosts.toml"), text).unwrap();
}

fn login(username: &str, password: &str) -> AuthConfig {
    let (username, password) = (username.to_owned(), password.to_owned());
    AuthConfig { username, password, ..AuthConfig::default() }
}

async fn push(node: &Node, to: &str, auth: AuthConfig) -> Result<String, String> {
    let done = tokio::time::timeout(LIMIT, node.rt().push_image("app:1", to, auth)).await;
    done.unwrap().map_err(|e| e.chain())
}

async fn pull(node: &Node, name: &str, auth: Option<AuthConfig>) -> Result<String, String> {
    let image = Some(ImageSpec { image: name.to_owned(), ..ImageSpec::default() });
    let request = PullImageRequest { image, auth, ..PullImageRequest::default() };
    let done = tokio::time::timeout(LIMIT, node.rt().pull_image(request)).await;
    done.unwrap().map_err(|e| e.chain())
}

/// Makes this node forget the image, so that the next pull fetches all of it.
async fn forget(node: &Node, name: &str) {
    for image in ["app:1", name] {
        let spec = ImageSpec { image: image.to_owned(), ..ImageSpec::default() };
        node.rt().remove_image(spec).await.map_err(|e| e.chain()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_over_tls_of_an_own_authority() {
    let node = node().await;
    let dir = node.dir.path();
    let (ours, other) = (Authority::new(dir, "ours"), Authority::new(dir, "other"));
    let (cert, key) = ours.issue("server");
    let users = Command::new("htpasswd").args(["-Bbn", "me", "secret"]).output().unwrap();
    let file = dir.join("htpasswd");
    fs::write(&file, users.stdout).unwrap();
    let tls = format!("  tls: {{certificate: {cert}, key: {key}}}\n");
    let auth = format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", file.display());
    let registry = Distribution::start(dir, "registry", &tls, &auth).await;
    let name = format!("{}/team/app:1", registry.host());
    let configured = |ca: &Authority, auth: &str| {
        let host = registry.host();
        yaml(
            &node,
            &format!("configs:\n  \"{host}\":\n    tls: {{ca_file: {}}}\n{auth}", ca.file()),
        );
    };
    let known = "    auth: {username: me, password: secret}\n";

    configured(&ours, "");
    let refused = push(&node, &name, AuthConfig::default()).await.unwrap_err();
    assert!(refused.contains("push access denied") && refused.contains("401"), "{refused}");
    let refused = push(&node, &name, login("me", "wrong")).await.unwrap_err();
    assert!(refused.contains("authorization failed"), "{refused}");
    // An authority that is not believed is no reason to try without TLS.
    configured(&other, known);
    let refused = push(&node, &name, AuthConfig::default()).await.unwrap_err();
    assert!(refused.contains("invalid peer certificate"), "{refused}");

    configured(&ours, known);
    let exact = push(&node, &name, AuthConfig::default()).await.unwrap();
    let (repository, digest) = exact.split_once('@').unwrap();
    assert_eq!(repository, format!("{}/team/app", registry.host()));
    assert!(registry.blob(digest).exists(), "it is the manifest's digest");
    forget(&node, &name).await;
    let id = pull(&node, &exact, None).await.unwrap();
    assert!(id.starts_with("sha256:"));

    // What a request says goes before what is configured.
    let refused = pull(&node, &name, Some(login("me", "wrong"))).await.unwrap_err();
    assert!(refused.contains("pull access denied"), "{refused}");
    configured(&ours, "");
    assert_eq!(pull(&node, &name, Some(login("me", "secret"))).await.unwrap(), id);
    let refused = pull(&node, &name, None).await.unwrap_err();
    assert!(refused.contains("pull access denied"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_and_headers_of_a_hosts_file() {
    let node = node().await;
    let dir = node.dir.path();
    let (ours, other) = (Authority::new(dir, "ours"), Authority::new(dir, "other"));
    let (cert, key) = ours.issue("server");
    let tls = format!("  tls: {{certificate: {cert}, key: {key}, clientcas: [{}]}}\n", ours.file());
    let registry = Distribution::start(dir, "registry", &tls, "").await;
    let folder = format!("127.0.0.1_{}_", registry.port);
    let name = format!("{}/app:1", registry.host());
    let with = |(cert, key): (String, String)| {
        hosts(&node, &folder, &format!("ca = {:?}\nclient = [[{cert:?}, {key:?}]]\n", ours.file()));
    };
    hosts(&node, &folder, &format!("ca = {:?}\n", ours.file()));
    push(&node, &name, AuthConfig::default()).await.unwrap_err();
    with(other.issue("stranger"));
    push(&node, &name, AuthConfig::default()).await.unwrap_err();
    with(ours.issue("us"));
    push(&node, &name, AuthConfig::default()).await.unwrap();
    // The file's mistakes are told at the next pull.
    hosts(&node, &folder, "skip_verify = 1\n");
    let refused = pull(&node, &name, None).await.unwrap_err();
    assert!(refused.contains("hosts.toml: skip_verify: true or false is expected"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_tried_in_order_and_the_registry_last() {
    let node = node().await;
    let dir = node.dir.path();
    let (first, second) =
        (Distribution::plain(dir, "first").await, Distribution::plain(dir, "second").await);
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    push(&node, &format!("{}/team/app:1", second.host()), AuthConfig::default()).await.unwrap();
    let mirror = |host: &str, more: &str| format!("[host.\"http://{host}\"]\n{more}\n");
    hosts(
        &node,
        "registry.invalid",
        &[
            mirror(&format!("127.0.0.1:{away}"), ""),
            mirror(&first.host(), ""),
            mirror(&second.host(), ""),
        ]
        .concat(),
    );
    let name = "registry.invalid/team/app:1";
    forget(&node, name).await;
    let id = pull(&node, name, None).await.unwrap();
    let image = node.rt().images().find(name).unwrap();
    assert_eq!(image.id, id);
    assert!(image.digests.iter().all(|d| d.starts_with("registry.invalid/team/app@sha256:")));

    // Nobody has this one: each says why.
    let refused = pull(&node, "registry.invalid/team/none:1", None).await.unwrap_err();
    for part in [
        format!("http://127.0.0.1:{away}/v2/team/none: connect to 127.0.0.1"),
        format!("http://{}/v2/team/none: {0}/team/none:1: not found", first.host()),
        "https://registry.invalid/v2/team/none: ".to_owned(),
    ] {
        assert!(refused.contains(&part), "{refused}\nlacks\n{part}");
    }
    // A mirror that may not say what a tag is gives content by its digest only.
    hosts(&node, "registry.invalid", &mirror(&second.host(), "capabilities = [\"pull\"]"));
    forget(&node, name).await;
    let refused = pull(&node, name, None).await.unwrap_err();
    assert!(refused.contains("registry.invalid") && !refused.contains(&second.host()), "{refused}");
    let exact = image.digests.first().unwrap();
    assert_eq!(pull(&node, exact, None).await.unwrap(), id);
    // Nor is it pushed to.
    let refused = push(&node, "registry.invalid/x:1", AuthConfig::default()).await.unwrap_err();
    assert!(!refused.contains(&second.host()), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_has_a_layer_wrong_is_left_for_the_next() {
    let node = node().await;
    let dir = node.dir.path();
    let (wrong, right) =
        (Distribution::plain(dir, "wrong").await, Distribution::plain(dir, "right").await);
    for registry in [&wrong, &right] {
        let name = format!("{}/app:1", registry.host());
        push(&node, &name, AuthConfig::default()).await.unwrap();
    }
    let exact = push(&node, &format!("{}/app:1", wrong.host()), AuthConfig::default()).await;
    let manifest = fs::read(wrong.blob(exact.unwrap().split_once('@').unwrap().1)).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layer = wrong.blob(manifest["layers"][0]["digest"].as_str().unwrap());
    let mut bytes = fs::read(&layer).unwrap();
    // gzip's field for the operating system: the content stays, the digest does not.
    bytes[9] ^= 1;
    fs::write(&layer, &bytes).unwrap();
    let mirrors = format!(
        "mirrors:\n  registry.invalid:\n    endpoint: [\"http://{}\", \"http://{}\"]\n",
        wrong.host(),
        right.host()
    );
    yaml(&node, &mirrors);
    for name in [format!("{}/app:1", wrong.host()), format!("{}/app:1", right.host())] {
        forget(&node, &name).await;
    }
    pull(&node, "registry.invalid/app:1", None).await.unwrap();
    let image = node.rt().images().find("registry.invalid/app:1").unwrap();
    let file = node.rt().images().layer_dirs(&image)[0].join("file");
    assert_eq!(fs::read_to_string(file).unwrap(), "content");
    forget(&node, "registry.invalid/app:1").await;
    drop(right);
    let refused = pull(&node, "registry.invalid/app:1", None).await.unwrap_err();
    assert!(refused.contains("has the digest sha256:"), "{refused}");
    assert_eq!(fs::read_dir(node.config.root.join("images/tmp")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_have_other_names_at_a_mirror() {
    let node = node().await;
    let registry = Distribution::plain(node.dir.path(), "registry").await;
    let name = format!("{}/copies/app:1", registry.host());
    push(&node, &name, AuthConfig::default()).await.unwrap();
    forget(&node, &name).await;
    let text = format!(
        "mirrors:\n  \"*\":\n    endpoint: [\"http://{}\"]\n    rewrite: {{\"^team/(.*)$\": \"copies/$1\"}}\n",
        registry.host()
    );
    yaml(&node, &text);
    pull(&node, "registry.invalid/team/app:1", None).await.unwrap();
}
