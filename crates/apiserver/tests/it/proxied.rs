//! What is sent on to pods, and how their answers come back.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::harness::{Here, World};

const PROXY: &str = "/api/v1/namespaces/default/pods/http:p:80/proxy";

/// Answers each connection with a page that shows the request's first line.
async fn echo(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut stream = BufReader::new(stream);
        let mut first = String::new();
        stream.read_line(&mut first).await.expect("a line");
        let page = format!("<a href=\"/rewriteme\">{}</a>", first.trim());
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}",
            page.len()
        );
        stream.write_all(answer.as_bytes()).await.expect("sent");
    }
}

async fn world_with_pod() -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let world = World::with_dialer(Arc::new(Here(listener.local_addr().expect("bound")))).await;
    tokio::spawn(echo(listener));
    world
        .ask(
            "POST",
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "default"}}),
        )
        .await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(world.ask("POST", "/api/v1/namespaces/default/pods", &pod).await.code, 201);
    let patch = json!({"status": {"podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}]}});
    let headers = [("content-type", "application/merge-patch+json")];
    let path = "/api/v1/namespaces/default/pods/p/status";
    let patched = world.ask_as(&world.admin, ("PATCH", path), &headers, patch.to_string()).await;
    assert_eq!(patched.code, 200, "{:?}", patched.bytes);
    world
}

#[tokio::test]
async fn proxied_pages_lead_back_through_the_proxy() {
    let world = world_with_pod().await;
    for (method, path, asked) in [
        ("GET", "/", "/"),
        ("GET", "/a/b/?q=1", "/a/b/?q=1"),
        ("OPTIONS", "?q=1", "/?q=1"),
        ("DELETE", "", "/"),
    ] {
        let answer = world.ask(method, &format!("{PROXY}{path}"), &Value::Null).await;
        let page = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert_eq!(page, format!("<a href=\"{PROXY}/rewriteme\">{method} {asked} HTTP/1.1</a>"));
        assert_eq!(answer.code, 200);
    }
}

/// Clients in Python, JavaScript and Java escape the colons of names.
#[tokio::test]
async fn escaped_segments_are_the_same_segments() {
    let world = world_with_pod().await;
    let escaped = "/api/v1/namespaces/default/pods/http%3Ap%3A80/proxy";
    let answer = world.ask("GET", &format!("{escaped}/a%20b/%C3%A4"), &Value::Null).await;
    let page = String::from_utf8_lossy(&answer.bytes).into_owned();
    assert_eq!((answer.code, page.contains("GET /a%20b/%C3%A4 HTTP/1.1")), (200, true), "{page}");
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode";
    let answer = world.ask("GET", role, &Value::Null).await;
    assert_eq!(answer.json()["metadata"]["name"], "system:node");
    // Decoded once: this is no colon.
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%253Anode";
    assert_eq!(world.ask("GET", role, &Value::Null).await.code, 404);
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%zznode";
    assert_eq!(world.ask("GET", role, &Value::Null).await.code, 400);
}

#[tokio::test]
async fn a_proxied_root_has_its_slash() {
    let world = world_with_pod().await;
    for method in ["GET", "HEAD"] {
        let answer = world.ask(method, &format!("{PROXY}?q=1"), &Value::Null).await;
        assert_eq!(answer.code, 301);
        assert_eq!(answer.headers["location"], format!("{PROXY}/?q=1").as_str());
    }
}
