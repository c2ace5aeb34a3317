//! The client and the server, over a unix socket and over pipes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use grpc::server::{self, Methods, Status};
use grpc::{CallError, Channel, Code, Connection, Dial, Settings, Tasks};
use tokio::net::UnixStream;

const MESSAGE_MAX: usize = 1 << 10;

struct Socket(PathBuf);

impl Dial for Socket {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connection, String>> + Send + '_>> {
        Box::pin(async {
            let stream = UnixStream::connect(&self.0).await.map_err(|e| e.to_string())?;
            Connection::open(stream, None).await
        })
    }
}

/// A server with a client; both end with it.
struct Pair {
    channel: Channel<Socket>,
    _tasks: Tasks,
    _directory: tempfile::TempDir,
}

fn pair(methods: Methods) -> Pair {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/too/it.sock");
    let listener = server::bind(&path).unwrap();
    let tasks = Tasks::default();
    tasks.spawn("server", server::listen(listener, Arc::new(methods)));
    let settings = Settings {
        peer: "the test",
        origin: "http://localhost".into(),
        headers: &[("grpc-timeout", "5S")],
        decorate: None,
        deadline: Duration::from_secs(60),
        message_max: MESSAGE_MAX,
    };
    Pair { channel: Channel::new(Socket(path), settings), _tasks: tasks, _directory: directory }
}

fn methods() -> Methods {
    Methods::new(MESSAGE_MAX)
        .unary("/it.Echo/Say", async |text: String| match text.as_str() {
            "no" => Err(Status::new(Code::NotFound, "not here:\n100 %")),
            "never" => std::future::pending().await,
            _ => Ok(format!("{text}!")),
        })
        .streaming("/it.Echo/Count", async |up_to: u32| {
            if up_to > 100 {
                return Err(Status::new(Code::OutOfRange, "at most 100"));
            }
            let ends = futures::stream::iter([Err(Status::new(Code::Aborted, "it is over"))]);
            let waits = futures::stream::pending();
            let numbers = futures::stream::iter(0..up_to).map(Ok);
            Ok(match up_to {
                7 => numbers.chain(ends).boxed(),
                8 => numbers.chain(waits).boxed(),
                _ => numbers.boxed(),
            })
        })
}

fn refused(error: CallError) -> (u32, String) {
    match error {
        CallError::Refused { code, message } => (code, message),
        other => panic!("{other}"),
    }
}

async fn say(pair: &Pair, text: &str) -> Result<String, (u32, String)> {
    pair.channel.call("/it.Echo/Say", &text.to_owned()).await.map_err(refused)
}

#[tokio::test]
async fn calls_are_answered_or_refused_in_the_handlers_words() {
    let pair = pair(methods());
    assert_eq!(say(&pair, "yes").await, Ok("yes!".into()));
    assert_eq!(say(&pair, "").await, Ok("!".into()), "an empty message is a message");
    assert_eq!(say(&pair, "no").await, Err((5, "not here:\n100 %".into())));
    let long = "x".repeat(MESSAGE_MAX);
    let why = "a message of 1027 bytes is too long (at most 1024)";
    assert_eq!(say(&pair, &long).await, Err((8, why.into())));
    assert_eq!(say(&pair, "still there").await, Ok("still there!".into()));
}

#[tokio::test]
async fn what_a_server_has_not_is_refused_as_by_grpc_go() {
    let pair = pair(methods());
    for (path, why) in [
        ("/it.Echo/Sing", "unknown method Sing for service it.Echo"),
        ("/it.Choir/Sing", "unknown service it.Choir"),
        ("/it", "malformed method name: \"it\""),
    ] {
        let answer = pair.channel.call::<String, String>(path, &String::new()).await;
        assert_eq!(answer.map_err(refused), Err((12, why.into())));
    }
}

#[tokio::test]
async fn streams_end_well_or_with_a_verdict() {
    let pair = pair(methods());
    for (up_to, numbers, end) in [
        (3, vec![0, 1, 2], None),
        (0, vec![], None),
        (7, (0..7).collect(), Some((10, "it is over".to_owned()))),
        (101, vec![], Some((11, "at most 100".to_owned()))),
    ] {
        let mut answers = pair.channel.stream::<u32, u32>("/it.Echo/Count", &up_to).await.unwrap();
        let mut seen = Vec::new();
        let ended = loop {
            match answers.next().await {
                Ok(Some(number)) => seen.push(number),
                Ok(None) => break None,
                Err(error) => break Some(refused(error)),
            }
        };
        assert_eq!((seen, ended), (numbers, end));
    }
}

