//! DefaultBinder: tells the API which node the pod runs on.

use client::{Client, Error};
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::names;
use crate::framework::{BoxFuture, Plugin, Points};
use crate::pod::PodInfo;

#[derive(Debug)]
pub(crate) struct DefaultBinder {
    pub(crate) client: Option<Client>,
}

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        names::DEFAULT_BINDER
    }

    fn points(&self) -> Points {
        Points::BIND
    }

    fn bind<'a>(&'a self, pod: &'a PodInfo, node: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let Some(client) = &self.client else { return Ok(()) };
            let binding = Binding {
                metadata: ObjectMeta {
                    name: pod.pod.metadata.name.clone(),
                    namespace: pod.pod.metadata.namespace.clone(),
                    uid: pod.pod.metadata.uid.clone(),
                    ..ObjectMeta::default()
                },
                target: ObjectReference {
                    kind: Some("Node".into()),
                    name: Some(node.to_owned()),
                    ..ObjectReference::default()
                },
            };
            let (namespace, name) = (pod.namespace(), pod.name());
            let answer =
                client.post_subresource::<Pod, _, Value>(namespace, name, "binding", &binding);
            answer.await.map(drop)
        })
    }
}
