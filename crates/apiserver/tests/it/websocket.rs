//! Watches over WebSocket, as browsers and Java clients ask for them.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::connections::Served;
use apiserver::Limits;

const HANDSHAKE: &str = "host: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

async fn ask(served: &Served, target: &str, more: &str) -> (String, TlsStream<TcpStream>) {
    let mut stream = served.connect().await;
    let request = format!("GET {target} HTTP/1.1\r\n{HANDSHAKE}{more}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    (String::from_utf8_lossy(&head).to_lowercase(), stream)
}

/// Opcode and payload of the next frame.
async fn frame(stream: &mut TlsStream<TcpStream>) -> (u8, Vec<u8>) {
    let opcode = stream.read_u8().await.expect("a frame") & 0x0f;
    let length = match stream.read_u8().await.expect("a length") {
        126 => usize::from(stream.read_u16().await.expect("a length")),
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.expect("a payload");
    (opcode, payload)
}

async fn event(stream: &mut TlsStream<TcpStream>) -> Value {
    let (opcode, payload) = frame(stream).await;
    assert_eq!(opcode, 1, "JSON goes as text");
    serde_json::from_slice(&payload).expect("one event a message")
}

const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1";
const ORIGIN: &str = "origin: https://dashboard.example\r\n";

#[tokio::test]
async fn each_event_is_a_message_and_close_is_answered() {
    let served = Served::with(Limits::default()).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    served.world.make(maps, &json!({"metadata": {"name": "a"}})).await;
    served.world.make(maps, &json!({"metadata": {"name": "b"}})).await;
    let (head, mut stream) = ask(&served, WATCH, ORIGIN).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    for name in ["a", "b"] {
        let event = event(&mut stream).await;
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&"ADDED".into(), &name.into())
        );
    }
    served.world.ask("DELETE", &format!("{maps}/a"), &Value::Null).await;
    assert_eq!(event(&mut stream).await["type"], "DELETED");
    stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).await.expect("sent");
    assert_eq!(frame(&mut stream).await, (8, vec![0x03, 0xe8]));
}

#[tokio::test]
async fn protobuf_goes_in_binary_messages_without_their_length() {
    let served = Served::with(Limits::default()).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    served.world.make(maps, &json!({"metadata": {"name": "a"}})).await;
    let more = format!("{ORIGIN}accept: application/vnd.kubernetes.protobuf\r\n");
    let (head, mut stream) = ask(&served, WATCH, &more).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    let (opcode, payload) = frame(&mut stream).await;
    assert_eq!(opcode, 2);
    // Field 1 of a WatchEvent, its type.
    assert_eq!(payload[..7], *b"\x0a\x05ADDED");
}

#[tokio::test]
async fn a_watch_that_times_out_closes_the_websocket() {
    let served = Served::with(Limits::default()).await;
    let (head, mut stream) = ask(&served, &format!("{WATCH}&timeoutSeconds=600"), ORIGIN).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    tokio::time::pause();
    assert_eq!(frame(&mut stream).await, (8, vec![0x03, 0xe8]));
}

#[tokio::test]
async fn handshakes_without_origin_and_watches_of_nothing_are_refused() {
    let served = Served::with(Limits::default()).await;
    let (head, _) = ask(&served, WATCH, "").await;
    assert!(head.starts_with("http/1.1 403"), "{head}");
    let (head, _) = ask(&served, "/api/v1/namespaces/default/nothing?watch=1", ORIGIN).await;
    assert!(head.starts_with("http/1.1 404"), "{head}");
    let more = format!("{ORIGIN}sec-websocket-protocol: a, b\r\n");
    let (head, _) = ask(&served, WATCH, &more).await;
    assert!(head.starts_with("http/1.1 400"), "{head}");
}
