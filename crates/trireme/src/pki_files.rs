//! The cluster's keys on disk: made at first start, loaded ever after.
//!
//! Layout and names are kubeadm's (`/etc/kubernetes/pki`), so that other tools find them.

use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use apiserver::FrontProxy;
use pki::{Authority, CertSpec, KeyPairPem, TokenIssuer};

/// The issuer of service account tokens.
pub(crate) const TOKEN_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The folder of keys and what was read from it.
#[derive(Debug)]
pub(crate) struct PkiFiles {
    folder: PathBuf,
    pub(crate) ca: Authority,
    token_key: Vec<u8>,
}

impl PkiFiles {
    pub(crate) fn open(folder: &Path) -> Result<PkiFiles> {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let ca = load_pair(folder, "ca")?;
        let ca = match ca {
            Some(pem) => Authority::load(pem).context("the cluster's CA")?,
            None => {
                let ca = Authority::create("kubernetes")?;
                save_pair(folder, "ca", ca.pem())?;
                ca
            }
        };
        let token_key = load_or_make(&folder.join("sa.der"), || Ok(TokenIssuer::generate_key()?))?;
        Ok(PkiFiles { folder: folder.to_owned(), ca, token_key })
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca.pem().cert_pem
    }

    pub(crate) fn tokens(&self) -> Result<TokenIssuer> {
        Ok(TokenIssuer::new(TOKEN_ISSUER, &self.token_key)?)
    }

    /// The configuration that Secrets are encrypted at rest with.
    pub(crate) fn encryption(&self) -> Result<PathBuf> {
        let path = self.folder.join("encryption.yaml");
        load_or_make(&path, || Ok(encryption::generate()?.into_bytes()))?;
        Ok(path)
    }

    /// The API server's certificate for the names it is reached by; issued anew at every start.
    pub(crate) fn api_server(&self, addresses: &[IpAddr], names: &[&str]) -> Result<KeyPairPem> {
        let mut all = vec![
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        all.extend(names);
        let pair = self.ca.issue(&CertSpec::server("kube-apiserver", &all, addresses))?;
        save_pair(&self.folder, "apiserver", &pair)?;
        Ok(pair)
    }

    /// The certificate by which extension servers know the API server, by an authority of its own: nobody else's
    /// client certificate may speak for users. Issued anew at every start.
    pub(crate) fn front_proxy(&self) -> Result<FrontProxy> {
        const CLIENT: &str = "front-proxy-client";
        let authority = match load_pair(&self.folder, "front-proxy-ca")? {
            Some(pem) => Authority::load(pem).context("the front proxy's CA")?,
            None => {
                let authority = Authority::create("front-proxy-ca")?;
                save_pair(&self.folder, "front-proxy-ca", authority.pem())?;
                authority
            }
        };
        let pair = authority.issue(&CertSpec::client(CLIENT, None))?;
        save_pair(&self.folder, CLIENT, &pair)?;
        Ok(FrontProxy {
            ca_pem: authority.pem().cert_pem.clone(),
            cert_pem: pair.cert_pem,
            key_pem: pair.key_pem,
            allowed_names: vec![CLIENT.to_owned()],
        })
    }

    /// A client certificate, not kept.
    pub(crate) fn client(&self, user: &str, group: Option<&str>) -> Result<KeyPairPem> {
        Ok(self.ca.issue(&CertSpec::client(user, group))?)
    }
}

fn load_pair(folder: &Path, name: &str) -> Result<Option<KeyPairPem>> {
    let (cert, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    if !cert.exists() && !key.exists() {
        return Ok(None);
    }
    let read =
        |p: &Path| std::fs::read_to_string(p).with_context(|| format!("read {}", p.display()));
    Ok(Some(KeyPairPem { cert_pem: read(&cert)?, key_pem: read(&key)? }))
}

pub(crate) fn save_pair(folder: &Path, name: &str, pair: &KeyPairPem) -> Result<()> {
    write_private(&folder.join(format!("{name}.key")), pair.key_pem.as_bytes())?;
    write_private(&folder.join(format!("{name}.crt")), pair.cert_pem.as_bytes())
}

/// Writes beside and renames, readable by the owner only.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    let shown = || format!("write {}", path.display());
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .with_context(shown)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(shown)?;
    std::fs::rename(&beside, path).with_context(shown)
}

fn load_or_make(path: &Path, make: impl Fn() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    if path.exists() {
        return std::fs::read(path).with_context(|| format!("read {}", path.display()));
    }
    let bytes = make()?;
    write_private(path, &bytes)?;
    Ok(bytes)
}
