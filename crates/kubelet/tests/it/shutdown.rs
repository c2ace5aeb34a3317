//! The machine's shutdown, told by a logind that exists only here.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use kubelet::{LogindPlaces, ShutdownPeriod};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::lifecycle::{Node, one};

/// Microseconds that logind waits.
const DELAY: u64 = 60_000_000;

/// The other end of the lock that the node holds: reading ends when it lets go.
type Lock = Arc<Mutex<Option<OwnedFd>>>;

struct Logind {
    stream: UnixStream,
    lock: Lock,
}

impl Logind {
    async fn line(&mut self, begin: &str) {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.stream.read_u8().await.unwrap());
        }
        let line = String::from_utf8(line).unwrap();
        assert!(line.trim_start_matches('\0').starts_with(begin), "{line}");
    }

    /// The serial and the text of a call.
    async fn call(&mut self) -> (u32, String) {
        let mut head = [0u8; 16];
        self.stream.read_exact(&mut head).await.unwrap();
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        let rest = (number(12) as usize).next_multiple_of(8) + number(4) as usize;
        let mut text = vec![0; rest];
        self.stream.read_exact(&mut text).await.unwrap();
        (number(8), String::from_utf8_lossy(&text).into_owned())
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Serves the node until it waits for news.
    async fn greet(&mut self) {
        self.line("AUTH EXTERNAL").await;
        self.send(b"OK 1234\r\n").await;
        self.line("NEGOTIATE_UNIX_FD").await;
        self.send(b"AGREE_UNIX_FD\r\n").await;
        self.line("BEGIN").await;
        for expected in ["Hello", "InhibitDelayMaxUSec", "AddMatch", "Inhibit"] {
            self.serve(expected).await;
        }
    }

    async fn serve(&mut self, expected: &str) {
        let (serial, text) = self.call().await;
        assert!(text.contains(expected), "{expected}: {text}");
        match expected {
            "InhibitDelayMaxUSec" => {
                let mut body = b"\x01t\0\0\0\0\0\0".to_vec();
                body.extend_from_slice(&DELAY.to_le_bytes());
                self.send(&message(2, serial, "v", &body)).await;
            }
            "Inhibit" => {
                assert!(text.contains("kubelet") && text.contains("delay"), "{text}");
                let (ours, theirs) = rustix::pipe::pipe().unwrap();
                *self.lock.lock().unwrap() = Some(ours);
                self.send_descriptor(&message(2, serial, "h", &0u32.to_le_bytes()), &theirs).await;
            }
            _ => self.send(&message(2, serial, "", &[])).await,
        }
    }

    async fn send_descriptor(&mut self, bytes: &[u8], fd: &OwnedFd) {
        self.stream.writable().await.unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let parts = [IoSlice::new(bytes)];
        sendmsg(self.stream.as_fd(), &parts, &mut control, SendFlags::empty()).unwrap();
    }

    async fn tell(&mut self, begins: bool) {
        self.send(&message(4, 0, "b", &u32::from(begins).to_le_bytes())).await;
    }
}

/// A message of a bus, as the protocol has it.
fn message(kind: u8, reply_to: u32, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut fields = Vec::new();
    let mut text = |kind: u8, of: u8, text: &str| {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend_from_slice(&[kind, 1, of, 0]);
        match of {
            b'g' => fields.push(text.len() as u8),
            _ => fields.extend_from_slice(&(text.len() as u32).to_le_bytes()),
        }
        fields.extend_from_slice(text.as_bytes());
        fields.push(0);
    };
    if kind == 4 {
        text(1, b'o', "/org/freedesktop/login1");
        text(2, b's', "org.freedesktop.login1.Manager");
        text(3, b's', "PrepareForShutdown");
    }
    if !signature.is_empty() {
        text(8, b'g', signature);
    }
    if kind == 2 {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend_from_slice(&[5, 1, b'u', 0]);
        fields.extend_from_slice(&reply_to.to_le_bytes());
    }
    let mut out = vec![b'l', kind, 0, 1];
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&1u32.to_le_bytes());
    out.extend_from_slice(&(fields.len() as u32).to_le_bytes());
    out.extend_from_slice(&fields);
    out.resize(out.len().next_multiple_of(8), 0);
    out.extend_from_slice(body);
    out
}

