//! Service account tokens: fills Secrets of type `kubernetes.io/service-account-token` with a token that
//! does not expire, the cluster's CA and the namespace, and deletes them when their account is gone
//! (`pkg/controller/serviceaccount/tokens_controller.go`).
//!
//! Watches those Secrets, and ServiceAccounts.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Action, Client, DeleteParams, Error, Follow, Informer, Queue};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use pki::{LegacyToken, TokenIssuer};

use crate::Context;
use crate::harness::Reconciler;
use crate::meta::{name, namespace};

const NAME: &str = "serviceaccount-token-controller";
const TYPE: &str = "kubernetes.io/service-account-token";
/// Annotations that tell the account of a Secret.
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Secrets worked on at once (upstream's `--concurrent-serviceaccount-token-syncs`).
const WORKERS: usize = 5;

/// A Secret, and the account it names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    namespace: String,
    secret: String,
    account: String,
}

impl Key {
    /// None when the Secret names no account.
    fn of(secret: &Secret) -> Option<Key> {
        let account = annotation(secret, ACCOUNT).to_owned();
        let (namespace, secret) =
            (namespace(&secret.metadata).into(), name(&secret.metadata).into());
        (!account.is_empty()).then_some(Key { namespace, secret, account })
    }
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let all = secret.metadata.annotations.as_ref();
    all.and_then(|all| all.get(key)).map_or("", String::as_str)
}

pub(crate) fn start(context: &Context) {
    let Some(issuer) = context.config.tokens.clone() else {
        return tracing::warn!("{NAME} is not started because there is no private key");
    };
    let part = Follow { field_selector: format!("type={TYPE}"), ..Follow::default() };
    let this = Tokens {
        client: context.client.clone(),
        secrets: Informer::selected(&context.client, &context.tasks, part),
        accounts: context.informers.of(),
        filling: Arc::new(Filling {
            issuer,
            ca: context.config.cluster_ca_pem.clone().into_bytes(),
        }),
    };
    let queue = Queue::new();
    let keys = queue.clone();
    this.secrets.on_change(move |change| {
        Key::of(change.object()).into_iter().for_each(|key| keys.add(key));
    });
    let (keys, secrets) = (queue.clone(), this.secrets.clone());
    this.accounts.on_change(move |change| {
        let meta = &change.object().metadata;
        let beside = secrets.list_namespace(namespace(meta));
        let own = beside.iter().filter_map(|secret| Key::of(secret));
        own.filter(|key| key.account == name(meta)).for_each(|key| keys.add(key));
    });
    crate::harness::start(context, NAME, WORKERS, queue, this);
}

#[derive(Clone)]
struct Tokens {
    client: Client,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    filling: Arc<Filling>,
}

/// What Secrets are filled with.
struct Filling {
    issuer: Arc<TokenIssuer>,
    ca: Vec<u8>,
}

impl Filling {
    /// The Secret with all that it should have; none when it has that.
    fn complete(
        &self,
        secret: &Secret,
        account: &ServiceAccount,
    ) -> Result<Option<Secret>, String> {
        let data = secret.data.as_ref();
        let get = |key: &str| data.and_then(|data| data.get(key)).map_or(&[][..], |value| &value.0);
        let needs_ca = !self.ca.is_empty() && get("ca.crt") != self.ca;
        let (needs_namespace, needs_token) = (get("namespace").is_empty(), get("token").is_empty());
        if !needs_ca && !needs_namespace && !needs_token {
            return Ok(None);
        }
        let mut filled = secret.clone();
        let data = filled.data.get_or_insert_with(BTreeMap::new);
        let mut put = |key: &str, value: Vec<u8>| drop(data.insert(key.into(), ByteString(value)));
        let own = namespace(&secret.metadata);
        let uid = account.metadata.uid.clone().unwrap_or_default();
        if needs_ca {
            put("ca.crt", self.ca.clone());
        }
        if needs_namespace {
            put("namespace", own.as_bytes().to_vec());
        }
        if needs_token {
            let token = LegacyToken {
                namespace: own.to_owned(),
                secret: name(&secret.metadata).to_owned(),
                account: name(&account.metadata).to_owned(),
                account_uid: uid.clone(),
            };
            put("token", self.issuer.issue_legacy(&token).map_err(|e| e.to_string())?.into_bytes());
        }
        let annotations = filled.metadata.annotations.get_or_insert_with(BTreeMap::new);
        annotations.insert(ACCOUNT.into(), name(&account.metadata).to_owned());
        annotations.insert(ACCOUNT_UID.into(), uid);
        Ok(Some(filled))
    }
}

impl Reconciler for Tokens {
    type Key = Key;

    async fn synced(&self) {
        self.secrets.synced().await;
        self.accounts.synced().await;
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(secret) = self.secrets.get(&key.namespace, &key.secret) else {
            return self.forget(&key).await;
        };
        // A name that changed has a key of its own.
        if annotation(&secret, ACCOUNT) != key.account {
            return Ok(Action::Done);
        }
        let Some(account) = self.account(&key, annotation(&secret, ACCOUNT_UID)).await? else {
            return self.delete(&secret).await;
        };
        match self.filling.complete(&secret, &account) {
            Ok(None) => Ok(Action::Done),
            Ok(Some(filled)) => gone_is_done(self.client.update(&filled).await.map(drop)),
            Err(why) => {
                tracing::error!(?key, why, "a service account token was not made");
                Ok(Action::Done)
            }
        }
    }
}

impl Tokens {
    /// The account that a Secret is of; asked for when it is not seen yet.
    async fn account(&self, key: &Key, uid: &str) -> Result<Option<ServiceAccount>, Error> {
        let is = |account: &ServiceAccount| {
            uid.is_empty() || account.metadata.uid.as_deref() == Some(uid)
        };
        if let Some(seen) = self.accounts.get(&key.namespace, &key.account)
            && is(&seen)
        {
            return Ok(Some((*seen).clone()));
        }
        match self.client.get::<ServiceAccount>(&key.namespace, &key.account).await {
            Ok(account) => Ok(Some(account).filter(is)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, secret: &Secret) -> Result<Action, Error> {
        let (own, uid) = (&secret.metadata, secret.metadata.uid.clone());
        let params = DeleteParams { uid, ..DeleteParams::default() };
        gone_is_done(self.client.delete::<Secret>(namespace(own), name(own), &params).await)
    }

    /// An account names no Secret that is gone.
    async fn forget(&self, key: &Key) -> Result<Action, Error> {
        let Some(account) = self.accounts.get(&key.namespace, &key.account) else {
            return Ok(Action::Done);
        };
        let is = |named: &k8s_openapi::api::core::v1::ObjectReference| {
            named.name.as_deref() == Some(key.secret.as_str())
        };
        if !account.secrets.iter().flatten().any(is) {
            return Ok(Action::Done);
        }
        let mut without = (*account).clone();
        without.secrets.iter_mut().for_each(|all| all.retain(|named| !is(named)));
        match self.client.update(&without).await {
            // Somebody else wrote: the change comes, and with it the key.
            Err(error) if error.is_not_found() => Ok(Action::Done),
            other => other.map(|_| Action::Done),
        }
    }
}

/// Who is gone or was changed by others comes back as a change.
fn gone_is_done(done: Result<(), Error>) -> Result<Action, Error> {
    match done {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(Action::Done),
        other => other.map(|()| Action::Done),
    }
}
