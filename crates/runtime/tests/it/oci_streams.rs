//! Streams and terminals of runc's containers: the supervisor's, as those of its own.
use runtime::cri::*;
use runtime::{Error, RuntimeService, StreamOptions, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{LIMIT, log_text, sh};
use crate::oci::{node, sandbox};

const ALL: StreamOptions = StreamOptions { stdin: true, stdout: true, stderr: true, tty: false };

async fn to_end(stream: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>) -> String {
    let mut text = String::new();
    tokio::time::timeout(LIMIT, stream.unwrap().read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_has_streams_an_exit_code_and_a_deadline() {
    let node = node().await;
    let sandbox = sandbox(&node, "runc").await;
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    let cmd = ["sh", "-c", "cat; echo end >&2; exit 5"].map(str::to_owned).to_vec();
    let mut session = node.rt().exec(&id, cmd, ALL).await.map_err(|e| e.chain()).unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"through\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(to_end(session.stdout).await, "through\n");
    assert_eq!(to_end(session.stderr).await, "end\n");
    assert_eq!(session.exit.await.unwrap(), 5);
    let missing = node.rt().exec(&id, vec!["nothing".to_owned()], ALL).await.err().unwrap().chain();
    assert!(missing.contains("OCI runtime runc exec failed: "), "{missing}");
    assert!(missing.contains("executable file not found in $PATH"), "{missing}");
    let late = ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["sleep".to_owned(), "4243".to_owned()],
        timeout: 1,
    };
    assert!(matches!(node.rt().exec_sync(late).await, Err(Error::ExecTimeout(1))));
    let (_, left) = node.exec(&id, "ps").await;
    assert!(!left.contains("4243"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_with_a_terminal() {
    let node = node().await;
    let sandbox = sandbox(&node, "runc").await;
    let id = node.start(&sandbox, sh("exec sleep 1000")).await;
    let cmd = ["sh", "-c", "read x; tty; stty size; echo got $x"].map(str::to_owned).to_vec();
    let session = node.rt().exec(&id, cmd, StreamOptions { tty: true, ..ALL }).await;
    let mut session = session.map_err(|e| e.chain()).unwrap();
    // A place in the queue comes free only when an earlier size is set.
    for _ in 0..6 {
        session.resize.send(TerminalSize { width: 101, height: 37 }).await.unwrap();
    }
    session.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
    let exit = tokio::time::timeout(LIMIT, session.exit).await.unwrap().unwrap();
    drop(session.resize);
    let text = to_end(session.stdout).await;
    assert_eq!(exit, 0);
    for part in ["/dev/pts/0", "37 101", "got typed"] {
        assert!(text.contains(part), "{text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_joins_a_running_container() {
    let node = node().await;
    let sandbox = sandbox(&node, "runc").await;
    let mut config = sh("while read line; do echo heard $line; done; echo closed");
    (config.stdin, config.stdin_once) = (true, true);
    let id = node.start(&sandbox, config).await;
    let mut session = node.rt().attach(&id, ALL).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(to_end(session.stdout).await, "heard one\nheard two\nclosed\n");
    assert_eq!(tokio::time::timeout(LIMIT, session.exit).await.unwrap().unwrap(), 0);
    assert_eq!(log_text(&node.status(&id).await.log_path), "heard one\nheard two\nclosed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_to_a_terminal() {
    let node = node().await;
    let sandbox = sandbox(&node, "runc").await;
    let mut config = sh("read x; echo got $x; tty; stty size");
    (config.stdin, config.tty) = (true, true);
    let id = node.start(&sandbox, config).await;
    let mut session = node.rt().attach(&id, StreamOptions { tty: true, ..ALL }).await.unwrap();
    for _ in 0..6 {
        session.resize.send(TerminalSize { width: 90, height: 20 }).await.unwrap();
    }
    session.stdin.as_mut().unwrap().write_all(b"typed\n").await.unwrap();
    let text = to_end(session.stdout).await;
    for part in ["got typed", "/dev/pts/0", "20 90"] {
        assert!(text.contains(part), "{text:?}");
    }
}
