//! Events of containers: the runtime's stream, or differences between two looks at its lists.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ::runtime::cri::*;
use ::runtime::{Code, Result, RuntimeService as _};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use grpc::Answers;

use super::runtime::method;
use super::{Client, refused};

/// Between two looks (upstream's relisting).
const LOOK: Duration = Duration::from_secs(1);

/// Sandboxes and containers by their ids.
#[derive(Debug, Default)]
struct Lists {
    sandboxes: BTreeMap<String, PodSandbox>,
    containers: BTreeMap<String, Container>,
}

/// What happened between two looks. The statuses in it tell what lists tell: ids, names, labels, states.
fn differences(before: &Lists, now: &Lists) -> VecDeque<ContainerEventResponse> {
    use ContainerEventType::{Created, Deleted, Started, Stopped};
    let mut events = VecDeque::new();
    for (id, sandbox) in &now.sandboxes {
        let ready = |s: &PodSandbox| s.state == PodSandboxState::Ready as i32;
        let kind = match (before.sandboxes.get(id).map(ready), ready(sandbox)) {
            (None | Some(false), true) => Started,
            (Some(true), false) => Stopped,
            _ => continue,
        };
        events.push_back(event(now, id, id, kind));
    }
    for (id, container) in &now.containers {
        let was = before.containers.get(id).map(|c| c.state);
        if was == Some(container.state) {
            continue;
        }
        let kind = match container.state() {
            ContainerState::Created => Created,
            ContainerState::Running => Started,
            ContainerState::Exited | ContainerState::Unknown => Stopped,
        };
        events.push_back(event(now, id, &container.pod_sandbox_id, kind));
    }
    for (id, container) in &before.containers {
        if !now.containers.contains_key(id) {
            // The labels of what has gone are those that it had.
            let mut gone = event(now, id, &container.pod_sandbox_id, Deleted);
            gone.containers_statuses.push(status(container));
            events.push_back(gone);
        }
    }
    for id in before.sandboxes.keys().filter(|id| !now.sandboxes.contains_key(*id)) {
        events.push_back(event(before, id, id, Deleted));
    }
    events
}

fn event(
    lists: &Lists,
    id: &str,
    sandbox: &str,
    kind: ContainerEventType,
) -> ContainerEventResponse {
    let own = lists.containers.values().filter(|c| c.pod_sandbox_id == sandbox);
    let sandbox = lists.sandboxes.get(sandbox).cloned();
    ContainerEventResponse {
        container_id: id.to_owned(),
        container_event_type: kind as i32,
        created_at: 0,
        pod_sandbox_status: sandbox.map(|s| PodSandboxStatus {
            id: s.id,
            metadata: s.metadata,
            state: s.state,
            created_at: s.created_at,
            labels: s.labels,
            annotations: s.annotations,
            runtime_handler: s.runtime_handler,
            ..PodSandboxStatus::default()
        }),
        containers_statuses: own.map(status).collect(),
    }
}

fn status(container: &Container) -> ContainerStatus {
    let Container { id, metadata, image, image_ref, state, created_at, labels, .. } =
        container.clone();
    ContainerStatus {
        id,
        metadata,
        image,
        image_ref,
        state,
        created_at,
        labels,
        annotations: container.annotations.clone(),
        ..ContainerStatus::default()
    }
}

enum Source {
    /// The runtime's own stream; and the lists to go on with if it turns out that there is none.
    Stream(Box<Answers<ContainerEventResponse>>, Lists),
    Lists(Lists, VecDeque<ContainerEventResponse>),
}

impl Client {
    async fn lists(&self) -> Result<Lists> {
        let sandboxes = self.list_pod_sandboxes(PodSandboxFilter::default()).await?;
        let containers = self.list_containers(ContainerFilter::default()).await?;
        Ok(Lists {
            sandboxes: sandboxes.into_iter().map(|s| (s.id.clone(), s)).collect(),
            containers: containers.into_iter().map(|c| (c.id.clone(), c)).collect(),
        })
    }

