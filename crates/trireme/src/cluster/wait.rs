//! What a starting cluster waits for: Ready nodes, and DNS that answers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::Client;
use k8s_openapi::api::core::v1::Node as NodeObject;

use super::dns_address;
use super::node::Node;

/// A node that takes longer than this to become Ready has a fault worth looking at.
const READY_MAX: Duration = Duration::from_secs(60);

/// Waits until every node says it is Ready.
pub(super) async fn ready(client: &Client, names: &[String]) -> Result<()> {
    let is_ready = |node: &NodeObject| {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let id = <NodeObject as client::Resource>::id();
    let mut follower = client.follow(client::Follow {
        group: id.group.into(),
        version: id.version.into(),
        resource: id.resource.into(),
        ..client::Follow::default()
    });
    let mut waiting: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = async {
        while !waiting.is_empty() {
            let Some(event) = follower.next().await else { return };
            if let client::FollowEvent::Put(object) = event
                && object.decode::<NodeObject>().is_ok_and(|n| is_ready(&n))
            {
                waiting.retain(|name| *name != object.meta().name.as_ref());
            }
        }
    };
    match tokio::time::timeout(READY_MAX, all).await {
        Ok(()) => Ok(()),
        Err(_) => bail!(
            "node(s) {} not Ready after {} s; see the log",
            waiting.join(", "),
            READY_MAX.as_secs()
        ),
    }
}

/// Connects to each node's DNS, as a pod would.
pub(super) async fn dns_answers(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        let at = SocketAddr::new(dns_address(), 53);
        let stream = network::netns::tcp_connect(node.place.ns.as_ref(), at).await;
        stream.with_context(|| format!("reach DNS at {at} on {}", node.place.name))?;
    }
    Ok(())
}
