//! How many pods the controllers of pods want.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use client::{Client, Error, Informer, Resource};
use http::Method;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

use crate::Context;
use crate::discovery::discover;
use crate::meta::{controller, name, namespace, uid};

#[derive(Clone)]
pub(super) struct Scales {
    client: Client,
    replica_sets: Informer<ReplicaSet>,
    deployments: Informer<Deployment>,
    stateful_sets: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
}

/// What all controllers of some pods want together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) scale: i32,
    /// Some pod has no controller.
    pub(super) unmanaged: bool,
}

pub(super) enum Failure {
    Api(Error),
    /// Nothing with a scale manages this pod.
    NoController(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Api(error)
    }
}

/// The uid of what wants pods, and how many it wants.
type Scale = (String, i32);

impl Scales {
    pub(super) fn new(context: &Context) -> Scales {
        Scales {
            client: context.client.clone(),
            replica_sets: context.informers.of(),
            deployments: context.informers.of(),
            stateful_sets: context.informers.of(),
            controllers: context.informers.of(),
        }
    }

    pub(super) async fn synced(&self) {
        self.replica_sets.synced().await;
        self.deployments.synced().await;
        self.stateful_sets.synced().await;
        self.controllers.synced().await;
    }

    /// Tells the namespace of each scale that changes.
    pub(super) fn on_change(&self, tell: impl Fn(&str) + Clone + Send + Sync + 'static) {
        fn follow<K: Resource>(
            of: &Informer<K>,
            replicas: fn(&K) -> Option<i32>,
            tell: impl Fn(&str) + Send + Sync + 'static,
        ) {
            of.on_change(move |change| {
                let (old, new) = (change.old(), change.object());
                if old.is_none_or(|old| replicas(old) != replicas(new)) {
                    tell(namespace(new.metadata()));
                }
            });
        }
        follow(&self.replica_sets, |o| o.spec.as_ref()?.replicas, tell.clone());
        follow(&self.deployments, |o| o.spec.as_ref()?.replicas, tell.clone());
        follow(&self.stateful_sets, |o| o.spec.as_ref()?.replicas, tell.clone());
        follow(&self.controllers, |o| o.spec.as_ref()?.replicas, tell);
    }

    pub(super) async fn of(&self, pods: &[Arc<Pod>]) -> Result<Total, Failure> {
        let (mut known, mut scales) = (HashSet::new(), HashMap::new());
        let mut unmanaged = false;
        for pod in pods {
            let Some(owner) = controller(&pod.metadata) else {
                unmanaged = true;
                continue;
            };
            if !known.insert(owner.uid.clone()) {
                continue;
            }
            let found = self.find(namespace(&pod.metadata), owner).await?;
            let none = || Failure::NoController(name(&pod.metadata).to_owned());
            let (uid, scale) = found.ok_or_else(none)?;
            scales.insert(uid, scale);
        }
        Ok(Total { scale: scales.values().sum(), unmanaged })
    }

    async fn find(&self, at: &str, owner: &OwnerReference) -> Result<Option<Scale>, Error> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let is = |object: &str| object == owner.uid;
        Ok(match (group, owner.kind.as_str()) {
            ("apps", "ReplicaSet") => {
                let set = self.replica_sets.get(at, &owner.name);
                set.filter(|s| is(uid(&s.metadata))).map(|set| self.of_set(at, &set))
            }
            ("apps", "StatefulSet") => {
                let set = self.stateful_sets.get(at, &owner.name);
                let set = set.filter(|s| is(uid(&s.metadata)));
                set.map(|s| (owner.uid.clone(), wanted(s.spec.as_ref().and_then(|s| s.replicas))))
            }
            ("", "ReplicationController") => {
                let set = self.controllers.get(at, &owner.name);
                let set = set.filter(|s| is(uid(&s.metadata)));
                set.map(|s| (owner.uid.clone(), wanted(s.spec.as_ref().and_then(|s| s.replicas))))
            }
            _ => self.ask(at, group, owner).await?,
        })
    }

    /// A set's own scale, or that of the Deployment it is a part of.
    fn of_set(&self, at: &str, set: &ReplicaSet) -> Scale {
        let above = controller(&set.metadata).filter(|owner| owner.kind == "Deployment");
        let deployment = above.and_then(|owner| {
            let found = self.deployments.get(at, &owner.name)?;
            (uid(&found.metadata) == owner.uid).then_some(found)
        });
        match deployment {
            Some(whole) => {
                let replicas = whole.spec.as_ref().and_then(|s| s.replicas);
                (uid(&whole.metadata).to_owned(), wanted(replicas))
            }
            None => {
                let replicas = set.spec.as_ref().and_then(|s| s.replicas);
                (uid(&set.metadata).to_owned(), wanted(replicas))
            }
        }
    }

    /// What other kinds say through their scale.
    async fn ask(
        &self,
        at: &str,
        group: &str,
        owner: &OwnerReference,
    ) -> Result<Option<Scale>, Error> {
        let all = discover(&self.client).await?.resources;
        let Some(resource) = all.iter().find(|r| r.group == group && r.kind == owner.kind) else {
            return Ok(None);
        };
        let target = format!("{}/scale", resource.path(at, &owner.name));
        let found: Result<Value, Error> =
            self.client.send(Method::GET, target, None, Bytes::new()).await;
        match found {
            Ok(scale) if scale["metadata"]["uid"] == *owner.uid => {
                let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
                Ok(Some((owner.uid.clone(), i32::try_from(replicas).unwrap_or(i32::MAX))))
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Absent is the API's default.
fn wanted(replicas: Option<i32>) -> i32 {
    replicas.unwrap_or(1)
}