fn is_let_go(lock: &Lock) -> bool {
    let lock = lock.lock().unwrap();
    let fd = lock.as_ref().unwrap();
    rustix::io::ioctl_fionbio(fd, true).unwrap();
    rustix::io::read(fd, &mut [0u8; 1]) == Ok(0)
}

#[tokio::test]
async fn pods_end_before_the_machine_goes_down() {
    let bus = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(bus.path().join("bus")).unwrap();
    let node = Node::with(|config| {
        config.shutdown = vec![ShutdownPeriod { priority: 0, seconds: 20 }];
        let settings = bus.path().join("conf");
        config.logind = LogindPlaces { bus: bus.path().join("bus"), settings };
    });
    let mut spec = one(json!({"name": "slow"}));
    spec["terminationGracePeriodSeconds"] = json!(7);
    node.create(spec);
    node.status(|s| s["phase"] == "Running").await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut logind = Logind { stream, lock: Lock::default() };
    logind.greet().await;
    assert!(!is_let_go(&logind.lock));
    assert!(!bus.path().join("conf").exists(), "logind waits long enough as it is");

    logind.tell(true).await;
    let not_ready = |api: &crate::api::FakeApi| {
        let node = api.get("/api/v1/nodes/n1")?;
        let all = node["status"]["conditions"].as_array()?.clone();
        let ready = all.into_iter().find(|c| c["type"] == "Ready" && c["status"] == "False")?;
        (ready["message"] == "node is shutting down").then_some(())
    };
    node.api.until(not_ready).await;
    let told = || node.runtime.stops.lock().unwrap().first().map(|(_, grace)| *grace);
    while told().is_none() {
        tokio::task::yield_now().await;
    }
    assert!(told().is_some_and(|grace| grace <= 7), "the pod's own period is shorter");
    assert!(!is_let_go(&logind.lock), "the pod still ends");
    // No pod is taken any more.
    let mut late = node.api.get(crate::lifecycle::POD).unwrap();
    late["metadata"] = json!({"name": "late", "namespace": "default", "uid": "late"});
    late["status"] = json!({});
    let path = "/api/v1/namespaces/default/pods/late";
    node.api.put(path, late);
    let refused = |api: &crate::api::FakeApi| {
        api.get(path).map(|p| p["status"].clone()).filter(|s| s["phase"] == "Failed")
    };
    let refused = node.api.until(refused).await;
    assert_eq!(refused["reason"], "NodeShutdown");
    let said = "Pod was rejected: Pod was rejected as the node is shutting down.";
    assert_eq!(refused["message"], said);

    node.runtime.let_end.notify_one();
    let status = node.status(|s| s["phase"] == "Failed").await;
    assert_eq!(status["reason"], "Terminated");
    let said = "Pod was terminated in response to imminent node shutdown.";
    assert_eq!(status["message"], said);
    while !is_let_go(&logind.lock) {
        tokio::task::yield_now().await;
    }
    let about_node = |api: &crate::api::FakeApi| {
        let events = api.list("/api/v1/namespaces/default/events/").into_iter();
        let mut own = events.filter(|e| e["involvedObject"]["kind"] == "Node");
        own.find(|e| e["message"] == "Shutdown manager detected shutdown event").map(drop)
    };
    node.api.until(about_node).await;

    // A shutdown that is cancelled is delayed again the next time.
    logind.tell(false).await;
    logind.serve("Inhibit").await;
    assert!(!is_let_go(&logind.lock));
    node.tasks.shutdown().await;
}
