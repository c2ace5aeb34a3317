//! Probes over the network: redirects, names, and what their events say.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lifecycle::{Node, one};

/// A server that answers every request so; its port.
async fn server(answer: String) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

fn ready(status: &Value) -> bool {
    status["containerStatuses"][0]["ready"] == true
}

#[tokio::test]
async fn a_redirect_to_another_host_is_a_warning_and_names_are_resolved() {
    let node = Node::start();
    let answer =
        "HTTP/1.1 302 Found\r\nLocation: http://other.example/\r\nContent-Length: 4\r\n\r\nmove";
    let port = server(answer.into()).await;
    let get = json!({"host": "localhost", "port": port, "path": "/x"});
    node.create(one(json!({"readinessProbe": {"httpGet": get, "periodSeconds": 1}})));
    node.status(ready).await;
    let event = node.event("ProbeWarning").await;
    assert_eq!(event["type"], "Warning");
    let said = "Readiness probe warning: Probe terminated redirects, Response body: move";
    assert_eq!(event["message"], said);
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_probe_without_a_result_is_told_as_an_error() {
    let node = Node::start();
    let get = json!({"port": "none", "path": "/x"});
    node.create(one(json!({"readinessProbe": {"httpGet": get, "periodSeconds": 1}})));
    let event = node.event("Unhealthy").await;
    let said = "Readiness probe errored and resulted in unknown state: strconv.Atoi: parsing \"none\": invalid syntax";
    assert_eq!(event["message"], said);
    node.tasks.shutdown().await;
}

#[tokio::test]
async fn a_hook_takes_any_answer_and_does_without_tls_if_it_must() {
    let node = Node::start();
    let port = server("HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n".into()).await;
    let get = json!({"host": "localhost", "port": port, "scheme": "HTTPS"});
    node.create(one(json!({"lifecycle": {"postStart": {"httpGet": get}}})));
    node.status(|s| s["phase"] == "Running").await;
    let event = node.event("LifecycleHTTPFallback").await;
    let said = format!(
        "request to HTTPS lifecycle hook localhost:{port} got HTTP response, retry with HTTP succeeded"
    );
    assert_eq!(event["message"], said.as_str());
    node.tasks.shutdown().await;
}
