//! Whose login an image was pulled with, so that a pod without that login cannot use it only because
//! another pod on the node could.
//!
//! Images that the kubelet has not pulled (imported, or built) are everybody's, as are those that needed
//! no login of a pod. A pull is announced before it begins, with the image that is there already: if nobody
//! sees the pull's end, that image is as it was, and another one that may have come is nobody's until it is
//! pulled again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ring::digest;
use runtime::cri::Image;
use serde::{Deserialize, Serialize};

use super::keyring::{Login, Origin};
use super::name::Name;
use crate::beneath::{Access, Dir, PRIVATE};

const FOLDER: &str = "image_manager";
const PULLED: &str = "pulled";
const PULLING: &str = "pulling";
const MODE: u32 = 0o600;
/// Longest record that is read.
const RECORD_MAX: usize = 4 << 20;
/// Most logins that are remembered of a repository: the latest.
const LOGINS_MAX: usize = 64;

/// A login of a Secret, without the login itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    uid: String,
    namespace: String,
    name: String,
    hash: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Allowed {
    everybody: bool,
    #[serde(default)]
    logins: Vec<Known>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    image: String,
    /// By repository.
    allowed: BTreeMap<String, Allowed>,
}

/// The node's records.
#[derive(Debug)]
pub(crate) struct Pulled {
    root: PathBuf,
}

fn hash(parts: &[&str]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    let hex = |text: String, byte: &u8| format!("{text}{byte:02x}");
    context.finish().as_ref().iter().fold(String::new(), hex)
}

/// `None`: the login is the node's, or there is none.
fn known(login: &Login) -> Option<Known> {
    let source = login.source.clone()?;
    let auth = &login.auth;
    let parts = [&*auth.username, &*auth.password, &*auth.identity_token, &*auth.registry_token];
    let (uid, namespace, name) = (source.uid, source.namespace, source.name);
    let hash = match source.origin {
        Origin::Secret => hash(&parts),
        // What a plugin gives an account changes all the time; it is the account's all the same.
        Origin::ServiceAccount => "account".to_owned(),
    };
    Some(Known { uid, namespace, name, hash })
}

impl Pulled {
    pub(crate) fn new(root: &Path) -> Pulled {
        Pulled { root: root.join(FOLDER) }
    }

    fn folder(&self, name: &str) -> io::Result<Dir> {
        Dir::make_root(&self.root)?.make(name, PRIVATE)
    }

