//! Both protocols over in-memory connections, with golden bytes where clients depend on them.

use std::sync::Arc;

use runtime::{ExecSession, StreamOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::spdy::tests_support::{Opener, send};
use super::{forward, remote, websocket};

const ALL: StreamOptions = StreamOptions { stdin: true, stdout: true, stderr: false, tty: false };

/// An exec of `cat` that ends with code 7.
fn cat() -> remote::Starter {
    Box::new(|| {
        Box::pin(async {
            let (near, far) = tokio::io::duplex(1024);
            let (from, _) = tokio::io::split(far);
            let (resize, _) = tokio::sync::mpsc::channel(1);
            let (done, wait) = tokio::sync::oneshot::channel::<()>();
            drop(done);
            Ok(ExecSession {
                stdin: Some(Box::new(near)),
                stdout: Some(Box::new(from)),
                stderr: None,
                resize,
                exit: Box::pin(async {
                    let _ended = wait.await;
                    std::future::pending::<()>().await;
                    Ok(7)
                }),
            })
        })
    })
}

/// A process that says `out` and ends.
fn says(out: &'static [u8], code: i32) -> remote::Starter {
    Box::new(move || {
        Box::pin(async move {
            let (resize, _) = tokio::sync::mpsc::channel(1);
            Ok(ExecSession {
                stdin: None,
                stdout: Some(Box::new(out)),
                stderr: None,
                resize,
                exit: Box::pin(async move { Ok(code) }),
            })
        })
    })
}

/// Frames until the end: control frames as their type, data as stream, bytes and last.
async fn frames(io: &mut DuplexStream) -> Vec<(u32, Vec<u8>, bool)> {
    let mut all = Vec::new();
    let mut head = [0; 8];
    while io.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
        let mut body = vec![0; length as usize];
        io.read_exact(&mut body).await.unwrap();
        if head[0] & 0x80 == 0 {
            let stream = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            all.push((stream, body, head[4] & 1 == 1));
        }
    }
    all
}

fn data(all: &[(u32, Vec<u8>, bool)], stream: u32) -> String {
    let bytes = all.iter().filter(|f| f.0 == stream).flat_map(|f| f.1.clone()).collect();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn an_exit_code_comes_as_a_status_over_spdy() {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let options = StreamOptions { stdin: false, ..ALL };
    let mut opener = Opener::new();
    for (id, kind) in [(1, "error"), (3, "stdout")] {
        client.write_all(&opener.open(id, &[("streamtype", kind)])).await.unwrap();
    }
    let run = remote::over_spdy(server, "v4.channel.k8s.io", options, says(b"hi\n", 7));
    let (all, ()) = futures::join!(frames(&mut client), run);
    assert_eq!(data(&all, 3), "hi\n");
    let status: serde_json::Value = serde_json::from_str(&data(&all, 1)).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(
        status["details"]["causes"][0],
        serde_json::json!({"reason": "ExitCode", "message": "7"})
    );
    assert!(all.iter().any(|f| f.0 == 3 && f.2), "stdout is closed");
}

#[tokio::test]
async fn input_reaches_the_process_over_spdy() {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let mut opener = Opener::new();
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        client.write_all(&opener.open(id, &[("streamtype", kind)])).await.unwrap();
    }
    client.write_all(&send(3, b"through", true)).await.unwrap();
    let read = async {
        let mut head = [0; 8];
        loop {
            client.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
            let mut body = vec![0; length as usize];
            client.read_exact(&mut body).await.unwrap();
            if head[..4] == 5u32.to_be_bytes() {
                return body;
            }
        }
    };
    tokio::select! {
        body = read => assert_eq!(body, b"through"),
        () = remote::over_spdy(server, "v4.channel.k8s.io", ALL, cat()) => panic!("ended early"),
    }
}

/// A pod port that echoes.
fn echo() -> forward::Connect {
    Arc::new(|port| {
        Box::pin(async move {
            if port != 80 {
                return Err(runtime::Error::Precondition("connection refused".into()));
            }
            let (near, far) = tokio::io::duplex(1024);
            let (mut from, mut to) = tokio::io::split(far);
            let echo = async move {
                let _copied = tokio::io::copy(&mut from, &mut to).await;
                let _closed = to.shutdown().await;
            };
            // The test's own end of the pod: it ends with the connection.
            tokio::spawn(echo);
            Ok(Box::new(near) as Box<dyn runtime::Duplex>)
        })
    })
}

