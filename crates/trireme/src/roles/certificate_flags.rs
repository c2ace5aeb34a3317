//! Flags of `kube-apiserver` that name certificates, keys and authorities. All of these files are followed.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use ::apiserver::{FrontProxies, FrontProxy, KubeletTls};
use anyhow::{Context, Result, bail};
use client::Tasks;
use pki::KeyPairPem;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificates::{Certificates, Followed, LiveKubeletTls, Reloads};
use crate::pki_files::PkiFiles;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CertificateFlags {
    /// PEM of the server's certificate, with the chain of its authorities; one of the cluster's own CA when absent.
    #[arg(long, requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// PEM of that certificate's key.
    #[arg(long, requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// PEM of the CA that signs client certificates; the cluster's own when absent.
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// PEM of the CA that signed kubelets' serving certificates; the cluster's own when absent.
    #[arg(long)]
    kubelet_certificate_authority: Option<PathBuf>,
    /// PEM of the certificate to show to kubelets; one of the cluster's own CA when absent.
    #[arg(long, requires = "kubelet_client_key")]
    kubelet_client_certificate: Option<PathBuf>,
    /// PEM of that certificate's key.
    #[arg(long, requires = "kubelet_client_certificate")]
    kubelet_client_key: Option<PathBuf>,
    /// PEM of the authority that signed the front proxy's certificate; the cluster's own when absent.
    #[arg(long, requires_all = ["proxy_client_cert_file", "proxy_client_key_file"])]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of front proxies' certificates, comma-separated.
    #[arg(long, value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers in which front proxies say who asks, comma-separated (X-Remote-User); without any, none is believed.
    #[arg(long, value_delimiter = ',', requires = "requestheader_client_ca_file")]
    requestheader_username_headers: Vec<String>,
    /// Headers in which they say the uid (X-Remote-Uid).
    #[arg(long, value_delimiter = ',', requires = "requestheader_username_headers")]
    requestheader_uid_headers: Vec<String>,
    /// Headers in which they say the groups (X-Remote-Group).
    #[arg(long, value_delimiter = ',', requires = "requestheader_username_headers")]
    requestheader_group_headers: Vec<String>,
    /// What headers begin with in which they say more (X-Remote-Extra-).
    #[arg(long, value_delimiter = ',', requires = "requestheader_username_headers")]
    requestheader_extra_headers_prefix: Vec<String>,
    /// PEM of the certificate that extension API servers are shown.
    #[arg(long, requires_all = ["requestheader_client_ca_file", "proxy_client_key_file"])]
    proxy_client_cert_file: Option<PathBuf>,
    /// PEM of that certificate's key.
    #[arg(long, requires_all = ["requestheader_client_ca_file", "proxy_client_cert_file"])]
    proxy_client_key_file: Option<PathBuf>,
}

/// Files that belong together, and what they held when the server started.
struct Files {
    followed: Followed,
    texts: Vec<String>,
}

impl Files {
    /// None unless all are named.
    fn read(what: &'static str, paths: &[&Option<PathBuf>]) -> Result<Option<Files>> {
        let Some(paths) = paths.iter().map(|path| (*path).clone()).collect() else {
            return Ok(None);
        };
        let followed = Followed { what, paths };
        let texts = followed.read()?;
        Ok(Some(Files { followed, texts }))
    }

    fn follow<F, W>(self, tasks: &Tasks, reloads: &Arc<Reloads>, apply: F)
    where
        F: Fn(Vec<String>) -> W + Send + 'static,
        W: Future<Output = Result<()>> + Send + 'static,
    {
        let work = self.followed.follow(self.texts, reloads.clone(), apply);
        tasks.spawn("files of certificates", work);
    }
}

/// The files as they were read at the start.
pub(crate) struct CertificateFiles {
    serving: Option<Files>,
    client_ca: Option<Files>,
    kubelet_ca: Option<Files>,
    kubelet_pair: Option<Files>,
    front_proxy: Option<Files>,
    allowed_names: Vec<String>,
    /// What kubelets are shown and checked against where no flag says anything.
    own: (KeyPairPem, String),
}