#[tokio::test(start_paused = true)]
async fn a_clients_deadline_ends_its_calls() {
    let pair = pair(methods());
    let late = (4, "context deadline exceeded".to_owned());
    assert_eq!(say(&pair, "never").await, Err(late.clone()));
    let mut answers = pair.channel.stream::<u32, u32>("/it.Echo/Count", &8).await.unwrap();
    for number in 0..8 {
        assert_eq!(answers.next().await.unwrap(), Some(number));
    }
    assert_eq!(answers.next().await.map_err(refused), Err(late));
}

#[tokio::test]
async fn a_handler_ends_when_its_client_goes() {
    let (started, mut starts) = tokio::sync::mpsc::channel::<()>(1);
    let (held, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    let held = std::sync::Mutex::new(Some(held));
    let methods = Methods::new(MESSAGE_MAX).unary("/it.Echo/Say", move |_: String| {
        let (held, started) = (held.lock().unwrap().take(), started.clone());
        async move {
            started.send(()).await.unwrap();
            std::future::pending::<()>().await;
            drop(held);
            Ok(String::new())
        }
    });
    let pair = pair(methods);
    let question = String::new();
    tokio::select! {
        _ = pair.channel.call::<_, String>("/it.Echo/Say", &question) => panic!("no answer comes"),
        _ = starts.recv() => {}
    }
    pair.channel.close().await;
    assert_eq!(ended.recv().await, None, "the handler was dropped");
}

/// What the server answers to a request that is no gRPC call.
async fn status_of(request: http::Request<String>) -> http::StatusCode {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let tasks = Tasks::default();
    tasks.spawn("server", async move {
        Arc::new(methods()).serve(theirs).await.unwrap_or_default();
    });
    let io = hyper_util::rt::TokioIo::new(ours);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tasks.spawn("client", async move { connection.await.unwrap_or_default() });
    sender.send_request(request).await.unwrap().status()
}

#[tokio::test]
async fn what_is_no_call_is_told_so() {
    let request = |method: &str, kind: &str| {
        let request = http::Request::builder().method(method).uri("http://localhost/it.Echo/Say");
        request.header("content-type", kind).body(String::new()).unwrap()
    };
    assert_eq!(status_of(request("GET", "application/grpc")).await, 405);
    assert_eq!(status_of(request("POST", "text/html")).await, 415);
    assert_eq!(status_of(request("POST", "application/grpc+proto")).await, 200);
}

#[tokio::test]
async fn sockets_are_replaced_and_files_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("it.sock");
    drop(server::bind(&path).unwrap());
    server::bind(&path).expect("the former server's socket is replaced");
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let error = server::bind(&file).unwrap_err();
    assert_eq!(error.to_string(), format!("{} is there and is no socket", file.display()));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn connections_that_nobody_closes_give_way_to_new_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("it.sock");
    let tasks = Tasks::default();
    let listener = server::bind(&path).unwrap();
    tasks.spawn("server", server::listen(listener, Arc::new(methods())));
    let mut kept = Vec::new();
    for _ in 0..300 {
        let settings = Settings {
            peer: "the test",
            origin: "http://localhost".into(),
            headers: &[],
            decorate: None,
            deadline: Duration::from_secs(60),
            message_max: MESSAGE_MAX,
        };
        let channel = Channel::new(Socket(path.clone()), settings);
        let answer = channel.call::<_, String>("/it.Echo/Say", &"yes".to_owned()).await;
        assert_eq!(answer.map_err(refused), Ok("yes!".into()));
        kept.push(channel);
    }
    // Those that were ended connect again.
    for channel in [&kept[0], &kept[299]] {
        let answer = channel.call::<_, String>("/it.Echo/Say", &"yes".to_owned()).await;
        assert_eq!(answer.map_err(refused), Ok("yes!".into()));
    }
}
