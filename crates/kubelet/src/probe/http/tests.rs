//! Requests to servers of the tests' own, which answer by the path they are asked for.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::PlainDialer;

const LIMIT: Duration = Duration::from_secs(20);

fn answer(path: &str) -> String {
    let to = |code: &str, location: &str| {
        format!("HTTP/1.1 {code}\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\nmove")
    };
    match path {
        "/ok" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
        "/bad" => "HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n".into(),
        "/to-ok" => to("302 Found", "/ok"),
        "/to-bad" => to("307 x", "bad"),
        "/to-other" => to("301 x", "http://other.example/"),
        "/loop" => to("302 x", "/loop"),
        "/unclear" => to("302 x", "ftp://x/"),
        "/not-modified" => to("304 x", "/ok"),
        "/close" => String::new(),
        _ => "hello\r\n\r\n".into(),
    }
}

/// Answers for as long as the test runs; `/hang` is never answered, `/slow` never to its end.
async fn serve(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut head = vec![0; 4096];
            let n = stream.read(&mut head).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&head[..n]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or("").to_owned();
            match path.as_str() {
                "/hang" => std::future::pending().await,
                "/slow" => {
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx").await;
                    std::future::pending::<()>().await;
                }
                "/echo" => {
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n{text}");
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                path => {
                    let _ = stream.write_all(answer(path).as_bytes()).await;
                }
            }
        });
    }
}

async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener));
    address
}

fn target(to: SocketAddr, path: &str) -> Target {
    let get: HTTPGetAction =
        serde_json::from_value(serde_json::json!({"path": path, "port": to.port()})).unwrap();
    Target::of(&get, &Container::default(), "127.0.0.1", "probe").unwrap()
}

async fn ask(to: SocketAddr, path: &str) -> Result<(u16, String), Failure> {
    get(&PlainDialer, &target(to, path), LIMIT).await.map(|a| (a.status, a.body))
}

#[tokio::test]
async fn redirects_on_the_same_host_are_followed_and_others_are_not() {
    let to = start().await;
    assert_eq!(ask(to, "/to-ok").await, Ok((200, "ok".into())));
    assert_eq!(ask(to, "/to-bad").await.unwrap().0, 500);
    assert_eq!(ask(to, "/to-other").await, Ok((301, "move".into())));
    assert_eq!(ask(to, "/not-modified").await.unwrap().0, 304);
    let said = "Get \"/loop\": stopped after 10 redirects";
    assert_eq!(ask(to, "/loop").await, Err(Failure::Request(said.into())));
    let said = format!("Get \"http://{to}/unclear\": failed to parse Location header \"ftp://x/\"");
    assert_eq!(ask(to, "/unclear").await, Err(Failure::Request(said)));
}

#[tokio::test]
async fn silence_and_broken_answers_have_gos_words() {
    let to = start().await;
    let asked = |path: &str| {
        let target = target(to, path);
        async move { get(&PlainDialer, &target, Duration::from_millis(50)).await.unwrap_err() }
    };
    let said = format!("Get \"http://{to}/hang\": {TIMED_OUT}");
    assert_eq!(asked("/hang").await, Failure::Request(said));
    assert_eq!(asked("/slow").await, Failure::Body(TIMED_OUT_IN_BODY.into()));
    let said = format!("Get \"http://{to}/close\": EOF");
    assert_eq!(ask(to, "/close").await, Err(Failure::Request(said)));
    let said = format!(
        "Get \"http://{to}/nonsense\": net/http: HTTP/1.x transport connection broken: malformed HTTP response"
    );
    assert_eq!(ask(to, "/nonsense").await, Err(Failure::Request(said)));
    let mut tls = target(to, "/ok");
    tls.url.tls = true;
    let said = format!("Get \"https://{to}/ok\": {NOT_TLS}");
    assert_eq!(get(&PlainDialer, &tls, LIMIT).await, Err(Failure::Request(said)));
}

#[tokio::test]
async fn headers_are_the_pods_and_the_kubelets_where_it_has_none() {
    let to = start().await;
    let (_, plain) = ask(to, "/echo").await.unwrap();
    for line in [format!("host: {to}"), "user-agent: kube-probe/1.36".into(), "accept: */*".into()]
    {
        assert!(plain.contains(&line), "{plain}");
    }
    let headers = serde_json::json!([{"name": "Host", "value": "me"}, {"name": "Accept", "value": ""}, {"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}]);
    let get_action =
        serde_json::json!({"path": "/echo", "port": to.port(), "httpHeaders": headers});
    let action: HTTPGetAction = serde_json::from_value(get_action).unwrap();
    let target = Target::of(&action, &Container::default(), "127.0.0.1", "lifecycle").unwrap();
    let body = get(&PlainDialer, &target, LIMIT).await.unwrap().body;
    for line in ["host: me", "x-a: 1", "x-a: 2", "user-agent: kube-lifecycle/1.36"] {
        assert!(body.contains(line), "{body}");
    }
    assert!(!body.contains("accept:"), "{body}");
}