impl CertificateFlags {
    /// The proxies whose word is believed.
    pub(crate) fn front_proxies(&self) -> Result<Option<FrontProxies>> {
        let lists = [
            ("username-headers", &self.requestheader_username_headers),
            ("uid-headers", &self.requestheader_uid_headers),
            ("group-headers", &self.requestheader_group_headers),
            ("extra-headers-prefix", &self.requestheader_extra_headers_prefix),
            ("allowed-names", &self.requestheader_allowed_names),
        ];
        for (name, list) in lists {
            if list.iter().any(|one| one.trim().is_empty()) {
                bail!("empty value in \"requestheader-{name}\"");
            }
        }
        let uids = &self.requestheader_uid_headers;
        if !uids.is_empty() && !uids.iter().any(|one| one.eq_ignore_ascii_case("x-remote-uid")) {
            bail!(
                "--requestheader-uid-headers is set without specifying the standard X-Remote-Uid header - API aggregation will not work"
            );
        }
        if self.requestheader_username_headers.is_empty() {
            return Ok(None);
        }
        let trimmed = |list: &[String]| list.iter().map(|one| one.trim().to_owned()).collect();
        Ok(Some(FrontProxies {
            allowed_names: trimmed(&self.requestheader_allowed_names),
            username: trimmed(&self.requestheader_username_headers),
            uid: trimmed(&self.requestheader_uid_headers),
            groups: trimmed(&self.requestheader_group_headers),
            extra_prefixes: trimmed(&self.requestheader_extra_headers_prefix),
        }))
    }

    pub(crate) fn read(&self, pki: &PkiFiles) -> Result<CertificateFiles> {
        let front_proxy = [
            &self.requestheader_client_ca_file,
            &self.proxy_client_cert_file,
            &self.proxy_client_key_file,
        ];
        Ok(CertificateFiles {
            serving: Files::read("serving", &[&self.tls_cert_file, &self.tls_private_key_file])?,
            client_ca: Files::read("client-ca", &[&self.client_ca_file])?,
            kubelet_ca: Files::read("kubelet-ca", &[&self.kubelet_certificate_authority])?,
            kubelet_pair: Files::read(
                "kubelet-client",
                &[&self.kubelet_client_certificate, &self.kubelet_client_key],
            )?,
            front_proxy: Files::read("front-proxy", &front_proxy)?,
            allowed_names: self.requestheader_allowed_names.clone(),
            own: (own_identity(pki)?, pki.ca_pem().to_owned()),
        })
    }
}

fn pair(texts: &[String]) -> Option<KeyPairPem> {
    let [cert_pem, key_pem] = texts else { return None };
    Some(KeyPairPem { cert_pem: cert_pem.clone(), key_pem: key_pem.clone() })
}

fn proxy(texts: &[String], allowed_names: &[String]) -> Option<FrontProxy> {
    let [ca_pem, cert_pem, key_pem] = texts else { return None };
    let (ca_pem, cert_pem, key_pem) = (ca_pem.clone(), cert_pem.clone(), key_pem.clone());
    Some(FrontProxy { ca_pem, cert_pem, key_pem, allowed_names: allowed_names.to_vec() })
}

const INCOMPLETE: &str = "a file is missing";

impl CertificateFiles {
    pub(crate) fn serving(&self) -> Option<KeyPairPem> {
        pair(&self.serving.as_ref()?.texts)
    }

    pub(crate) fn client_ca(&self) -> Option<String> {
        self.client_ca.as_ref()?.texts.first().cloned()
    }

    pub(crate) fn front_proxy(&self) -> Option<FrontProxy> {
        proxy(&self.front_proxy.as_ref()?.texts, &self.allowed_names)
    }

    /// Towards kubelets: as the flags say, and of the cluster's own where they say nothing.
    pub(crate) fn kubelet_tls(&self) -> Result<LiveKubeletTls> {
        let shown = self.kubelet_pair.as_ref().and_then(|files| pair(&files.texts));
        let authority = self.kubelet_ca.as_ref().and_then(|files| files.texts.first());
        let (own_pair, own_authority) = &self.own;
        let tls = tls_towards_kubelets(
            shown.as_ref().unwrap_or(own_pair),
            authority.unwrap_or(own_authority),
        )?;
        Ok(LiveKubeletTls::new(tls))
    }

    /// Puts changes of all files in force from now on.
    pub(crate) fn follow(
        self,
        certificates: &Arc<Certificates>,
        kubelets: LiveKubeletTls,
        (tasks, reloads): (&Tasks, &Arc<Reloads>),
    ) {
        if let Some(files) = self.serving {
            let all = certificates.clone();
            files.follow(tasks, reloads, move |texts| {
                let served = pair(&texts).context(INCOMPLETE);
                std::future::ready(served.and_then(|pair| all.serve_with(pair)))
            });
        }
        if let Some(files) = self.client_ca {
            let all = certificates.clone();
            files.follow(tasks, reloads, move |texts| {
                let all = all.clone();
                async move { all.believe(texts.concat()).await }
            });
        }
        if let Some(files) = self.front_proxy {
            let (all, names) = (certificates.clone(), self.allowed_names);
            files.follow(tasks, reloads, move |texts| {
                let (all, proxy) = (all.clone(), proxy(&texts, &names).context(INCOMPLETE));
                async move { all.front(proxy?).await }
            });
        }
        // The authority of kubelets is read once, as by upstream; their client certificate is followed.
        let (_, own_authority) = self.own;
        let authority = self.kubelet_ca.map_or(own_authority, |files| files.texts.concat());
        if let Some(files) = self.kubelet_pair {
            files.follow(tasks, reloads, move |texts| {
                let shown = pair(&texts).context(INCOMPLETE);
                let made = shown.and_then(|shown| tls_towards_kubelets(&shown, &authority));
                std::future::ready(made.map(|tls| kubelets.replace(tls)))
            });
        }
    }
}

