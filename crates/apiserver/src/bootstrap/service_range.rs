//! The ServiceCIDR `kubernetes`: the ranges that addresses of Services are given out from.

use client::{Client, Error, Request};
use http::Method;
use serde_json::{Value, json};

use super::{call, collection, ensure};
use crate::local::Local;
use crate::server::Server;
use strategy::allocate::{DEFAULT_RANGE, is_judged_range};

const API: &str = "networking.k8s.io/v1";

impl Server {
    /// Makes the object, or adds the second family to it, and says that it is ready.
    pub(super) async fn publish_range(&self, client: &Client) -> Result<(), Error> {
        let ranges = &self.parts.resources.allocators.network().ranges;
        let wanted: Vec<String> = ranges.iter().map(|(ip, bits)| format!("{ip}/{bits}")).collect();
        let object = json!({"apiVersion": API, "kind": "ServiceCIDR",
            "metadata": {"name": DEFAULT_RANGE}, "spec": {"cidrs": wanted}});
        ensure(client, "servicecidrs", &object).await?;
        let target = format!("{}/{DEFAULT_RANGE}", collection(API, "servicecidrs", ""));
        let get = || client.send(Method::GET, target.clone(), None, bytes::Bytes::new());
        let mut present: Value = get().await?;
        if wanted.len() == 2 && present["spec"]["cidrs"] == json!(wanted[..1]) {
            present["spec"]["cidrs"] = json!(wanted);
            call(client, Method::PUT, target.clone(), &present).await?;
            present = get().await?;
        }
        if present["spec"]["cidrs"] != json!(wanted) {
            tracing::warn!(present = %present["spec"]["cidrs"], configured = ?wanted, "the default ServiceCIDR has other ranges than this server");
            return Ok(());
        }
        // Being ready or not is only said when nobody has: a refusal is an administrator's matter.
        match is_judged_range(&present) {
            true => Ok(()),
            false => ready(client, &target).await,
        }
    }
}

async fn ready(client: &Client, target: &str) -> Result<(), Error> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let body = json!({"apiVersion": API, "kind": "ServiceCIDR", "metadata": {"name": DEFAULT_RANGE},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
            "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": now}]}});
    let manager = "kubernetes-service-cidr-controller";
    let request = Request {
        method: Method::PATCH,
        target: format!("{target}/status?fieldManager={manager}&force=true"),
        content_type: Some("application/apply-patch+yaml"),
        body: Local::body(&body),
    };
    client.call(request).await.map(drop)
}
