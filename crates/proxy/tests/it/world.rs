//! A small cluster of namespaces: a fabric, nodes with pods on it, and servers that say their name.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use network::netns::{tcp_connect, tcp_listen, udp_bind};
use network::{Fabric, FabricConfig, NetNs, PinDir, PodNetwork, PodNetworkConfig, Uplink};
use proxy::{Proxy, ProxyConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

pub(crate) struct World {
    pub(crate) fabric: Option<Fabric>,
    pub(crate) nodes: Vec<Node>,
    pins: PinDir,
    servers: JoinSet<()>,
    dir: tempfile::TempDir,
}

pub(crate) struct Node {
    pub(crate) uplink: Uplink,
    pub(crate) pods: PodNetwork,
}

pub(crate) struct Pod {
    pub(crate) ns: NetNs,
    pub(crate) ip: IpAddr,
}

pub(crate) const SERVICES: &str = "10.43.0.0/16";
pub(crate) const PODS: &str = "10.42.0.0/16";

/// Longest a step of a test may take: nothing here waits for a timer.
const PATIENCE: Duration = Duration::from_secs(5);

impl World {
    pub(crate) fn new(count: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pins = PinDir::open(dir.path().join("ns")).unwrap();
        let mut fabric = Fabric::create(pins.clone(), FabricConfig::new("fabric")).unwrap();
        let uplinks: Vec<_> = (0..count).map(|index| fabric.add_node(index).unwrap()).collect();
        for from in &uplinks {
            let others = uplinks.iter().filter(|to| to.index != from.index);
            let routes: Vec<_> = others.map(|to| (pod_cidr(to.index), to.addresses[0])).collect();
            fabric.set_routes(from.index, &routes).unwrap();
        }
        let nodes =
            uplinks.into_iter().map(|uplink| Node::new(uplink, dir.path().into())).collect();
        World { fabric: Some(fabric), nodes, pins, servers: JoinSet::new(), dir }
    }

    pub(crate) fn pod(&self, node: usize, name: &str) -> Pod {
        let ns = self.pins.create(name).unwrap();
        let ip = self.nodes[node].pods.attach(name, ns.path()).unwrap().addresses[0];
        Pod { ns, ip }
    }

    /// A pod that says `name` and its client's address to every TCP connection on port 8080.
    pub(crate) fn server(&mut self, node: usize, name: &'static str) -> Pod {
        let pod = self.pod(node, name);
        let listener = tcp_listen(Some(&pod.ns), "0.0.0.0:8080".parse().unwrap()).unwrap();
        self.servers.spawn(async move {
            while let Ok((mut stream, client)) = listener.accept().await {
                let text = format!("{name} {}", client.ip());
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        pod
    }

    /// A pod that answers every datagram on port 8080 with its name.
    pub(crate) fn udp_server(&mut self, node: usize, name: &'static str) -> Pod {
        let pod = self.pod(node, name);
        let socket = udp_bind(Some(&pod.ns), "0.0.0.0:8080".parse().unwrap()).unwrap();
        self.servers.spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((_, client)) = socket.recv_from(&mut buffer).await {
                socket.send_to(name.as_bytes(), client).await.unwrap();
            }
        });
        pod
    }

    pub(crate) fn proxy(&self, node: usize) -> Proxy {
        Proxy::new(self.proxy_config(node)).unwrap()
    }

    pub(crate) fn proxy_config(&self, node: usize) -> ProxyConfig {
        let uplink = &self.nodes[node].uplink;
        ProxyConfig {
            table: None,
            node_name: format!("node{node}"),
            node_ips: uplink.addresses.clone(),
            netns: Some(uplink.ns.clone()),
            service_cidrs: vec![SERVICES.parse().unwrap()],
            pod_cidrs: vec![PODS.parse().unwrap()],
            local_addresses: vec!["10.43.0.10".parse().unwrap()],
            ..ProxyConfig::default()
        }
    }

    pub(crate) fn ns(&self, node: usize) -> &NetNs {
        &self.nodes[node].uplink.ns
    }

    /// Output of a program run inside a node.
    pub(crate) fn run(&self, node: usize, program: &str, args: &[&str]) -> String {
        let output = self
            .ns(node)
            .run(|| std::process::Command::new(program).args(args).output().unwrap())
            .unwrap();
        assert!(output.status.success(), "{program} {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.servers.abort_all();
        self.nodes.clear();
        self.fabric.take().unwrap().remove().unwrap();
        self.pins.clone().close().unwrap();
        assert!(self.dir.path().exists());
    }
}

impl Node {
    fn new(uplink: Uplink, dir: PathBuf) -> Self {
        let config = PodNetworkConfig {
            node_ns: Some(uplink.ns.clone()),
            pod_cidrs: vec![pod_cidr(uplink.index)],
            service_cidrs: vec![SERVICES.parse().unwrap()],
            local_addresses: vec!["10.43.0.10".parse().unwrap()],
            ipam_path: dir.join(format!("ipam{}", uplink.index)),
            bridge: network::pod::DEFAULT_BRIDGE.into(),
            mtu: None,
        };
        Node { uplink, pods: PodNetwork::new(config).unwrap() }
    }
}

pub(crate) fn pod_cidr(node: u32) -> ipnet::IpNet {
    format!("10.42.{node}.0/24").parse().unwrap()
}

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What a TCP server says to a client in `ns`.
pub(crate) async fn say(ns: &NetNs, to: SocketAddr) -> io::Result<String> {
    let talk = async {
        let mut stream = tcp_connect(Some(ns), to).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    };
    tokio::time::timeout(PATIENCE, talk).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// The name alone.
pub(crate) async fn who(ns: &NetNs, to: SocketAddr) -> io::Result<String> {
    Ok(say(ns, to).await?.split(' ').next().unwrap_or_default().to_owned())
}

/// What a UDP server says to `socket`.
pub(crate) async fn ask(socket: &UdpSocket, to: SocketAddr) -> io::Result<String> {
    socket.send_to(b"?", to).await?;
    let mut buffer = [0; 64];
    let answer = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await;
    let count = answer.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}
