//! The in-process transport: the same pipeline, admission and authorisation as anyone, without
//! sockets; follows read the store's own objects.

use std::sync::Arc;

use api::Status;
use auth::{Attributes, User};
use bytes::Bytes;
use client::{
    BoxFuture, Error, Follow, FollowEvent, Follower, Request, Response, Tasks, Transport,
};
use http_body_util::{BodyExt, Full};
use store::{Collection, Event};
use tokio::sync::mpsc::Sender;

use crate::server::Server;
use resources::verbs::list::Filter;

/// One in-process client's identity.
#[derive(Debug, Clone)]
pub struct Local {
    server: Server,
    user: User,
    agent: String,
    tasks: Tasks,
}

impl Local {
    /// `agent` is the default field manager; follows run in `tasks`.
    pub fn new(server: Server, user: User, agent: &str, tasks: Tasks) -> Local {
        Local { server, user, agent: agent.to_owned(), tasks }
    }

    async fn request(&self, request: Request) -> Result<Response, Error> {
        let target = request.target.clone();
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Transport {
            target: target.clone(),
            source,
        };
        let built = http::Request::builder()
            .method(request.method)
            .uri(request.target)
            .header("user-agent", &self.agent)
            .header("content-type", request.content_type.unwrap_or("application/json"))
            .body(Full::new(request.body))
            .map_err(|e| failed(e.into()))?;
        let response = self.server.serve_as(self.user.clone(), built).await;
        let code = response.status();
        let body = match response.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(never) => match never {},
        };
        if code.is_success() {
            return Ok(Response { code, body });
        }
        let unreadable = |_| Status::failure(code.as_u16(), "", String::from_utf8_lossy(&body));
        Err(Error::Api(Box::new(serde_json::from_slice(&body).unwrap_or_else(unreadable))))
    }

    /// What a follow reads, if it may.
    async fn open(&self, follow: &Follow) -> Result<Source, Status> {
        let inner = &self.server.parts;
        let found = inner.resources.find((&follow.group, &follow.version, &follow.resource), "");
        let (row, _) = found.ok_or_else(Status::no_such_path)?;
        let filter = Filter::parse(&follow.label_selector, &follow.field_selector, row);
        let filter = filter.map_err(Status::bad_request)?;
        let attributes = Attributes {
            verb: "watch",
            group: row.group,
            resource: row.name,
            namespace: &follow.namespace,
            ..Attributes::default()
        };
        let asked = attributes.selecting(filter.fields());
        inner
            .identity
            .authorizer
            .authorize(&self.user, &asked)
            .await
            .require(&self.user, &asked)?;
        let prefix = if follow.namespace.is_empty() {
            String::new()
        } else {
            format!("{}/", follow.namespace)
        };
        Ok(Source { collection: inner.resources.collection(row), filter, prefix })
    }
}

/// Pause before asking again for what was refused: rights may come with a later role.
const REFUSED_DELAY: std::time::Duration = std::time::Duration::from_secs(1);

impl Transport for Local {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response, Error>> {
        Box::pin(self.request(request))
    }

    fn follow(&self, follow: Follow) -> Follower {
        let (sender, follower) = Follower::channel();
        let local = self.clone();
        self.tasks.spawn("local follow", async move {
            while !sender.is_closed() {
                match local.open(&follow).await {
                    Ok(source) => source.run(&sender).await,
                    Err(status) => {
                        tracing::warn!(resource = follow.resource, %status, "follow refused");
                        tokio::time::sleep(REFUSED_DELAY).await;
                    }
                }
            }
        });
        follower
    }
}

struct Source {
    collection: Arc<Collection>,
    filter: Filter,
    prefix: String,
}

impl Source {
    /// Follows until nobody listens or the log has gone past: then the caller starts over.
    async fn run(&self, sender: &Sender<FollowEvent>) {
        let page = self.collection.list_by(
            self.filter.indexed(),
            (&self.prefix, None),
            0,
            usize::MAX,
            &|o| self.filter.matches(o),
        );
        let Ok(page) = page else { return };
        let Ok(mut watcher) = self.collection.watch(page.revision) else { return };
        let mut batch = vec![FollowEvent::Reset];
        batch.extend(page.objects.into_iter().map(FollowEvent::Put));
        batch.push(FollowEvent::Synced(page.revision));
        loop {
            for event in batch {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
            let events = tokio::select! {
                events = watcher.next() => events,
                () = sender.closed() => return,
            };
            let Ok(events) = events else { return };
            batch = events.iter().filter_map(|e| self.seen(e)).collect();
        }
    }

    fn seen(&self, event: &Event) -> Option<FollowEvent> {
        if !event.key.starts_with(&self.prefix) {
            return None;
        }
        let before = event.old.as_ref().filter(|o| self.filter.matches(o));
        match event.new.as_ref().filter(|o| self.filter.matches(o)) {
            Some(new) => Some(FollowEvent::Put(new.clone())),
            None => before.map(|old| FollowEvent::Delete(old.clone())),
        }
    }
}

impl Local {
    /// A JSON request's body, for the server's own writes.
    pub(crate) fn body(value: &serde_json::Value) -> Bytes {
        Bytes::from(value.to_string())
    }
}
