//! Services on a node: informers feed the proxy's rules and the DNS index.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};

use anyhow::{Context, Result};
use client::{Change, Informer, Informers, Tasks};
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use network::ipnet::IpNet;
use proxy::{HealthServer, HostPort, Protocol, Proxy, ProxyConfig};
use runtime::SandboxNet;
use tokio::sync::mpsc;

use super::rules;

/// What the proxy's task is told.
pub(crate) enum Message {
    Change(proxy::Change),
    HostPorts(Vec<HostPort>),
    HostPortsGone(Vec<String>),
}

fn name_of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> (String, String) {
    let meta = object.metadata();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// Starts the node's proxy; resolves when its first rules are in the kernel.
pub(crate) async fn start_proxy(
    config: ProxyConfig,
    informers: &Informers,
    tasks: &Tasks,
) -> Result<mpsc::UnboundedSender<Message>> {
    let netns = config.netns.clone();
    let mut proxy = tokio::task::spawn_blocking(move || Proxy::new(config))
        .await?
        .context("open the service proxy")?;
    let (sender, receiver) = mpsc::unbounded_channel();
    let (services, slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
    services.synced().await;
    slices.synced().await;
    follow(&services, sender.clone(), |change| match change {
        Change::Deleted(service) => {
            let (namespace, name) = name_of(service.as_ref());
            proxy::Change::ServiceDeleted { namespace, name }
        }
        other => proxy::Change::Service(Box::new(other.object().as_ref().clone())),
    });
    follow(&slices, sender.clone(), |change| match change {
        Change::Deleted(slice) => {
            let (namespace, name) = name_of(slice.as_ref());
            proxy::Change::EndpointSliceDeleted { namespace, name }
        }
        other => proxy::Change::EndpointSlice(Box::new(other.object().as_ref().clone())),
    });
    let mut receiver = receiver;
    while let Ok(message) = receiver.try_recv() {
        take(&mut proxy, message);
    }
    let proxy = tokio::task::spawn_blocking(move || proxy.sync().map(|_| proxy)).await??;
    tasks.spawn("service proxy", rules::keep(proxy, receiver, HealthServer::new(netns)));
    Ok(sender)
}

/// Starts a proxy for the host ports of a node agent that runs alone. A service proxy may work beside it.
pub(crate) async fn start_host_ports(
    pod_cidrs: Vec<IpNet>,
    tasks: &Tasks,
) -> Result<mpsc::UnboundedSender<Message>> {
    let table = Some("trireme-host-ports");
    let config = ProxyConfig { table, pod_cidrs, ..ProxyConfig::default() };
    let proxy = tokio::task::spawn_blocking(move || {
        let mut proxy = Proxy::new(config)?;
        proxy.sync().map(|_| proxy)
    });
    let proxy = proxy.await?.context("write the rules of host ports")?;
    let (sender, receiver) = mpsc::unbounded_channel();
    tasks.spawn("host ports", rules::keep(proxy, receiver, HealthServer::new(None)));
    Ok(sender)
}

/// The host ports that a sandbox with these addresses wants.
pub(crate) fn host_ports(sandbox: &SandboxNet, addresses: &[IpAddr]) -> Vec<HostPort> {
    let wanted = sandbox.port_mappings.iter().filter(|m| m.host_port != 0);
    let number = |n: i32| u16::try_from(n).ok();
    wanted
        .filter_map(|mapping| {
            let port = number(mapping.container_port)?;
            let protocol = match mapping.protocol {
                1 => Protocol::Udp,
                2 => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            Some(HostPort {
                id: format!("{}-{}-{}", sandbox.uid, mapping.host_port, mapping.protocol),
                host_ip: mapping.host_ip.parse().ok(),
                host_port: number(mapping.host_port)?,
                protocol,
                targets: addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect(),
            })
        })
        .collect()
}

fn follow<K: client::Resource>(
    informer: &Informer<K>,
    sender: mpsc::UnboundedSender<Message>,
    change_of: impl Fn(&Change<K>) -> proxy::Change + Send + Sync + 'static,
) {
    informer.on_change(move |change| {
        // The receiver ends with the node; changes after that concern nobody.
        sender.send(Message::Change(change_of(change))).unwrap_or_default();
    });
}

pub(super) fn take(proxy: &mut Proxy, message: Message) {
    match message {
        Message::Change(change) => drop(proxy.apply(change)),
        Message::HostPorts(ports) => ports.into_iter().for_each(|p| proxy.hostport_add(p)),
        Message::HostPortsGone(ids) => ids.iter().for_each(|id| proxy.hostport_remove(id)),
    }
}

/// Keeps a DNS index; it answers once the first state is there.
pub(crate) async fn start_index(informers: &Informers) -> Arc<RwLock<dns::Index>> {
    let index = Arc::new(RwLock::new(dns::Index::new()));
    let (services, slices, pods) =
        (informers.of::<Service>(), informers.of::<EndpointSlice>(), informers.of::<Pod>());
    feed(&services, &index, |change| match change {
        Change::Deleted(service) => {
            let (namespace, name) = name_of(service.as_ref());
            dns::Change::ServiceDeleted { namespace, name }
        }
        other => dns::Change::Service(Box::new(other.object().as_ref().clone())),
    });
    feed(&slices, &index, |change| match change {
        Change::Deleted(slice) => {
            let (namespace, name) = name_of(slice.as_ref());
            dns::Change::EndpointSliceDeleted { namespace, name }
        }
        other => dns::Change::EndpointSlice(Box::new(other.object().as_ref().clone())),
    });
    feed(&pods, &index, |change| match change {
        Change::Deleted(pod) => {
            let (namespace, name) = name_of(pod.as_ref());
            dns::Change::PodDeleted { namespace, name }
        }
        other => dns::Change::Pod(Box::new(other.object().as_ref().clone())),
    });
    let namespaces = informers.of::<Namespace>();
    feed(&namespaces, &index, |change| {
        let name = change.object().metadata.name.clone().unwrap_or_default();
        match change {
            Change::Deleted(_) => dns::Change::NamespaceDeleted(name),
            _ => dns::Change::Namespace(name),
        }
    });
    services.synced().await;
    slices.synced().await;
    pods.synced().await;
    namespaces.synced().await;
    index.write().unwrap_or_else(|p| p.into_inner()).set_synced();
    index
}

fn feed<K: client::Resource>(
    informer: &Informer<K>,
    index: &Arc<RwLock<dns::Index>>,
    change_of: impl Fn(&Change<K>) -> dns::Change + Send + Sync + 'static,
) {
    let index = index.clone();
    informer.on_change(move |change| {
        index.write().unwrap_or_else(|p| p.into_inner()).apply(change_of(change));
    });
}
