//! Exec, terminals, attach, port-forward, logs.
use std::time::Duration;

use runtime::cri::*;
use runtime::{Error, RuntimeService, StreamOptions, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{LIMIT, Node, log_text, sh};

const ALL: StreamOptions = StreamOptions { stdin: true, stdout: true, stderr: true, tty: false };

async fn to_end(stream: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>) -> String {
    let mut text = String::new();
    tokio::time::timeout(LIMIT, stream.unwrap().read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_has_streams_of_its_own() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    let cmd = ["sh", "-c", "cat; echo end >&2; exit 5"].map(str::to_owned).to_vec();
    let mut session = node.rt().exec(&id, cmd, ALL).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"through\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(to_end(session.stdout).await, "through\n");
    assert_eq!(to_end(session.stderr).await, "end\n");
    assert_eq!(session.exit.await.unwrap(), 5);
    let missing = node.rt().exec(&id, vec!["nothing".to_owned()], ALL).await.err().unwrap();
    assert!(missing.chain().contains("executable file not found in $PATH"), "{}", missing.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_sync_ends_in_time() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    assert_eq!(node.exec(&id, "echo out; echo err >&2; exit 2").await, (2, "out\nerr\n".to_owned()));
    let request = ExecSyncRequest { container_id: id.clone(), cmd: vec!["sleep".to_owned(), "100".to_owned()], timeout: 1 };
    assert!(matches!(node.rt().exec_sync(request).await, Err(Error::ExecTimeout(1))));
    let request = ExecSyncRequest { container_id: id, cmd: ["sh", "-c", "yes | head -c 20000000"].map(str::to_owned).to_vec(), timeout: 20 };
    assert_eq!(node.rt().exec_sync(request).await.unwrap().stdout.len(), 16 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_with_a_terminal() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    let cmd = ["sh", "-c", "read x; tty; stty size; echo got $x"].map(str::to_owned).to_vec();
    let mut session = node.rt().exec(&id, cmd, StreamOptions { tty: true, ..ALL }).await.unwrap();
    session.resize.send(TerminalSize { width: 101, height: 37 }).await.unwrap();
    // A second place in the queue of two comes free only when the first size is set.
    for _ in 0..5 {
        session.resize.send(TerminalSize { width: 101, height: 37 }).await.unwrap();
    }
    session.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
    let exit = tokio::time::timeout(LIMIT, session.exit).await.unwrap().unwrap();
    drop(session.resize);
    let text = to_end(session.stdout).await;
    assert_eq!(exit, 0);
    assert!(text.contains("/dev/pts/0") && text.contains("37 101") && text.contains("got typed"), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_joins_a_running_container() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = sh("while read line; do echo heard $line; done; echo closed");
    (config.stdin, config.stdin_once) = (true, true);
    let id = node.start(&sandbox, config).await;
    let mut session = node.rt().attach(&id, ALL).await.unwrap();
    let watcher = node.rt().attach(&id, StreamOptions { stdin: false, ..ALL }).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(to_end(session.stdout).await, "heard one\nheard two\nclosed\n");
    assert_eq!(to_end(watcher.stdout).await, "heard one\nheard two\nclosed\n");
    assert_eq!(tokio::time::timeout(LIMIT, session.exit).await.unwrap().unwrap(), 0);
    assert_eq!(log_text(&node.status(&id).await.log_path), "heard one\nheard two\nclosed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_to_a_terminal() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let mut config = sh("read x; echo got $x; tty");
    (config.stdin, config.tty) = (true, true);
    let id = node.start(&sandbox, config).await;
    let mut session = node.rt().attach(&id, StreamOptions { tty: true, ..ALL }).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
    let text = to_end(session.stdout).await;
    assert!(text.contains("got typed") && text.contains("/dev/pts/0"), "{text:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_reached_inside_the_sandbox() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh("nc -ll -p 8080 -e cat")).await;
    let mut stream = loop {
        match node.rt().port_forward(&sandbox, 8080).await {
            Ok(stream) => break stream,
            Err(_) => assert_eq!(node.status(&id).await.state, ContainerState::Running as i32),
        }
    };
    stream.write_all(b"echo\n").await.unwrap();
    let mut buffer = [0; 5];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer, b"echo\n");
    assert!(node.rt().port_forward(&sandbox, 9).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_reopened_and_lose_nothing() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh("echo first; touch /tmp/a; while [ ! -e /tmp/go ]; do sleep 0.01; done; echo second; exec sleep 1000")).await;
    node.exec(&id, "while [ ! -e /tmp/a ]; do sleep 0.01; done").await;
    let path = node.status(&id).await.log_path;
    let has = async |text: &str| {
        let wait = async {
            while !std::fs::read_to_string(&path).unwrap_or_default().contains(text) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap();
    };
    has("first").await;
    std::fs::rename(&path, format!("{path}.old")).unwrap();
    node.rt().reopen_container_log(&id).await.unwrap();
    node.exec(&id, "touch /tmp/go").await;
    has("second").await;
    assert_eq!(log_text(&path), "second\n");
    assert_eq!(log_text(&format!("{path}.old")), "first\n");
}
