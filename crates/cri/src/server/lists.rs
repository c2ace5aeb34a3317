//! Statistics, and long lists in parts: a list of many may be longer than a message of gRPC.

use std::sync::Arc;

use ::runtime::RuntimeService;
use ::runtime::cri::*;
use futures::Stream;
use grpc::server::{Methods, Status};

use super::refused;
use super::runtime::ask;

/// Entries in one message of a stream.
const PART: usize = 500;

/// A list in messages of [`PART`] entries; the messages of streams have the fields of those with whole lists.
pub(super) fn parts<T, M>(
    all: Vec<T>,
    message: fn(Vec<T>) -> M,
) -> impl Stream<Item = Result<M, Status>> {
    let mut rest = all.into_iter();
    futures::stream::iter(std::iter::from_fn(move || {
        let part: Vec<T> = rest.by_ref().take(PART).collect();
        (!part.is_empty()).then(|| Ok(message(part)))
    }))
}

pub(super) fn statistics(methods: Methods, runtime: &Arc<dyn RuntimeService>) -> Methods {
    let methods = ask!(methods, runtime, "ContainerStats", |to, asked: ContainerStatsRequest| {
        let stats = to.container_stats(&asked.container_id).await.map_err(refused)?;
        Ok(ContainerStatsResponse { stats: Some(stats) })
    });
    let methods =
        ask!(methods, runtime, "ListContainerStats", |to, asked: ListContainerStatsRequest| {
            let filter = asked.filter.unwrap_or_default();
            let stats = to.list_container_stats(filter).await.map_err(refused)?;
            Ok(ListContainerStatsResponse { stats })
        });
    let methods = ask!(methods, runtime, "PodSandboxStats", |to, asked: PodSandboxStatsRequest| {
        let stats = to.pod_sandbox_stats(&asked.pod_sandbox_id).await.map_err(refused)?;
        Ok(PodSandboxStatsResponse { stats: Some(stats) })
    });
    ask!(methods, runtime, "ListPodSandboxStats", |to, asked: ListPodSandboxStatsRequest| {
        let filter = asked.filter.unwrap_or_default();
        let stats = to.list_pod_sandbox_stats(filter).await.map_err(refused)?;
        Ok(ListPodSandboxStatsResponse { stats })
    })
}

/// Adds a list in parts.
macro_rules! stream {
    ($methods:expr, $runtime:expr, $name:literal, $question:ty, $list:ident, $message:expr) => {{
        let runtime = $runtime.clone();
        $methods.streaming(
            concat!("/runtime.v1.RuntimeService/", $name),
            move |asked: $question| {
                let runtime = runtime.clone();
                async move {
                    let all = runtime.$list(asked.filter.unwrap_or_default()).await;
                    Ok(parts(all.map_err(refused)?, $message))
                }
            },
        )
    }};
}

pub(super) fn in_parts(methods: Methods, runtime: &Arc<dyn RuntimeService>) -> Methods {
    let methods = stream!(
        methods,
        runtime,
        "StreamPodSandboxes",
        ListPodSandboxRequest,
        list_pod_sandboxes,
        |items| ListPodSandboxResponse { items }
    );
    let methods = stream!(
        methods,
        runtime,
        "StreamContainers",
        ListContainersRequest,
        list_containers,
        |containers| ListContainersResponse { containers }
    );
    let methods = stream!(
        methods,
        runtime,
        "StreamContainerStats",
        ListContainerStatsRequest,
        list_container_stats,
        |stats| ListContainerStatsResponse { stats }
    );
    stream!(
        methods,
        runtime,
        "StreamPodSandboxStats",
        ListPodSandboxStatsRequest,
        list_pod_sandbox_stats,
        |stats| ListPodSandboxStatsResponse { stats }
    )
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::{PART, parts};

    #[tokio::test]
    async fn lists_come_in_parts_and_empty_ones_in_none() {
        let lengths = async |length: usize| -> Vec<usize> {
            let messages = parts(vec![(); length], |part| part.len());
            messages.map(|part| part.unwrap_or_default()).collect().await
        };
        assert_eq!(lengths(0).await, [] as [usize; 0]);
        assert_eq!(lengths(PART).await, [PART]);
        assert_eq!(lengths(2 * PART + 1).await, [PART, PART, 1]);
    }
}
