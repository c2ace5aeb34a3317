//! Configurations that change while the server runs.

use std::path::PathBuf;
use std::time::Duration;

use encryption::Encryption;
use store::Transformer as _;
use tasks::Tasks;

use crate::provider::Provider;
use crate::{KEY, OTHER, SECRET, at, entry, file, is_stale, keys, sealed, shared, value};

struct File {
    folder: tempfile::TempDir,
}

impl File {
    fn new(providers: &str) -> File {
        let file = File { folder: tempfile::tempdir().expect("a folder") };
        file.write(&File::text(providers));
        file
    }

    fn text(providers: &str) -> String {
        file(&format!("[{}]", entry("secrets", providers)))
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("encryption.yaml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).expect("a file");
    }

    async fn load(&self) -> Encryption {
        let text = encryption::read(&self.path()).expect("a file");
        Encryption::new(&text, true, "server", &Tasks::new()).await.expect("a configuration")
    }
}

fn aes(all: &[(&str, &str)]) -> String {
    format!("{{aescbc: {}}}", keys(all))
}

#[tokio::test]
async fn a_changed_file_is_put_in_force() {
    let on_disk = File::new(&aes(&[("old", SECRET)]));
    let encryption = on_disk.load().await;
    let kept = sealed(&encryption, KEY, b"v");
    assert_eq!(encryption.reload(&on_disk.path()).await, Ok(false));
    on_disk.write(&File::text(&aes(&[("new", OTHER), ("old", SECRET)])));
    assert_eq!(encryption.reload(&on_disk.path()).await, Ok(true));
    assert!(is_stale(&encryption, &kept).await);
    assert!(sealed(&encryption, KEY, b"v").starts_with(b"k8s:enc:aescbc:v1:new:"));
    assert_eq!(value(&encryption, KEY, &kept).await, Ok(b"v".to_vec()));
    let text = encryption.metrics_text();
    assert!(text.contains("automatic_reloads_total{apiserver_id_hash=\"sha256:"), "{text}");
    assert!(text.contains("status=\"success\"} 1\n"), "{text}");
}

#[tokio::test]
async fn a_wrong_file_changes_nothing() {
    let on_disk = File::new(&aes(&[("old", SECRET)]));
    let encryption = on_disk.load().await;
    let good = File::text(&aes(&[("new", OTHER)]));
    for text in ["", "kind: ", &good[..good.len() - 20], "\u{0}", &File::text("{rot13: {}}")] {
        on_disk.write(text);
        assert!(encryption.reload(&on_disk.path()).await.is_err(), "{text:?}");
        assert!(sealed(&encryption, KEY, b"v").starts_with(b"k8s:enc:aescbc:v1:old:"));
    }
    std::fs::remove_file(on_disk.path()).expect("the file");
    assert!(encryption.reload(&on_disk.path()).await.is_err());
}

#[tokio::test]
async fn providers_that_are_not_healthy_do_not_come_into_force() {
    let provider = Provider::start();
    let on_disk = File::new(&aes(&[("old", SECRET)]));
    let encryption = on_disk.load().await;
    assert!(encryption.has_health(), "a followed file may name providers");
    assert_eq!(encryption.health().await, Ok(()));
    provider.change(|now| now.healthz = "no".into());
    on_disk.write(&File::text(&format!("{}, {}", provider.config("kms"), aes(&[("old", SECRET)]))));
    let refused = {
        let path = on_disk.path();
        let reload = encryption.reload(&path);
        tokio::pin!(reload);
        // Its patience is ten seconds: they pass at once, between its looks.
        loop {
            tokio::select! {
                outcome = &mut reload => break outcome,
                () = std::future::ready(()) => {}
            }
            if provider.calls("Status") > 0 {
                tokio::time::pause();
                tokio::time::advance(Duration::from_secs(4)).await;
                tokio::time::resume();
            }
            tokio::task::yield_now().await;
        }
    };
    let told = refused.expect_err("unhealthy").to_string();
    assert!(told.starts_with("health check for new transformers failed: "), "{told}");
    assert!(sealed(&encryption, KEY, b"v").starts_with(b"k8s:enc:aescbc:v1:old:"));
    provider.change(|now| now.healthz = "ok".into());
    assert_eq!(encryption.reload(&on_disk.path()).await, Ok(true));
    assert!(sealed(&encryption, KEY, b"v").starts_with(b"k8s:enc:kms:v2:kms:"));
}

#[tokio::test]
async fn a_followed_file_is_looked_at() {
    let on_disk = File::new(&aes(&[("old", SECRET)]));
    let encryption = shared(on_disk.load().await);
    let (followed, path) = (encryption.clone(), on_disk.path());
    let task = tokio::spawn(async move { followed.follow(&path, Vec::new).await });
    on_disk.write(&File::text(&aes(&[("new", OTHER)])));
    tokio::time::pause();
    let changed = async {
        while encryption.write_stamp(KEY).is_some_and(|stamp| stamp.contains(":old:")) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), changed).await.expect("it is in force");
    assert!(encryption.transform_to_storage(at(KEY), Vec::new()).is_ok());
    task.abort();
}