    fn record(&self, image: &str) -> io::Result<Option<Record>> {
        let content = match Dir::root(&self.root).and_then(|dir| dir.open(PULLED)) {
            Ok(dir) => dir.read(hash(&[image]), RECORD_MAX),
            Err(error) => Err(error),
        };
        match content {
            Ok(content) => serde_json::from_slice(&content).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The image that was there when a pull of this name was announced; `None`: none was announced.
    fn announced(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let dir = Dir::root(&self.root).and_then(|dir| dir.open(PULLING));
        match dir.and_then(|dir| dir.read(hash(&[name]), RECORD_MAX)) {
            Ok(before) => Ok(Some(before)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a pod with these logins may use an image that is on the node. `name` is what the pod calls
    /// it. A record that cannot be read lets nobody in: the image is pulled again.
    pub(super) fn allows(
        &self,
        name: &str,
        repository: &str,
        image: &str,
        logins: &[Login],
    ) -> bool {
        let record = match self.record(image) {
            Ok(Some(record)) if record.image == image => record,
            Ok(None) => {
                let announced = self.announced(name);
                return announced.is_ok_and(|b| b.is_none_or(|before| before == image.as_bytes()));
            }
            Ok(Some(_)) => return false,
            Err(error) => {
                tracing::warn!(%error, image, "record of a pulled image not readable");
                return false;
            }
        };
        let Some(allowed) = record.allowed.get(repository) else { return false };
        let own = || logins.iter().filter_map(known);
        allowed.everybody || own().any(|login| allowed.logins.iter().any(|k| k.hash == login.hash))
    }

    /// A pull is about to begin; `before` is the image that is there, or nothing. What an earlier pull
    /// announced, whose end nobody saw, holds on.
    pub(super) fn announce(&self, name: &str, before: &str) -> io::Result<()> {
        if self.announced(name)?.is_some() {
            return Ok(());
        }
        self.folder(PULLING)?.replace(hash(&[name]), before.as_bytes(), Access::mode(MODE))
    }

    /// A pull has failed: nothing has come.
    pub(super) fn failed(&self, name: &str) {
        if let Err(error) = self.folder(PULLING).and_then(|dir| dir.remove(hash(&[name]))) {
            tracing::warn!(%error, name, "announcement of a pull not removed");
        }
    }

    /// The names that an image without a record has: it was there under them before it was pulled under
    /// another. Upstream has it pulled anew under each.
    fn others(&self, image: &Image, repository: &str) -> BTreeMap<String, Allowed> {
        let names = image.repo_tags.iter().filter_map(|tag| Name::parse(tag).ok());
        let there = names.filter(|n| n.repository != repository);
        let there =
            there.filter(|n| self.announced(&n.full()).is_ok_and(|before| before.is_none()));
        let everybody = || Allowed { everybody: true, logins: Vec::new() };
        there.map(|n| (n.repository, everybody())).collect()
    }

    /// The image has come, with this login.
    pub(super) fn done(
        &self,
        name: &str,
        repository: &str,
        image: &Image,
        login: Option<&Login>,
    ) -> io::Result<()> {
        let mut record = match self.record(&image.id).ok().flatten() {
            Some(record) => record,
            None => Record { image: image.id.clone(), allowed: self.others(image, repository) },
        };
        record.image.clone_from(&image.id);
        let allowed = record.allowed.entry(repository.to_owned()).or_default();
        match login.and_then(known) {
            None => allowed.everybody = true,
            Some(login) => {
                allowed.logins.retain(|k| (&k.uid, &k.hash) != (&login.uid, &login.hash));
                allowed.logins.push(login);
                let surplus = allowed.logins.len().saturating_sub(LOGINS_MAX);
                allowed.logins.drain(..surplus);
            }
        }
        let content = serde_json::to_vec(&record).map_err(io::Error::other)?;
        self.folder(PULLED)?.replace(hash(&[&image.id]), &content, Access::mode(MODE))?;
        self.folder(PULLING)?.remove(hash(&[name]))
    }

    /// The image is gone.
    pub(crate) fn forget(&self, image: &str) {
        if let Err(error) = self.folder(PULLED).and_then(|dir| dir.remove(hash(&[image]))) {
            tracing::warn!(%error, image, "record of a pulled image not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use runtime::cri::AuthConfig;

    use super::super::keyring::Source;
    use super::*;

    fn login(secret: &str, user: &str) -> Login {
        let source = Source {
            uid: secret.into(),
            namespace: "ns".into(),
            name: secret.into(),
            origin: Origin::Secret,
        };
        let auth = AuthConfig { username: user.into(), ..AuthConfig::default() };
        Login { auth, source: Some(source) }
    }

    fn image(tags: &[&str]) -> Image {
        let repo_tags = tags.iter().map(|t| (*t).to_owned()).collect();
        Image { id: "sha256:1".into(), repo_tags, ..Image::default() }
    }

    const NAME: &str = "r.example/x:1";
    const REPOSITORY: &str = "r.example/x";

    fn allows(pulled: &Pulled, logins: &[Login]) -> bool {
        pulled.allows(NAME, REPOSITORY, "sha256:1", logins)
    }

    #[test]
    fn what_was_pulled_with_a_login_is_for_those_who_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let pulled = Pulled::new(dir.path());
        assert!(allows(&pulled, &[]), "not pulled by the kubelet");
        pulled.announce(NAME, "").unwrap();
        pulled.announce(NAME, "sha256:1").unwrap();
        assert!(!allows(&pulled, &[login("a", "u")]), "it came by a pull whose end nobody saw");
        pulled.done(NAME, REPOSITORY, &image(&[NAME]), Some(&login("a", "u"))).unwrap();
        let again = Pulled::new(dir.path());
        assert!(allows(&again, &[login("a", "u")]));
        assert!(allows(&again, &[login("b", "u")]), "the same login in another secret");
        assert!(!allows(&again, &[login("a", "other")]), "the secret has changed");
        assert!(!allows(&again, &[]));
        assert!(!again.allows("r.example/y:1", "r.example/y", "sha256:1", &[login("a", "u")]));
        again.done(NAME, REPOSITORY, &image(&[NAME]), None).unwrap();
        assert!(allows(&again, &[]), "it can be had without");
        again.forget("sha256:1");
        assert!(allows(&again, &[]));
    }

    #[test]
    fn names_that_an_image_had_before_stay_everybodys() {
        let dir = tempfile::tempdir().unwrap();
        let pulled = Pulled::new(dir.path());
        pulled.announce("r.example/half:1", "").unwrap();
        let tags = [NAME, "r.example/own:1", "r.example/half:1"];
        pulled.done(NAME, REPOSITORY, &image(&tags), Some(&login("a", "u"))).unwrap();
        let everybody = |repository: &str| {
            pulled.allows(&format!("{repository}:1"), repository, "sha256:1", &[])
        };
        assert!(everybody("r.example/own") && !everybody(REPOSITORY));
        assert!(!everybody("r.example/half"), "a pull whose end nobody saw");
    }

    #[test]
    fn a_failed_pull_leaves_nothing_and_a_torn_record_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let pulled = Pulled::new(dir.path());
        pulled.announce(NAME, "sha256:1").unwrap();
        assert!(allows(&pulled, &[]), "it was there before");
        pulled.failed(NAME);
        assert!(allows(&pulled, &[]));
        pulled.done(NAME, REPOSITORY, &image(&[NAME]), None).unwrap();
        let file = dir.path().join(FOLDER).join(PULLED).join(hash(&["sha256:1"]));
        std::fs::write(file, "{").unwrap();
        assert!(!allows(&pulled, &[]));
    }
}
