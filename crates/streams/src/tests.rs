//! Both protocols over in-memory connections, with golden bytes where clients depend on them.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::remote::{Kind, Options, Process, Resize};
use super::spdy::tests_support::{Opener, send};
use super::{Duplex, forward, remote, websocket};

const ALL: Options = Options { stdin: true, stdout: true, stderr: false, tty: false };

fn no_terminal() -> Resize {
    Box::new(|_| Box::pin(async { false }))
}

/// An exec of `cat`.
fn cat() -> remote::Starter {
    Box::new(|| {
        Box::pin(async {
            let (near, far) = tokio::io::duplex(1024);
            let (from, _) = tokio::io::split(far);
            Ok(Process {
                stdin: Some(Box::new(near)),
                stdout: Some(Box::new(from)),
                stderr: None,
                resize: no_terminal(),
                exit: Box::pin(std::future::pending()),
            })
        })
    })
}

/// A process that says `out` and ends.
fn says(out: &'static [u8], code: i32) -> remote::Starter {
    Box::new(move || {
        Box::pin(async move {
            Ok(Process {
                stdin: None,
                stdout: Some(Box::new(out)),
                stderr: None,
                resize: no_terminal(),
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

#[tokio::test(start_paused = true)]
async fn an_exit_code_comes_as_a_status_over_spdy() {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let options = Options { stdin: false, ..ALL };
    let mut opener = Opener::new();
    for (id, kind) in [(1, "error"), (3, "stdout")] {
        client.write_all(&opener.open(id, &[("streamtype", kind)])).await.unwrap();
    }
    let run =
        remote::spdy_session(server, "v4.channel.k8s.io", Kind::Exec, options, says(b"hi\n", 7));
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
        () = remote::spdy_session(server, "v4.channel.k8s.io", Kind::Exec, ALL, cat()) => panic!("ended early"),
    }
}

/// A pod port that echoes.
fn echo() -> forward::Connect {
    Arc::new(|port| {
        Box::pin(async move {
            if port != 80 {
                return Err("connection refused".to_owned());
            }
            let (near, far) = tokio::io::duplex(1024);
            let (mut from, mut to) = tokio::io::split(far);
            let echo = async move {
                let _copied = tokio::io::copy(&mut from, &mut to).await;
                let _closed = to.shutdown().await;
            };
            // The test's own end of the pod: it ends with the connection.
            tokio::spawn(echo);
            Ok(Box::new(near) as Box<dyn Duplex>)
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
        client.write_all(&websocket::masked(2, part)).await.unwrap();
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

/// Messages of the server until its end: opcode and payload.
async fn messages(io: &mut DuplexStream) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    let mut head = [0; 2];
    while io.read_exact(&mut head).await.is_ok() {
        let length = match head[1] {
            126 => usize::from(io.read_u16().await.unwrap()),
            short => usize::from(short),
        };
        let mut body = vec![0; length];
        io.read_exact(&mut body).await.unwrap();
        all.push((head[0] & 0x0f, body));
    }
    all
}

const CLOSED: (u8, [u8; 2]) = (8, 1000u16.to_be_bytes());

/// A command that ends without reading its standard input, of which more comes than queues hold.
#[tokio::test(start_paused = true)]
async fn unread_input_does_not_break_the_connection() {
    let (client, server) = tokio::io::duplex(1024);
    let run = remote::websocket_session(server, "v5.channel.k8s.io", Kind::Exec, ALL, says(b"", 3));
    let (mut from, mut to) = tokio::io::split(client);
    let sends = async {
        for _ in 0..1000 {
            to.write_all(&websocket::masked(2, &[0; 100])).await.expect("the session reads on");
        }
        to.write_all(&websocket::masked(8, &CLOSED.1)).await.expect("the session reads on");
        to.shutdown().await.expect("closed");
    };
    let reads = async {
        let mut all = Vec::new();
        from.read_to_end(&mut all).await.expect("not reset");
        all
    };
    let (all, (), ()) = futures::join!(reads, sends, run);
    assert!(all.windows(15).any(|w| w == b"NonZeroExitCode"), "the exit code is told");
    assert!(all.ends_with(&[0x88, 2, 0x03, 0xe8]), "and then Close");
}

/// The same over SPDY.
#[tokio::test(start_paused = true)]
async fn unread_input_does_not_break_the_session_over_spdy() {
    let (client, server) = tokio::io::duplex(1024);
    let run = remote::spdy_session(server, "v4.channel.k8s.io", Kind::Exec, ALL, says(b"", 3));
    let (mut from, mut to) = tokio::io::split(client);
    let mut opener = Opener::new();
    let sends = async {
        for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
            to.write_all(&opener.open(id, &[("streamtype", kind)])).await.expect("opened");
        }
        for _ in 0..1000 {
            to.write_all(&send(3, &[0; 100], false)).await.expect("the session reads on");
        }
        to.shutdown().await.expect("closed");
    };
    let reads = async {
        let mut all = Vec::new();
        from.read_to_end(&mut all).await.expect("not reset");
        all
    };
    let (all, (), ()) = futures::join!(reads, sends, run);
    assert!(all.windows(15).any(|w| w == b"NonZeroExitCode"), "the exit code is told");
}

/// A process that keeps what it reads until its input ends.
fn keeps(kept: tokio::sync::oneshot::Sender<Vec<u8>>) -> remote::Starter {
    Box::new(move || {
        Box::pin(async move {
            let (near, mut far) = tokio::io::duplex(8);
            tokio::spawn(async move {
                let mut all = Vec::new();
                far.read_to_end(&mut all).await.unwrap();
                kept.send(all).unwrap();
            });
            Ok(Process {
                stdin: Some(Box::new(near)),
                stdout: Some(Box::new(&b"said before"[..])),
                stderr: None,
                resize: no_terminal(),
                exit: Box::pin(std::future::pending()),
            })
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_clients_close_is_answered_and_its_input_delivered() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (kept, input) = tokio::sync::oneshot::channel();
    for part in 0..10u8 {
        client.write_all(&websocket::masked(2, &[0, part, part, part])).await.unwrap();
    }
    client.write_all(&websocket::masked(8, &CLOSED.1)).await.unwrap();
    let run = remote::websocket_session(server, "v4.channel.k8s.io", Kind::Exec, ALL, keeps(kept));
    let (all, ()) = futures::join!(messages(&mut client), run);
    let expected: Vec<u8> = (0..10u8).flat_map(|part| [part; 3]).collect();
    assert_eq!(input.await.unwrap(), expected);
    assert_eq!(all.last(), Some(&(CLOSED.0, CLOSED.1.to_vec())));
    assert_eq!(all.first(), Some(&(2, vec![1])), "an empty message opens the session");
}

#[tokio::test]
async fn an_attachment_ends_with_success() {
    for (kind, expected) in [(Kind::Attach, "Success"), (Kind::Exec, "Failure")] {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let run = remote::websocket_session(server, "v5.channel.k8s.io", kind, ALL, says(b"x", 3));
        let read = async {
            let all = messages(&mut client).await;
            drop(client);
            all
        };
        let (all, ()) = futures::join!(read, run);
        let status = all.iter().find(|(_, m)| m.first() == Some(&3)).expect("a status");
        let status: serde_json::Value = serde_json::from_slice(&status.1[1..]).unwrap();
        assert_eq!(status["status"], expected, "{kind:?}");
    }
}

#[tokio::test]
async fn a_process_that_does_not_start_is_told_by_what_was_asked_for() {
    for (kind, expected) in [(Kind::Attach, "error attaching to"), (Kind::Exec, "error executing")]
    {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let start: remote::Starter = Box::new(|| Box::pin(async { Err("gone".to_owned()) }));
        let run = remote::websocket_session(server, "v4.channel.k8s.io", kind, ALL, start);
        let read = async {
            let all = messages(&mut client).await;
            drop(client);
            all
        };
        let (all, ()) = futures::join!(read, run);
        assert!(all.iter().any(|(_, m)| String::from_utf8_lossy(m).contains(expected)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_websocket_is_refused_with_a_code() {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    // An unmasked frame.
    client.write_all(&[0x82, 1, 0]).await.unwrap();
    let run = remote::websocket_session(server, "v4.channel.k8s.io", Kind::Exec, ALL, cat());
    let (all, ()) = futures::join!(messages(&mut client), run);
    assert_eq!(all.last(), Some(&(8, 1002u16.to_be_bytes().to_vec())));
}
