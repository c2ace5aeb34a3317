//! Node ports and load balancers on the host, by sockets that connect inside the first node's
//! network: nothing is added to the host's. On the host's own network node ports are the proxy's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use client::{Change, Client, Informer, Patch};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use network::NetNs;
use proxy::Forwarder;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

/// A host port and its protocol.
type Door = (u16, bool);

/// Where the host's sockets are, and where they lead.
pub(crate) struct Doors {
    listen: IpAddr,
    /// The namespace that connections are made in.
    ns: Option<NetNs>,
    node: IpAddr,
    /// Node ports too, not load balancers alone.
    node_ports: bool,
    /// What load balancers' status says.
    told: IpAddr,
}

impl Doors {
    /// On the host's loopback, into a node's namespace.
    pub(crate) fn loopback(ns: NetNs, node: IpAddr) -> Doors {
        let listen = IpAddr::from(Ipv4Addr::LOCALHOST);
        Doors { listen, ns: Some(ns), node, node_ports: true, told: listen }
    }

    /// On all addresses of the host, which is the node.
    pub(crate) fn host(node: IpAddr) -> Doors {
        let listen = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        Doors { listen, ns: None, node, node_ports: false, told: node }
    }
}

/// What a service wants on the host: where, and where it leads.
fn wanted(service: &Service, doors: &Doors) -> Vec<(Door, SocketAddr)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let balanced = spec.type_.as_deref() == Some("LoadBalancer");
    let mut all = Vec::new();
    for port in spec.ports.iter().flatten() {
        let Some(udp) = is_udp(port) else { continue };
        let Some(inside) = port.node_port.and_then(|n| u16::try_from(n).ok()) else { continue };
        let target = SocketAddr::new(doors.node, inside);
        if doors.node_ports {
            all.push(((inside, udp), target));
        }
        if let (true, Ok(outside)) = (balanced, u16::try_from(port.port)) {
            all.push(((outside, udp), target));
        }
    }
    all
}

/// `None` for protocols without user-space forwarding (SCTP).
fn is_udp(port: &ServicePort) -> Option<bool> {
    match port.protocol.as_deref() {
        None | Some("TCP") => Some(false),
        Some("UDP") => Some(true),
        _ => None,
    }
}

/// Keeps the host's sockets as the services want them, for as long as it is polled.
pub(crate) async fn run(services: Informer<Service>, client: Client, doors: Doors) {
    let (sender, mut changes) = mpsc::unbounded_channel();
    services.on_change(move |change: &Change<Service>| {
        // The receiver ends with this task.
        sender.send(change.clone()).unwrap_or_default();
    });
    let mut open: HashMap<Door, (String, Forwarder)> = HashMap::new();
    while let Some(change) = changes.recv().await {
        let service = change.object();
        let owner = service.metadata.uid.clone().unwrap_or_default();
        let want = match change {
            Change::Deleted(_) => Vec::new(),
            _ => wanted(service, &doors),
        };
        let gone: Vec<Door> = open
            .iter()
            .filter(|(place, (of, _))| *of == owner && !want.iter().any(|(w, _)| w == *place))
            .map(|(place, _)| *place)
            .collect();
        for place in gone {
            if let Some((_, forwarder)) = open.remove(&place) {
                forwarder.stop().await;
            }
        }
        for (place, target) in want {
            if open.contains_key(&place) {
                continue;
            }
            match listen(place, &doors, target).await {
                Ok(forwarder) => drop(open.insert(place, (owner.clone(), forwarder))),
                Err(error) => {
                    tracing::warn!(port = place.0, %error, "not offered on the host")
                }
            }
        }
        if !matches!(change, Change::Deleted(_)) {
            publish(&client, service, &open, doors.told).await;
        }
    }
}

async fn listen(
    (port, udp): Door,
    doors: &Doors,
    target: SocketAddr,
) -> std::io::Result<Forwarder> {
    let at = SocketAddr::from((doors.listen, port));
    if udp {
        return Forwarder::udp(UdpSocket::bind(at).await?, doors.ns.clone(), target);
    }
    Forwarder::tcp(TcpListener::bind(at).await?, doors.ns.clone(), target)
}

/// A load balancer that is open on the host says so in its status. `Proxy` keeps the nodes from
/// claiming the address for themselves (KEP-1860).
async fn publish(
    client: &Client,
    service: &Service,
    open: &HashMap<Door, (String, Forwarder)>,
    address: IpAddr,
) {
    let Some(spec) = &service.spec else { return };
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return;
    }
    let told = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
    let has_all = spec.ports.iter().flatten().all(|p| {
        let place = u16::try_from(p.port).ok().zip(is_udp(p));
        place.is_some_and(|place| open.contains_key(&place))
    });
    if told.is_some_and(|points| !points.is_empty()) || !has_all {
        return;
    }
    let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
    let (namespace, name) = (namespace.as_deref().unwrap_or(""), name.as_deref().unwrap_or(""));
    let ingress = serde_json::json!([{"ip": address, "ipMode": "Proxy"}]);
    let patch = Patch::Merge(serde_json::json!({"status": {"loadBalancer": {"ingress": ingress}}}));
    if let Err(error) = client.patch_status::<Service>(namespace, name, &patch).await {
        tracing::warn!(namespace, name, %error, "load balancer's address not written");
    }
}
