//! Registries that lie, stall and break: each is refused in time, in plain words, and leaves nothing.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::cri::*;
use runtime::{ImageService, PullLimits};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::Node;

/// How long a refusal may take; the limits below are far shorter.
const DEADLINE: Duration = Duration::from_secs(15);

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |t, b| format!("{t}{b:02x}"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// One entry of a tar, its name as it is given.
fn entry(name: &str, kind: tar::EntryType, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(content);
    out.resize(out.len().div_ceil(512) * 512, 0);
    out
}

fn tar_of(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = entries.concat();
    out.extend_from_slice(&[0; 1024]);
    out
}

/// What comes after an answer's bytes.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Close,
    Stall,
    Trickle,
}

#[derive(Clone)]
struct Answer {
    head: String,
    body: Vec<u8>,
    /// Announced length; the body's when there is none.
    length: Option<usize>,
    then: Then,
}

impl Answer {
    fn ok(body: impl Into<Vec<u8>>) -> Answer {
        Answer { head: "200 OK".to_owned(), body: body.into(), length: None, then: Then::Close }
    }

    fn head(head: &str) -> Answer {
        Answer { head: head.to_owned(), ..Answer::ok("") }
    }
}

type Files = HashMap<String, Answer>;

/// An image of one layer, whole: what a case then spoils.
struct Image {
    files: Files,
    layer: String,
    config: String,
    manifest: String,
}

impl Image {
    fn new(layer: &[u8], packed: Vec<u8>) -> Image {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            digest(layer)
        );
        Image::of(config, &digest(&packed), packed.len(), packed)
    }

    fn of(config: String, layer: &str, size: usize, packed: Vec<u8>) -> Image {
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":{}}},"layers":[{{"digest":"{layer}","size":{size}}}]}}"#,
            digest(config.as_bytes()),
            config.len(),
        );
        let blob = |digest: &str| format!("/v2/a/b/blobs/{digest}");
        let (layer, config_path) = (blob(layer), blob(&digest(config.as_bytes())));
        let manifest_path = "/v2/a/b/manifests/v1".to_owned();
        let files = HashMap::from([
            (manifest_path.clone(), Answer::ok(manifest)),
            (config_path.clone(), Answer::ok(config)),
            (layer.clone(), Answer::ok(packed)),
        ]);
        Image { files, layer, config: config_path, manifest: manifest_path }
    }

    fn plain() -> Image {
        let tar = tar_of(&[entry("f", tar::EntryType::Regular, "", &[b'x'; 20_000])]);
        Image::new(&tar, gzip(&tar))
    }

    fn with_entries(entries: &[Vec<u8>]) -> Image {
        let tar = tar_of(entries);
        Image::new(&tar, gzip(&tar))
    }

    fn spoil(mut self, path: fn(&Image) -> String, answer: impl FnOnce(Answer) -> Answer) -> Image {
        let path = path(&self);
        let good = self.files.remove(&path).unwrap();
        self.files.insert(path, answer(good));
        self
    }
}

