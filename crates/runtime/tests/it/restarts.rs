//! Agent and supervisor may go away at any time: containers stay, and nothing is forgotten.
use runtime::cri::*;
use runtime::{RuntimeService, StreamOptions};
use tokio::io::AsyncReadExt;

use crate::harness::{LIMIT, Node, ended, log_text, sh};

const TALK: &str = "while [ ! -e /tmp/go ]; do sleep 0.01; done; echo after; exit 9";

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_the_agent() {
    let mut node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh(TALK)).await;
    let gone = node.start(&sandbox, sh("exit 4")).await;
    node.restart().await;
    let status = node.status(&id).await;
    assert_eq!(status.state, ContainerState::Running as i32);
    assert_eq!(node.rt().list_pod_sandboxes(PodSandboxFilter::default()).await.unwrap()[0].id, sandbox);
    let mut events = node.rt().events().await.unwrap();
    assert_eq!(node.exec(&id, "touch /tmp/go").await.0, 0);
    ended(&mut events, &id).await;
    let status = node.status(&id).await;
    assert_eq!(status.exit_code, 9);
    assert_eq!(log_text(&status.log_path), "after\n");
    assert_eq!(node.status(&gone).await.exit_code, 4);
    node.rt().remove_pod_sandbox(&sandbox).await.map_err(|e| e.chain()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_the_supervisor() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let id = node.start(&sandbox, sh(TALK)).await;
    let before = node.supervisor_pid();
    let mut events = node.rt().events().await.unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(before).unwrap(), rustix::process::Signal::KILL).unwrap();
    // Requests wait for the next supervisor; one under way when it went may fail and is repeated.
    let touched = async {
        loop {
            let request = ExecSyncRequest { container_id: id.clone(), cmd: vec!["touch".to_owned(), "/tmp/go".to_owned()], timeout: 10 };
            if node.rt().exec_sync(request).await.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, touched).await.unwrap();
    ended(&mut events, &id).await;
    let status = node.status(&id).await;
    assert_eq!(log_text(&status.log_path), "after\n");
    // From kernel 6.15 on the exit code of a stranger can be read.
    assert!([9, 255].contains(&status.exit_code), "{}", status.exit_code);
    let session = node.rt().attach(&id, StreamOptions { stdout: true, ..StreamOptions::default() }).await;
    assert!(session.is_err());
    let again = node.start(&sandbox, sh("echo new")).await;
    let mut text = String::new();
    if let Ok(session) = node.rt().attach(&again, StreamOptions { stdout: true, ..StreamOptions::default() }).await {
        let mut stdout = session.stdout.unwrap();
        tokio::time::timeout(LIMIT, stdout.read_to_string(&mut text)).await.unwrap().unwrap();
    }
}