/// The API server's identity towards the kubelets of its own cluster.
pub(crate) fn kubelet_tls(pki: &PkiFiles) -> Result<KubeletTls> {
    tls_towards_kubelets(&own_identity(pki)?, pki.ca_pem())
}

/// Kubelets know the API server by this name. It has no groups, so that it is nobody for another API
/// server, and for this one: a node that gives a server's address as its own gains nothing.
fn own_identity(pki: &PkiFiles) -> Result<KeyPairPem> {
    pki.client("kube-apiserver-kubelet-client", None)
}

fn tls_towards_kubelets(pair: &KeyPairPem, authority_pem: &str) -> Result<KubeletTls> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority_pem.as_bytes()) {
        roots.add(certificate?).context("the kubelets' authority")?;
    }
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes())?;
    Ok(KubeletTls::new(Some((chain?, key)), Some(roots))?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        flags: CertificateFlags,
    }

    /// What the flags say of front proxies, or why they are refused.
    fn read(args: &[&str]) -> Result<Option<FrontProxies>, String> {
        // The files are not read for this.
        let files = [
            "--requestheader-client-ca-file=ca",
            "--proxy-client-cert-file=cert",
            "--proxy-client-key-file=key",
        ];
        let line = std::iter::once(&"x").chain(&files).chain(args);
        let cli = Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        cli.flags.front_proxies().map_err(|error| error.to_string())
    }

    #[test]
    fn front_proxies_are_believed_by_the_headers_that_are_named() {
        let names = "--requestheader-username-headers=X-Remote-User, X-User";
        let proxies = read(&[
            names,
            "--requestheader-uid-headers=X-Remote-Uid",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-allowed-names=front-proxy-client",
        ]);
        let proxies = proxies.expect("accepted").expect("there are some");
        assert_eq!(proxies.username, ["X-Remote-User", "X-User"], "without blanks");
        assert_eq!(proxies.uid, ["X-Remote-Uid"]);
        assert_eq!(proxies.allowed_names, ["front-proxy-client"]);
        assert!(read(&[]).expect("accepted").is_none(), "no header, nobody to believe");
    }

    #[test]
    fn headers_that_name_nothing_are_refused() {
        let names = "--requestheader-username-headers=X-Remote-User";
        for (flag, what) in [
            ("--requestheader-username-headers= ", "requestheader-username-headers"),
            ("--requestheader-group-headers=X-Remote-Group, ", "requestheader-group-headers"),
            ("--requestheader-extra-headers-prefix=\t", "requestheader-extra-headers-prefix"),
            ("--requestheader-allowed-names=a,,b", "requestheader-allowed-names"),
            ("--requestheader-uid-headers=X-Remote-Uid, ", "requestheader-uid-headers"),
        ] {
            let args: Vec<&str> =
                if what.contains("username") { vec![flag] } else { vec![names, flag] };
            let told = read(&args).expect_err("refused");
            assert_eq!(told, format!("empty value in \"{what}\""), "{flag}");
        }
        let uids = read(&[names, "--requestheader-uid-headers=X-Uid"]).expect_err("refused");
        assert_eq!(
            uids,
            "--requestheader-uid-headers is set without specifying the standard X-Remote-Uid header - API aggregation will not work"
        );
        assert!(read(&[names, "--requestheader-uid-headers=X-Uid,x-remote-uid"]).is_ok());
    }

    #[test]
    fn flags_that_need_others_are_refused_without_them() {
        let of = |args: &[&str]| {
            let line = std::iter::once(&"x").chain(args);
            Cli::try_parse_from(line).map(drop).map_err(|error| error.to_string())
        };
        for (args, missing) in [
            (&["--requestheader-username-headers=U"][..], "--requestheader-client-ca-file"),
            (&["--requestheader-client-ca-file=ca"], "--proxy-client-cert-file"),
            (
                &["--proxy-client-cert-file=c", "--proxy-client-key-file=k"],
                "--requestheader-client-ca-file",
            ),
            (&["--requestheader-group-headers=G"], "--requestheader-username-headers"),
            (&["--requestheader-uid-headers=X-Remote-Uid"], "--requestheader-username-headers"),
            (&["--requestheader-extra-headers-prefix=E"], "--requestheader-username-headers"),
            (&["--tls-cert-file=c"], "--tls-private-key-file"),
            (&["--kubelet-client-key=k"], "--kubelet-client-certificate"),
        ] {
            let told = of(args).expect_err("refused");
            assert!(told.contains("required") && told.contains(missing), "{args:?}: {told}");
        }
    }
}