    /// Events from now on.
    pub(super) async fn follow(
        &self,
    ) -> Result<BoxStream<'static, Result<ContainerEventResponse>>> {
        let path = method!("GetContainerEvents");
        let opened = self.inner.slow.stream(path, &GetEventsRequest {}).await;
        // What differs from these is told when the runtime has no stream; many say so with its first answer.
        let now = self.lists().await?;
        let source = match opened {
            Ok(answers) => Source::Stream(Box::new(answers), now),
            Err(error) => match refused(path, error) {
                error if error.code() == Code::Unimplemented => Source::Lists(now, VecDeque::new()),
                error => return Err(error),
            },
        };
        let start = Some((self.clone(), source));
        Ok(futures::stream::unfold(start, next).boxed())
    }
}

type State = Option<(Client, Source)>;

/// The next event; an error is the last item.
async fn next(state: State) -> Option<(Result<ContainerEventResponse>, State)> {
    let (client, mut source) = state?;
    loop {
        match &mut source {
            Source::Stream(answers, lists) => match answers.next().await {
                Ok(Some(event)) => return Some((Ok(event), Some((client, source)))),
                Ok(None) => return None,
                Err(error) => match refused(method!("GetContainerEvents"), error) {
                    error if error.code() == Code::Unimplemented => {
                        source = Source::Lists(std::mem::take(lists), VecDeque::new());
                    }
                    error => return Some((Err(error), None)),
                },
            },
            Source::Lists(before, ready) => {
                if let Some(event) = ready.pop_front() {
                    return Some((Ok(event), Some((client, source))));
                }
                tokio::time::sleep(LOOK).await;
                match client.lists().await {
                    Ok(now) => {
                        *ready = differences(before, &now);
                        *before = now;
                    }
                    Err(error) => return Some((Err(error), None)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(
        sandboxes: &[(&str, PodSandboxState)],
        containers: &[(&str, ContainerState)],
    ) -> Lists {
        let sandbox = |(id, state): &(&str, PodSandboxState)| {
            let (id, state) = ((*id).to_owned(), *state as i32);
            (id.clone(), PodSandbox { id, state, ..PodSandbox::default() })
        };
        let container = |(id, state): &(&str, ContainerState)| {
            let labels = BTreeMap::from([("of".to_owned(), (*id).to_owned())]);
            let (id, state) = ((*id).to_owned(), *state as i32);
            let pod_sandbox_id = "s".to_owned();
            (id.clone(), Container { id, state, labels, pod_sandbox_id, ..Container::default() })
        };
        Lists {
            sandboxes: sandboxes.iter().map(sandbox).collect(),
            containers: containers.iter().map(container).collect(),
        }
    }

    #[test]
    fn events_are_what_differs() {
        use ContainerEventType::{Created, Deleted, Started, Stopped};
        use ContainerState as C;
        use PodSandboxState as S;
        let empty = Lists::default();
        let made = lists(&[("s", S::Ready)], &[("a", C::Created), ("b", C::Running)]);
        let later = lists(&[("s", S::Notready)], &[("a", C::Exited), ("b", C::Running)]);
        let told = |before: &Lists, now: &Lists| -> Vec<(String, i32)> {
            let events = differences(before, now).into_iter();
            events.map(|e| (e.container_id, e.container_event_type)).collect()
        };
        let want = |list: &[(&str, ContainerEventType)]| -> Vec<(String, i32)> {
            list.iter().map(|(id, kind)| ((*id).to_owned(), *kind as i32)).collect()
        };
        assert_eq!(told(&empty, &made), want(&[("s", Started), ("a", Created), ("b", Started)]));
        assert_eq!(told(&made, &made), []);
        assert_eq!(told(&made, &later), want(&[("s", Stopped), ("a", Stopped)]));
        assert_eq!(told(&later, &empty), want(&[("a", Deleted), ("b", Deleted), ("s", Deleted)]));
        let gone = differences(&later, &empty);
        assert_eq!(gone[0].containers_statuses[0].labels["of"], "a", "its pod can be found");
    }
}
