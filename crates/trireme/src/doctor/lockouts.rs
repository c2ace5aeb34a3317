//! What a running cluster's webhooks may do to it: those that refuse the pods that would serve them.

use std::path::Path;
use std::sync::Arc;

use admission::webhooks::lockout;
use anyhow::{Result, bail};
use client::{Client, HttpsTransport, Kubeconfig, Request, Tasks};
use serde_json::Value;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Prints a line for each such webhook; fails when one has locked the cluster out.
pub(super) fn check(kubeconfig: &Path) -> Result<()> {
    let config = Kubeconfig::load(kubeconfig)?.config(None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let locked = runtime.block_on(async {
        let tasks = Tasks::new();
        let client = Client::new(Arc::new(HttpsTransport::new(config, tasks.clone())?));
        let found = find(&client).await;
        tasks.shutdown().await;
        found
    })?;
    match locked {
        0 => Ok(()),
        many => bail!("{many} webhooks lock the cluster out"),
    }
}

/// How many webhooks have locked the cluster out. Prints these, and those that could.
async fn find(client: &Client) -> Result<usize> {
    let (mut locked, mut risky) = (0, 0);
    for kind in KINDS {
        let path = format!("{GROUP}/{}s", kind.to_lowercase());
        let list = read(client, &path).await?;
        for configuration in list["items"].as_array().into_iter().flatten() {
            let name = configuration["metadata"]["name"].as_str().unwrap_or("");
            for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
                let Some(place) = guarded(client, webhook).await? else { continue };
                let own = webhook["name"].as_str().unwrap_or("");
                let advice = lockout::advice(kind, name, own, place);
                let (word, count) = match is_served(client, place).await? {
                    true => ("RISK   ", &mut risky),
                    false => ("LOCKED ", &mut locked),
                };
                *count += 1;
                println!("{word}  webhooks: {advice}");
            }
        }
    }
    if locked + risky == 0 {
        println!("ok       webhooks");
    }
    Ok(locked)
}

/// The service of a webhook that refuses the service's own pods.
async fn guarded<'w>(client: &Client, webhook: &'w Value) -> Result<Option<(&'w str, &'w str)>> {
    let Some((namespace, service)) = lockout::service_of(&webhook["clientConfig"]) else {
        return Ok(None);
    };
    let base = format!("/api/v1/namespaces/{namespace}");
    let stored = read(client, &base).await?;
    let of_service = read(client, &format!("{base}/services/{service}")).await?;
    let guards = lockout::guards_itself(webhook, &stored, &of_service);
    Ok(guards.then_some((namespace, service)))
}

/// Whether some endpoint of a service is ready.
async fn is_served(client: &Client, (namespace, service): (&str, &str)) -> Result<bool> {
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io/service-name%3D{service}"
    );
    let slices = read(client, &path).await?;
    let slices = slices["items"].as_array().into_iter().flatten();
    let mut endpoints = slices.flat_map(|s| s["endpoints"].as_array().into_iter().flatten());
    Ok(endpoints.any(|endpoint| endpoint["conditions"]["ready"] != false))
}

/// An object or list; null where there is none.
async fn read(client: &Client, target: &str) -> Result<Value> {
    let request = Request { target: target.to_owned(), ..Request::default() };
    match client.call(request).await {
        Ok(response) => Ok(serde_json::from_slice(&response.body)?),
        Err(error) if error.is_not_found() => Ok(Value::Null),
        Err(error) => Err(error.into()),
    }
}
