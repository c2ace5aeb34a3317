//! Two connections joined byte for byte.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};

use crate::{LINGER, discard};

/// Copies both ways until one side ends; the other direction then has a limited time to finish.
///
/// A side whose receiver has gone is read on and discarded for that time: if it were closed with unread
/// input, it would be reset and its peer would lose what it was just sent.
pub async fn relay<A, B>(client: A, server: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (from_client, to_client) = split(client);
    let (from_server, to_server) = split(server);
    let inward = direction(from_client, to_server);
    let outward = direction(from_server, to_client);
    tokio::pin!(inward, outward);
    let rest = tokio::select! {
        () = &mut inward => tokio::time::timeout(LINGER, outward).await,
        () = &mut outward => tokio::time::timeout(LINGER, inward).await,
    };
    if rest.is_err() {
        tracing::debug!("relayed connection: one side did not end after the other");
    }
}

async fn direction<R, W>(mut from: ReadHalf<R>, mut to: WriteHalf<W>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let copied = tokio::io::copy(&mut from, &mut to).await;
    // The receiver has the end of the stream, or is gone already.
    drop(to.shutdown().await);
    if let Err(error) = copied {
        tracing::debug!(%error, "relayed connection ended");
        discard(&mut from).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_words_of_a_side_that_closes_arrive() {
        let (mut client, near) = duplex(64);
        let (far, mut server) = duplex(64);
        let relayed = tokio::spawn(relay(near, far));
        client.write_all(b"unread").await.expect("sent");
        server.write_all(b"last").await.expect("sent");
        drop(server);
        // The client still sends when the server is gone, and only then reads.
        client.write_all(b"more").await.expect("taken and discarded");
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.expect("not reset");
        assert_eq!(all, b"last");
        drop(client);
        relayed.await.expect("ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_never_closes_is_left_after_a_while() {
        let (_client, near) = duplex(64);
        let (far, server) = duplex(64);
        let relayed = tokio::spawn(relay(near, far));
        drop(server);
        let hour = std::time::Duration::from_secs(3600);
        tokio::time::timeout(hour, relayed).await.expect("ended").expect("without a panic");
    }
}