#[tokio::test]
async fn ports_are_forwarded_and_refusals_told() {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let mut opener = Opener::new();
    for (base, port, request) in [(1, "80", "0"), (5, "81", "1")] {
        let of =
            |kind: &'static str| [("streamtype", kind), ("port", port), ("requestid", request)];
        client.write_all(&opener.open(base, &of("error"))).await.unwrap();
        client.write_all(&opener.open(base + 2, &of("data"))).await.unwrap();
    }
    client.write_all(&send(3, b"ping", true)).await.unwrap();
    let talk = async {
        let mut all = Vec::new();
        let mut head = [0; 8];
        // The echo's end, and the refusal's text.
        while data(&all, 3) != "ping" || data(&all, 5).is_empty() {
            client.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
            let mut body = vec![0; length as usize];
            client.read_exact(&mut body).await.unwrap();
            if head[0] & 0x80 == 0 {
                let stream = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
                all.push((stream, body, head[4] & 1 == 1));
            }
        }
        drop(client);
        all
    };
    let (all, ()) = futures::join!(talk, forward::over_spdy(server, echo()));
    assert_eq!(data(&all, 5), "error forwarding port 81 to pod: connection refused");
}

#[tokio::test]
async fn the_tunnel_carries_spdy_in_messages() {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let mut opener = Opener::new();
    let mut bytes = Vec::new();
    for (id, kind) in [(1, "error"), (3, "data")] {
        bytes.extend(opener.open(id, &[("streamtype", kind), ("port", "80"), ("requestid", "0")]));
    }
    bytes.extend(send(3, b"pong", false));
    // Messages need not end where frames do.
    for part in bytes.chunks(7) {
        client.write_all(&websocket::masked(part)).await.unwrap();
    }
    let read = async {
        let mut got = Vec::new();
        while !got.ends_with(b"\x00\x00\x00\x03\x00\x00\x00\x04pong") {
            let mut head = [0; 2];
            client.read_exact(&mut head).await.unwrap();
            assert_eq!(head[0], 0x82);
            let mut body = vec![0; usize::from(head[1])];
            client.read_exact(&mut body).await.unwrap();
            got.extend(body);
        }
        drop(client);
    };
    futures::join!(read, forward::over_tunnel(server, echo()));
}

/// A peer that asks and asks and never reads is made to wait; nothing piles up for it.
#[tokio::test(start_paused = true)]
async fn answers_that_nobody_reads_do_not_pile_up() {
    async fn floods(mut near: DuplexStream, ask: &[u8], session: impl Future<Output = ()>) {
        let flood = async {
            for _ in 0..100_000 {
                if near.write_all(ask).await.is_err() {
                    return;
                }
            }
        };
        tokio::pin!(session, flood);
        let hour = std::time::Duration::from_secs(3600);
        tokio::select! {
            () = &mut flood => panic!("all was taken"),
            () = &mut session => panic!("the session ended"),
            () = tokio::time::sleep(hour) => {}
        }
    }
    let connect: forward::Connect = Arc::new(|_| Box::pin(std::future::pending()));
    let (near, far) = tokio::io::duplex(4096);
    let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
    floods(near, &ping, forward::over_spdy(far, connect.clone())).await;
    let (near, far) = tokio::io::duplex(4096);
    // A masked ping with a payload of 100 bytes.
    let ping = [&[0x89, 0x80 | 100, 0, 0, 0, 0][..], &[7; 100]].concat();
    floods(near, &ping, forward::over_tunnel(far, connect)).await;
}

#[tokio::test]
async fn a_session_has_only_so_many_streams() {
    let connect: forward::Connect = Arc::new(|_| Box::pin(std::future::pending()));
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let session = tokio::spawn(forward::over_spdy(far, connect));
    let mut opener = Opener::new();
    for id in 0..2000u32 {
        let request = id.to_string();
        let frame = opener.open(2 * id + 1, &[("streamtype", "error"), ("requestid", &request)]);
        if near.write_all(&frame).await.is_err() {
            break;
        }
    }
    session.await.unwrap();
}
