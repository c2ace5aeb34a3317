//! Certificates, keys and authorities of the API server's flags, which are read again when their files change.
//!
//! A file that is half written or wrong leaves the former one in force, and says so in the log and in
//! `trireme_file_reloads_total`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use apiserver::{Figures, FrontProxy, KubeletTls, LiveTls, Server, TlsSetup};
use client::Tasks;
use pki::KeyPairPem;
use telemetry::{IntCounterVec, Registry};

/// Between two looks at a file.
const LOOK: Duration = Duration::from_secs(10);
/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Text of a file of a flag.
pub(crate) fn read(path: &Path) -> Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let shown = || format!("read {}", path.display());
    let file = std::fs::File::open(path).with_context(shown)?;
    file.take(FILE_MAX + 1).read_to_string(&mut text).with_context(shown)?;
    anyhow::ensure!(text.len() as u64 <= FILE_MAX, "{} is larger than 1 MiB", path.display());
    Ok(text)
}

/// Counts reloads.
#[derive(Debug)]
pub(crate) struct Reloads {
    registry: Registry,
    counted: IntCounterVec,
}

impl Default for Reloads {
    fn default() -> Reloads {
        let registry = Registry::default();
        let counted = registry.counters(
            "trireme_file_reloads_total",
            "Files that changed and were read again, by whether their content came into force.",
            &["file", "status"],
        );
        Reloads { registry, counted }
    }
}

/// The figures for `/metrics`.
pub(crate) fn figures(reloads: Arc<Reloads>) -> Figures {
    Box::new(move || reloads.registry.families())
}

/// Files that make sense together only, e.g. a certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    /// Names them in log and figures.
    pub(crate) what: &'static str,
    pub(crate) paths: Vec<PathBuf>,
}

impl Followed {
    pub(crate) fn read(&self) -> Result<Vec<String>> {
        self.paths.iter().map(|path| read(path)).collect()
    }

    /// Hands every other content to `apply`, until that takes it.
    pub(crate) async fn follow<F, W>(self, mut used: Vec<String>, reloads: Arc<Reloads>, apply: F)
    where
        F: Fn(Vec<String>) -> W,
        W: Future<Output = Result<()>>,
    {
        let mut told = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let texts = match self.read() {
                Ok(texts) if texts == used => {
                    told = None;
                    continue;
                }
                other => other,
            };
            let outcome = match texts {
                Ok(texts) => apply(texts.clone()).await.map(|()| used = texts),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => {
                    told = None;
                    tracing::info!(file = self.what, "a file that changed is in force");
                    reloads.counted.with_label_values(&[self.what, "success"]).inc();
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    // Once for each fault: it is looked at again and again.
                    if told.as_ref() != Some(&error) {
                        tracing::error!(
                            file = self.what,
                            error,
                            "a file that changed cannot be used; the former content stays in force"
                        );
                        reloads.counted.with_label_values(&[self.what, "failure"]).inc();
                    }
                    told = Some(error);
                }
            }
        }
    }
}

/// The certificates of a running API server.
#[derive(Debug)]
pub(crate) struct Certificates {
    server: Server,
    tls: Arc<LiveTls>,
    setup: Mutex<TlsSetup>,
    tasks: Tasks,
}

impl Certificates {
    pub(crate) fn new(server: Server, setup: TlsSetup, tasks: &Tasks) -> Result<Certificates> {
        let tls = Arc::new(LiveTls::new(&setup)?);
        Ok(Certificates { server, tls, setup: Mutex::new(setup), tasks: tasks.clone() })
    }

    pub(crate) fn tls(&self) -> Arc<LiveTls> {
        self.tls.clone()
    }

    fn exchange(&self, change: impl FnOnce(&mut TlsSetup)) -> Result<()> {
        let mut setup = self.setup.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = setup.clone();
        change(&mut changed);
        self.tls.replace(&changed)?;
        *setup = changed;
        Ok(())
    }

    /// Another certificate of the server.
    pub(crate) fn serve_with(&self, pair: KeyPairPem) -> Result<()> {
        self.exchange(|setup| {
            setup.cert_pem = pair.cert_pem;
            setup.key_pem = pair.key_pem;
        })
    }

    /// Other authorities of clients.
    pub(crate) async fn believe(&self, client_ca_pem: String) -> Result<()> {
        self.exchange(|setup| setup.client_ca_pem.clone_from(&client_ca_pem))?;
        let published = self.server.publish_client_ca(&client_ca_pem, &self.tasks);
        published.await.context("publish the authority of client certificates")
    }

    /// Another certificate towards extension servers.
    pub(crate) async fn front(&self, front_proxy: FrontProxy) -> Result<()> {
        self.exchange(|setup| {
            let believed = setup.front_proxy_ca_pem.as_mut();
            believed.into_iter().for_each(|pem| pem.clone_from(&front_proxy.ca_pem));
        })?;
        let replaced = self.server.replace_front_proxy(front_proxy);
        replaced.map_err(|why| anyhow::anyhow!("the front proxy's certificate: {why}"))?;
        let client_ca = {
            let setup = self.setup.lock().unwrap_or_else(PoisonError::into_inner);
            setup.client_ca_pem.clone()
        };
        let published = self.server.publish_client_ca(&client_ca, &self.tasks);
        published.await.context("publish the authority of front proxies")
    }
}

/// TLS towards kubelets, which may be exchanged.
#[derive(Debug, Clone)]
pub(crate) struct LiveKubeletTls(Arc<RwLock<KubeletTls>>);

impl LiveKubeletTls {
    pub(crate) fn new(tls: KubeletTls) -> LiveKubeletTls {
        LiveKubeletTls(Arc::new(RwLock::new(tls)))
    }

    pub(crate) fn get(&self) -> KubeletTls {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace(&self, tls: KubeletTls) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{Followed, Reloads};

    fn counted(reloads: &Reloads, status: &str) -> u64 {
        reloads.counted.with_label_values(&["pair", status]).get()
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_applied_once_and_faults_are_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = vec![folder.path().join("cert"), folder.path().join("key")];
        let write = |at: usize, text: &str| std::fs::write(&paths[at], text).expect("written");
        write(0, "cert 1");
        write(1, "key 1");
        let followed = Followed { what: "pair", paths: paths.clone() };
        let used = followed.read().expect("both are there");
        let (reloads, applied) = (Arc::new(Reloads::default()), Arc::new(Mutex::new(Vec::new())));
        let (counting, taken) = (reloads.clone(), applied.clone());
        let task = tokio::spawn(followed.follow(used, counting, move |texts| {
            let belong = texts[0].replace("cert", "key") == texts[1];
            if belong {
                taken.lock().expect("no panic").push(texts[0].clone());
            }
            let wrong = || anyhow::anyhow!("the key is of another certificate");
            std::future::ready(belong.then_some(()).ok_or_else(wrong))
        }));
        let look = || tokio::time::sleep(super::LOOK * 3);
        look().await;
        assert!(applied.lock().expect("no panic").is_empty(), "nothing changed");
        write(0, "cert 2");
        look().await;
        assert_eq!((counted(&reloads, "success"), counted(&reloads, "failure")), (0, 1));
        write(1, "key 2");
        look().await;
        assert_eq!(*applied.lock().expect("no panic"), ["cert 2"]);
        assert_eq!(counted(&reloads, "success"), 1);
        std::fs::remove_file(&paths[1]).expect("removed");
        look().await;
        assert_eq!(counted(&reloads, "failure"), 2);
        task.abort();
    }
}
