//! The server over real sockets, inside namespaces made and removed by each test. Needs root.

// Helpers outside of `#[test]` functions panic too: that is how a test fails.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use dns::{Change, ForwardConfig, Index, Server, ServerConfig};
use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use network::netns::{tcp_connect, tcp_listen, udp_bind};
use network::{NetNs, PinDir};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

/// A namespace with a DNS server in it, on the address that the service would have.
struct World {
    ns: NetNs,
    pins: PinDir,
    server: Option<Server>,
    index: Arc<RwLock<Index>>,
    _dir: tempfile::TempDir,
}

/// Longest an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl World {
    fn new(upstreams: Vec<SocketAddr>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pins = PinDir::open(dir.path().join("ns")).unwrap();
        let ns = pins.create("node").unwrap();
        ns.loopback_up().unwrap();
        network::netlink::route::Route::open(Some(&ns))
            .unwrap()
            .add_address(1, "10.43.0.10/32".parse().unwrap())
            .unwrap();
        let index = Arc::new(RwLock::new(Index::new()));
        let forward = ForwardConfig { upstreams };
        let config = ServerConfig { zone: "cluster.local".into(), forward };
        let server = Server::new(config, index.clone()).unwrap();
        server.serve_udp(udp_bind(Some(&ns), server_at()).unwrap());
        server.serve_tcp(tcp_listen(Some(&ns), server_at()).unwrap());
        World { ns, pins, server: Some(server), index, _dir: dir }
    }

    fn apply(&self, object: serde_json::Value) {
        let service = serde_json::from_value(object).unwrap();
        self.index.write().unwrap().apply(Change::Service(Box::new(service)));
    }

    async fn udp(&self, question: &Message) -> Message {
        let socket = udp_bind(Some(&self.ns), "0.0.0.0:0".parse().unwrap()).unwrap();
        socket.connect(server_at()).await.unwrap();
        socket.send(&question.to_vec().unwrap()).await.unwrap();
        let mut buffer = [0; 4096];
        let count =
            tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
        Message::from_vec(&buffer[..count]).unwrap()
    }

    async fn tcp(&self, question: &Message) -> Message {
        let mut stream = tcp_connect(Some(&self.ns), server_at()).await.unwrap();
        let bytes = question.to_vec().unwrap();
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await.unwrap();
        Message::from_vec(&buffer).unwrap()
    }

    async fn end(mut self) {
        self.server.take().unwrap().stop().await;
        self.pins.clone().close().unwrap();
    }
}

fn server_at() -> SocketAddr {
    "10.43.0.10:53".parse().unwrap()
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, hickory_proto::op::MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn headless_with(count: u8) -> (serde_json::Value, Change) {
    let endpoints: Vec<_> = (1..=count)
        .map(|n| json!({"addresses": [format!("10.42.0.{n}")], "conditions": {}}))
        .collect();
    let slice = json!({
        "metadata": {"namespace": "d", "name": "many-1", "labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [],
    });
    let service =
        json!({"metadata": {"namespace": "d", "name": "many"}, "spec": {"clusterIP": "None"}});
    (service, Change::EndpointSlice(Box::new(serde_json::from_value(slice).unwrap())))
}

#[tokio::test]
async fn cluster_names_over_udp_and_tcp_without_any_upstream() {
    let world = World::new(vec![]);
    let name = "kubernetes.default.svc.cluster.local.";
    let early = world.udp(&question(name, RecordType::A)).await;
    assert_eq!(early.metadata.response_code, ResponseCode::ServFail, "before the first sync");
    world.apply(json!({"metadata": {"namespace": "default", "name": "kubernetes"},
                       "spec": {"clusterIP": "10.43.0.1"}}));
    world.index.write().unwrap().set_synced();
    let answer = world.udp(&question(name, RecordType::A)).await;
    assert!(answer.metadata.authoritative && answer.metadata.id == 7);
    assert_eq!(answer.answers[0].data, RData::A(A([10, 43, 0, 1].into())));
    let missing = world.tcp(&question("no.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
    let none = world.udp(&question(name, RecordType::AAAA)).await;
    assert_eq!((none.metadata.response_code, none.answers.len()), (ResponseCode::NoError, 0));
    let outside = world.udp(&question("example.org.", RecordType::A)).await;
    assert_eq!(outside.metadata.response_code, ResponseCode::Refused);
    world.end().await;
}

#[tokio::test]
async fn a_long_answer_is_truncated_and_whole_over_tcp_or_with_edns() {
    let world = World::new(vec![]);
    let (service, slice) = headless_with(60);
    world.apply(service);
    world.index.write().unwrap().apply(slice);
    let mut asked = question("many.d.svc.cluster.local.", RecordType::A);
    assert!(world.udp(&asked).await.metadata.truncation);
    assert_eq!(world.tcp(&asked).await.answers.len(), 60);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let whole = world.udp(&asked).await;
    assert!(!whole.metadata.truncation && whole.edns.is_some());
    assert_eq!(whole.answers.len(), 60);
    world.end().await;
}

#[tokio::test]
async fn garbage_gets_a_format_error_or_nothing() {
    let world = World::new(vec![]);
    let socket = udp_bind(Some(&world.ns), "0.0.0.0:0".parse().unwrap()).unwrap();
    socket.connect(server_at()).await.unwrap();
    socket.send(b"x").await.unwrap();
    socket.send(&[0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63]).await.unwrap();
    let mut buffer = [0; 512];
    let count = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    let answer = Message::from_vec(&buffer[..count]).unwrap();
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (9, ResponseCode::FormErr));
    world.end().await;
}

#[tokio::test]
async fn other_names_are_forwarded_once_and_aliases_followed() {
    // The upstream lives on this process's own loopback, as the host's resolver would.
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let world = World::new(vec![upstream.local_addr().unwrap()]);
    world.apply(json!({"metadata": {"namespace": "d", "name": "out"},
                       "spec": {"type": "ExternalName", "externalName": "example.org"}}));
    let (counter, counted) = tokio::sync::watch::channel(0);
    let serve = tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((count, client)) = upstream.recv_from(&mut buffer).await {
            let mut answer = Message::from_vec(&buffer[..count]).unwrap().into_response();
            let name = answer.queries[0].name.clone();
            answer.add_answer(Record::from_rdata(name, 60, RData::A(A([192, 0, 2, 5].into()))));
            upstream.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
            counter.send_modify(|asked| *asked += 1);
        }
    });
    for _ in 0..2 {
        let answer = world.udp(&question("example.org.", RecordType::A)).await;
        assert_eq!(answer.answers[0].data, RData::A(A([192, 0, 2, 5].into())));
    }
    assert_eq!(*counted.borrow(), 1, "the second answer came from memory");
    let answer = world.udp(&question("out.d.svc.cluster.local.", RecordType::A)).await;
    let kinds: Vec<_> = answer.answers.iter().map(Record::record_type).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
    serve.abort();
    world.end().await;
}
