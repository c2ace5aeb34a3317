//! Pulls: from Debian's docker-registry filled by skopeo, and from a server that asks for a token and
//! breaks off.
use std::collections::HashMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use runtime::ImageService;
use runtime::cri::*;
use runtime::image::Times;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::harness::{LIMIT, Node};

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |t, b| format!("{t}{b:02x}"))
}

fn tar_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn config_of(layers: &[&[u8]]) -> String {
    let ids: Vec<String> = layers.iter().map(|l| format!("{:?}", digest(l))).collect();
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/x"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    )
}

fn request(image: &str) -> PullImageRequest {
    PullImageRequest {
        image: Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() }),
        ..PullImageRequest::default()
    }
}

/// Bytes that do not compress, so that a layer is as large on the wire.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 88172645463325252u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_real_registry() {
    let node = Node::new().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut registry = Command::new("docker-registry")
        .args(["serve", "/etc/docker/registry/config.yml"])
        .env("REGISTRY_HTTP_ADDR", format!("127.0.0.1:{port}"))
        .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", node.dir.path().join("registry"))
        .env("REGISTRY_AUTH", "none")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("apt-get install docker-registry skopeo");
    let big = noise(3 << 20);
    let layers =
        [tar_of(&[("etc/name", b"lower"), ("big", &big)]), tar_of(&[("etc/name", b"upper")])];
    let config = config_of(&[&layers[0], &layers[1]]);
    let manifest = r#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["0.tar","1.tar"]}]"#;
    let archive = tar_of(&[
        ("0.tar", &layers[0]),
        ("1.tar", &layers[1]),
        ("c.json", config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ]);
    let file = node.dir.path().join("x.tar");
    std::fs::write(&file, archive).unwrap();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(registry.try_wait().unwrap().is_none(), "the registry has ended");
        tokio::task::yield_now().await;
    }
    for format in ["gzip", "zstd"] {
        let done = Command::new("skopeo")
            .args([
                "copy",
                "--insecure-policy",
                "--dest-tls-verify=false",
                "--dest-compress-format",
                format,
                "--format",
                "oci",
            ])
            .arg(format!("docker-archive:{}", file.display()))
            .arg(format!("docker://127.0.0.1:{port}/team/app:{format}"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    for format in ["gzip", "zstd"] {
        let name = format!("127.0.0.1:{port}/team/app:{format}");
        let id = node.rt().pull_image(request(&name)).await.map_err(|e| e.chain()).unwrap();
        let spec = ImageSpec { image: name.clone(), ..ImageSpec::default() };
        let image = node.rt().image_status(spec, false).await.unwrap().image.unwrap();
        assert_eq!(image.id, id);
        let exact = &image.repo_digests[0];
        assert!(exact.starts_with(&format!("127.0.0.1:{port}/team/app@sha256:")), "{exact}");
        assert_eq!(image.size, (3 << 20) + 10);
        assert!(!image.pinned);
        // The streams of another tool are made again, byte by byte.
        let copy = format!("127.0.0.1:{port}/team/copy:{format}");
        let pushed = node.rt().push_image(&name, &copy, AuthConfig::default()).await;
        pushed.map_err(|e| e.chain()).unwrap();
        let top = node.rt().images().layer_dir(&digest(&layers[1]));
        assert_eq!(std::fs::read(top.join("etc/name")).unwrap(), b"upper");
        node.rt().remove_image(ImageSpec { image: name, ..ImageSpec::default() }).await.unwrap();
        assert!(!top.exists());
    }
    let missing =
        node.rt().pull_image(request(&format!("127.0.0.1:{port}/team/none:1"))).await.unwrap_err();
    assert!(missing.chain().contains("not found"), "{}", missing.chain());
    registry.kill().unwrap();
    registry.wait().unwrap();
}

/// Debian's registry on a port of its own; it ends with this value.
struct Distribution(std::process::Child);

impl Distribution {
    async fn start(dir: &std::path::Path) -> (Distribution, u16) {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("docker-registry")
            .args(["serve", "/etc/docker/registry/config.yml"])
            .env("REGISTRY_HTTP_ADDR", format!("127.0.0.1:{port}"))
            .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", dir.join("registry"))
            .env("REGISTRY_AUTH", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.expect("apt-get install docker-registry");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "the registry has ended");
            tokio::task::yield_now().await;
        }
        (Distribution(child), port)
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_can_be_pulled() {
    let node = Node::new().await;
    let (_registry, port) = Distribution::start(node.dir.path()).await;
    // One layer goes in pieces, the other in one request.
    let images = node.rt().images();
    let mut layers = Vec::new();
    for (name, content) in [("big", noise(20 << 20)), ("small", b"1".to_vec())] {
        let dir = node.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join(name), content).unwrap();
        layers.push(images.commit_layer(&dir, Times::AsTheyAre).unwrap());
    }
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":{layers:?}}}}}"#
    );
    let names = ["x:1".to_owned()];
    let id = images.commit_image(config.as_bytes(), &names, false).unwrap().id;
    let name = format!("127.0.0.1:{port}/team/app:1");
    let push = |name: String| {
        let runtime = node.rt().clone();
        async move { runtime.push_image("x:1", &name, AuthConfig::default()).await }
    };
    let exact = push(name.clone()).await.map_err(|e| e.chain()).unwrap();
    // Again, and into another repository: the layers are there.
    assert_eq!(push(name.clone()).await.unwrap(), exact);
    let second = push(format!("127.0.0.1:{port}/other/app:1")).await.unwrap();
    assert_eq!(second.split_once('@').unwrap().1, exact.split_once('@').unwrap().1);
    let spec = |image: &str| ImageSpec { image: image.to_owned(), ..ImageSpec::default() };
    node.rt().remove_image(spec("x:1")).await.unwrap();
    assert!(images.find(&id).is_none());
    assert_eq!(node.rt().pull_image(request(&exact)).await.map_err(|e| e.chain()).unwrap(), id);
    assert_eq!(images.find(&exact).unwrap().id, id);
    let big = images.layer_dir(&layers[0]).join("big");
    assert_eq!(std::fs::read(big).unwrap(), noise(20 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pushed_is_refused() {
    let node = Node::new().await;
    let push = |image: &'static str, name: String| {
        let runtime = node.rt().clone();
        async move {
            let done = runtime.push_image(image, &name, AuthConfig::default()).await;
            done.map_err(|e| e.chain()).unwrap_err()
        }
    };
    let (_registry, port) = Distribution::start(node.dir.path()).await;
    let error = push("none:1", format!("127.0.0.1:{port}/a:1")).await;
    assert!(error.contains("image \"none:1\" not found"), "{error}");
    let by_digest = format!("127.0.0.1:{port}/a@sha256:{}", "0".repeat(64));
    let error = push("busybox", by_digest).await;
    assert!(error.contains("a name with a tag"), "{error}");
    // An image whose layer never was a stream.
    let error = push("busybox", format!("127.0.0.1:{port}/a:1")).await;
    assert!(error.contains("cannot be made into the same stream"), "{error}");
    let request = request(&format!("127.0.0.1:{port}/a:1"));
    assert!(node.rt().pull_image(request).await.is_err(), "no half image has a name");
}

/// Answers by path; blobs break off half way unless a range is asked for; everything wants a token.
async fn serve(listener: TcpListener, files: Arc<HashMap<String, Vec<u8>>>) {
    let port = listener.local_addr().unwrap().port();
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let files = files.clone();
        tasks.spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                    return;
                }
                if line == "\r\n" {
                    break;
                }
                head.push(line.trim_end().to_owned());
            }
            let path = head[0].split(' ').nth(1).unwrap().to_owned();
            let header = |name: &str| head.iter().find_map(|l| l.to_ascii_lowercase().strip_prefix(name).map(str::to_owned));
            let answer = if path.starts_with("/token") {
                let known = header("authorization: ").is_some_and(|h| h == "basic dxnlcjpwyxnz");
                let body = if known { r#"{"token":"good"}"# } else { r#"{"token":"bad"}"# };
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
            } else if header("authorization: ").as_deref() != Some("bearer good") {
                format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nwww-authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"s\"\r\n\r\n").into_bytes()
            } else if let Some(body) = files.get(&path) {
                let from: usize = header("range: bytes=").map_or(0, |r| r.trim_end_matches('-').parse().unwrap());
                let rest = &body[from..];
                let cut = if path.contains("/blobs/") && from == 0 && body.len() > 100_000 { rest.len() / 2 } else { rest.len() };
                let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
                let mut out = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", rest.len()).into_bytes();
                out.extend_from_slice(&rest[..cut]);
                out
            } else {
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()
            };
            // The client may hang up first.
            let _ = stream.write_all(&answer).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_and_through_breaks() {
    let node = Node::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let layer = tar_of(&[("x", &noise(400_000))]);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&layer).unwrap();
    let packed = packer.finish().unwrap();
    let config = config_of(&[&layer]);
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":{}}},"layers":[{{"digest":"{}","size":{}}}]}}"#,
        digest(config.as_bytes()),
        config.len(),
        digest(&packed),
        packed.len()
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[
            {{"digest":"sha256:{}","size":1,"platform":{{"os":"linux","architecture":"s390x"}}}},
            {{"digest":"{}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
        "0".repeat(64),
        digest(manifest.as_bytes())
    );
    let files = HashMap::from([
        ("/v2/a/b/manifests/v1".to_owned(), index.into_bytes()),
        (
            format!("/v2/a/b/manifests/{}", digest(manifest.as_bytes())),
            manifest.clone().into_bytes(),
        ),
        (format!("/v2/a/b/blobs/{}", digest(config.as_bytes())), config.clone().into_bytes()),
        (format!("/v2/a/b/blobs/{}", digest(&packed)), packed),
    ]);
    let server = tokio::spawn(serve(listener, Arc::new(files)));
    let name = format!("127.0.0.1:{port}/a/b:v1");
    let mut wanted = request(&name);
    let refused = tokio::time::timeout(LIMIT, node.rt().pull_image(wanted.clone()))
        .await
        .unwrap()
        .unwrap_err();
    assert!(refused.chain().contains("pull access denied"), "{}", refused.chain());
    wanted.auth = Some(AuthConfig {
        username: "user".to_owned(),
        password: "pass".to_owned(),
        ..AuthConfig::default()
    });
    tokio::time::timeout(LIMIT, node.rt().pull_image(wanted))
        .await
        .unwrap()
        .map_err(|e| e.chain())
        .unwrap();
    let file = node.rt().images().layer_dir(&digest(&layer)).join("x");
    assert_eq!(std::fs::read(file).unwrap(), noise(400_000));
    server.abort();
}
