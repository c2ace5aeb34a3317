//! The node API's certificate and authorities become others while it is served.

use client::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::lifecycle::Node;
use crate::wire::{self, Pki};

#[tokio::test]
async fn other_authorities_hold_for_clients_that_are_connected_too() {
    let (node, tasks) = (Node::start(), Tasks::new());
    let (old, new) = (Pki::new(), Pki::new());
    let kubelet = node.agent(&tasks, node.config()).unwrap();
    let (sender, tls) = watch::channel(old.server.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn("node API", async move { kubelet.serve_live(listener, tls).await });
    let mut kept = old.connect(address, true).await;
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n").await.unwrap();
    let head = wire::head(&mut kept).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");

    sender.send_replace(new.server.clone());
    let mut rest = Vec::new();
    let ended = kept.read_to_end(&mut rest);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), ended).await;
    // With TLS's farewell or without.
    let _how = ended.expect("the connection ends");
    let answer = new.get(address, "/healthz", true).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    tasks.shutdown().await;
    node.tasks.shutdown().await;
}