async fn answer(stream: TcpStream, files: &Mutex<Files>, port: u16) {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        if first.is_empty() {
            first = line.clone();
        }
        if line == "\r\n" {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    let found = files.lock().unwrap().get(path.split('?').next().unwrap_or("")).cloned();
    let found = found.unwrap_or_else(|| Answer::head("404 Not Found"));
    let length = found.length.unwrap_or(found.body.len());
    let head = found.head.replace("PORT", &port.to_string());
    let text = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n");
    if found.head.is_empty() {
        std::future::pending::<()>().await;
    }
    // The client may hang up first.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.write_all(&found.body).await;
    match found.then {
        Then::Close => {}
        Then::Stall => std::future::pending().await,
        Then::Trickle => {
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            while stream.write_all(b"x").await.is_ok() {
                ticks.tick().await;
            }
        }
    }
}

/// What is wrong, the image with it, and what the refusal says.
fn cases() -> Vec<(&'static str, Image, &'static str)> {
    let manifest = |image: &Image| image.manifest.clone();
    let config = |image: &Image| image.config.clone();
    let layer = |image: &Image| image.layer.clone();
    let replace = |text: &'static str| move |_| Answer::ok(text);
    let head = |text: &'static str| move |_| Answer::head(text);
    let file = |name: &str| entry(name, tar::EntryType::Regular, "", b"1");
    let zeros = r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}]}"#;
    let tar = tar_of(&[file("f")]);
    let lies = Image::plain().spoil(layer, |a| {
        let half = a.body.len() / 2;
        Answer { length: Some(a.body.len()), body: a.body[..half].to_vec(), ..a }
    });
    let mut larger = Image::new(&tar, gzip(&tar));
    let path = larger.layer.clone();
    larger.files.get_mut(&path).unwrap().body.extend_from_slice(&[0; 4096]);
    let other_diff = {
        let other = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            digest(b"other")
        );
        let packed = gzip(&tar);
        Image::of(other, &digest(&packed), packed.len(), packed)
    };
    let other_blob = {
        let good = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            digest(&tar)
        );
        let packed = gzip(&tar);
        Image::of(good, &digest(b"other"), packed.len(), packed)
    };
    let bomb = {
        let mut endless = tar::Header::new_gnu();
        endless.set_path("x").unwrap();
        endless.set_entry_type(tar::EntryType::GNULongName);
        endless.set_size(64 << 20);
        endless.set_cksum();
        let mut bytes = endless.as_bytes().to_vec();
        bytes.resize(bytes.len() + (64 << 20), b'x');
        Image::new(&bytes, gzip(&bytes))
    };
    vec![
        ("stalled manifest", Image::plain().spoil(manifest, |a| Answer { length: Some(9999), then: Then::Stall, ..a }), "in time"),
        ("no answer", Image::plain().spoil(manifest, |a| Answer { head: String::new(), ..a }),
            "does not answer in time",
        ),
        ("stalled layer", Image::plain().spoil(layer, |a| Answer { length: Some(a.body.len()), body: a.body[..10].to_vec(), then: Then::Stall, ..a }), "has stalled"),
        ("trickling layer", Image::plain().spoil(layer, |a| Answer { length: Some(1 << 20), body: Vec::new(), then: Then::Trickle, ..a }), ""),
        ("layer shorter than announced", lies, ""),
        ("layer larger than announced", larger, "is larger than"),
        ("corrupt layer", Image::plain().spoil(layer, |mut a| { let middle = a.body.len() / 2; a.body[middle] ^= 0xff; a }), ""),
        ("truncated gzip", { let packed = gzip(&tar); let cut = packed[..packed.len() - 12].to_vec(); Image::new(&tar, cut) }, ""),
        ("layer of another digest", other_diff, "announced was"),
        ("blob of another digest", other_blob, "has the digest"),
        ("configuration of another digest", Image::plain().spoil(config, replace(r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#)), "has the digest"),
        ("index of a manifest that is another", Image::plain().spoil(manifest, replace(zeros)), "not found"),
        ("redirects in a circle", Image::plain().spoil(manifest, head("307 Temporary Redirect\r\nlocation: /v2/a/b/manifests/v1")), "more than 5 redirects"),
        ("redirect to nowhere", Image::plain().spoil(layer, head("307 Temporary Redirect\r\nlocation: nowhere")), "redirect to"),
        ("redirect to another scheme", Image::plain().spoil(layer, head("307 Temporary Redirect\r\nlocation: file:///etc/passwd")), "redirect to"),
        ("huge manifest", Image::plain().spoil(manifest, |_| Answer::ok(vec![b' '; 5 << 20])), "more than 4194304 bytes"),
        ("page instead of a manifest", Image::plain().spoil(manifest, replace("<html>login</html>")), "is no manifest"),
        ("empty manifest", Image::plain().spoil(manifest, replace("{}")), "names no configuration"),
        ("schema 1", Image::plain().spoil(manifest, replace(r#"{"schemaVersion":1,"fsLayers":[]}"#)), "schema 1"),
        ("digest that is a path", Image::plain().spoil(manifest, replace(r#"{"schemaVersion":2,"config":{"digest":"../../../x"},"layers":[]}"#)), "is not sha256"),
        ("more layers than the configuration", Image::plain().spoil(manifest, |a| { let text = String::from_utf8(a.body).unwrap(); let layers = text.find("\"layers\":[").unwrap() + 10; let one = text[layers..text.len() - 2].to_owned(); Answer::ok(text.replace(&one, &format!("{one},{one}"))) }), "but the configuration lists"),
        ("server error", Image::plain().spoil(manifest, head("500 Internal Server Error")), "500 Internal Server Error"),
        ("busy for ever", Image::plain().spoil(manifest, head("429 Too Many Requests\r\nretry-after: 1")), "429 Too Many Requests"),
        ("busy for a day", Image::plain().spoil(manifest, head("503 Service Unavailable\r\nretry-after: 86400")), "503 Service Unavailable"),
        ("token service without tokens", Image::plain().spoil(manifest, head("401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://127.0.0.1:PORT/none\",service=\"s\"")), "token service 127.0.0.1: 404 Not Found"),
        ("token service that answers with a page", { let mut image = Image::plain().spoil(manifest, head("401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://127.0.0.1:PORT/page\",service=\"s\"")); image.files.insert("/page".to_owned(), Answer::ok("<html>")); image }, "is no token"),
        ("token with a line break", { let mut image = Image::plain().spoil(manifest, head("401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://127.0.0.1:PORT/t\",service=\"s\"")); image.files.insert("/t".to_owned(), Answer::ok(r#"{"token":"a\r\nx: y"}"#)); image }, "has no token"),
        ("token that is never enough", { let mut image = Image::plain().spoil(manifest, head("401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://127.0.0.1:PORT/t\",service=\"s\"")); image.files.insert("/t".to_owned(), Answer::ok(r#"{"token":"a"}"#)); image }, "pull access denied"),
        ("file above the root", Image::with_entries(&[file("../../../up")]), "leads out of the layer"),
        ("file through a link out", Image::with_entries(&[entry("out", tar::EntryType::Symlink, "/var/tmp/trireme-hostile", b""), file("out/f")]), ""),
        ("hard link out", Image::with_entries(&[entry("h", tar::EntryType::Link, "../../../../etc/passwd", b"")]), "leads out of the layer"),
        ("hard link to the host's file", Image::with_entries(&[entry("h", tar::EntryType::Link, "/etc/passwd", b"")]), ""),
        ("name of 64 MiB", bomb, "more than 1 MiB"),
        ("entry of an unknown kind", Image::with_entries(&[entry("u", tar::EntryType::new(b'Q'), "", b"")]), ""),
        ("no archive at all", { let noise = vec![0xaau8; 4096]; Image::new(&noise, gzip(&noise)) }, ""),
    ]
}

/// An index that holds an index, and so on.
fn nested(depth: usize) -> Image {
    let mut image = Image::plain();
    let mut inner = image.files[&image.manifest].body.clone();
    for _ in 0..depth {
        let path = format!("/v2/a/b/manifests/{}", digest(&inner));
        let outer = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":1}}]}}"#,
            digest(&inner)
        );
        image.files.insert(path, Answer::ok(inner));
        inner = outer.into_bytes();
    }
    image.files.insert(image.manifest.clone(), Answer::ok(inner));
    image
}

struct Registry {
    node: Node,
    files: Arc<Mutex<Files>>,
    port: u16,
    server: tokio::task::JoinHandle<()>,
}

impl Registry {
    async fn start() -> Registry {
        let mut node = Node::new().await;
        let short = Duration::from_millis(300);
        node.config.pull_limits = PullLimits {
            connect: Duration::from_secs(5),
            answer: short,
            stall: short,
            retry_pause: Duration::from_millis(1),
            retry_after: Duration::from_secs(1),
        };
        node.restart().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let files = Arc::new(Mutex::new(HashMap::new()));
        let served = files.clone();
        let server = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let files = served.clone();
                tasks.spawn(async move { answer(stream, &files, port).await });
            }
        });
        Registry { node, files, port, server }
    }

    async fn pull(&self, image: Image) -> Result<String, String> {
        *self.files.lock().unwrap() = image.files;
        let name = format!("127.0.0.1:{}/a/b:v1", self.port);
        let spec = ImageSpec { image: name, ..ImageSpec::default() };
        let request = PullImageRequest { image: Some(spec), ..PullImageRequest::default() };
        let done = tokio::time::timeout(DEADLINE, self.node.rt().pull_image(request)).await;
        done.expect("refused in time").map_err(|e| e.chain())
    }

    /// What a refused pull has left in the store.
    fn left(&self, before: usize) -> Vec<String> {
        let root = self.node.config.root.join("images");
        let mut left = Vec::new();
        for (dir, allowed) in [("tmp", 0), ("layers", before), ("images", 1), ("blobs", 1)] {
            let names: Vec<_> = std::fs::read_dir(root.join(dir)).unwrap().collect();
            if names.len() > allowed {
                left.push(format!("{dir}: {}", names.len()));
            }
        }
        left
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_is_refused_and_leaves_nothing() {
    let registry = Registry::start().await;
    let outside = std::path::Path::new("/var/tmp/trireme-hostile");
    let mut wrong = Vec::new();
    for (name, image, want) in cases() {
        match registry.pull(image).await {
            Ok(_) => wrong.push(format!("{name}: pulled")),
            Err(error) if !error.contains(want) => wrong.push(format!("{name}: {error}")),
            Err(error) => eprintln!("{name}: {error}"),
        }
        let left = registry.left(1);
        if !left.is_empty() {
            wrong.push(format!("{name}: left {left:?}"));
        }
        assert!(!outside.exists(), "{name}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let error = registry.pull(nested(9)).await.unwrap_err();
    assert!(error.contains("nested deeper than 4"), "{error}");
    registry.pull(nested(3)).await.unwrap();
    registry.server.abort();
}
