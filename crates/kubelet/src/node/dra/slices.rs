//! ResourceSlices of a driver that is gone are taken away, so that no pod is scheduled for its devices.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Request, percent_encode};
use futures::future::{AbortHandle, Abortable};
use http::Method;

use super::Dra;

/// Time for a driver to come back (upstream's `defaultWipingDelay`).
const DELAY: Duration = Duration::from_secs(30);
/// Waits before the API is asked again, doubling.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(5 * 60);
/// Time for one request.
const DEADLINE: Duration = Duration::from_secs(30);

/// Deletes the node's slices, of one driver or (with an empty name) of all.
pub(super) async fn wipe(client: &Client, node: &str, driver: &str) {
    let mut selector = format!("spec.nodeName={node}");
    if !driver.is_empty() {
        selector += &format!(",spec.driver={driver}");
    }
    let target = format!(
        "/apis/resource.k8s.io/v1/resourceslices?fieldSelector={}",
        percent_encode(&selector)
    );
    let mut wait = RETRY_FIRST;
    loop {
        let request = Request {
            method: Method::DELETE,
            target: target.clone(),
            content_type: None,
            body: Bytes::new(),
        };
        match tokio::time::timeout(DEADLINE, client.call(request)).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) if error.is_not_found() => return,
            Ok(Err(error)) => tracing::debug!(driver, %error, "ResourceSlices not deleted"),
            Err(_) => tracing::debug!(driver, "ResourceSlices not deleted in time"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

impl Dra {
    /// A plugin of the driver came, went, or lost its connection.
    pub(super) fn follow_slices(self: &Arc<Self>, driver: &str) {
        let mut wipes = super::lock(&self.wipes);
        if self.plugins.is_usable(driver) {
            if let Some(pending) = wipes.remove(driver) {
                pending.abort();
            }
            return;
        }
        // One that is pending keeps its time.
        if wipes.contains_key(driver) {
            return;
        }
        let (abort, registration) = AbortHandle::new_pair();
        wipes.insert(driver.to_owned(), abort);
        drop(wipes);
        let (dra, driver) = (self.clone(), driver.to_owned());
        let work = async move {
            tokio::time::sleep(DELAY).await;
            wipe(&dra.client, &dra.node, &driver).await;
            super::lock(&dra.wipes).remove(&driver);
        };
        let work = Abortable::new(work, registration);
        self.tasks.spawn("DRA driver cleanup", async move {
            // The driver has come back.
            let _aborted = work.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use client::{BoxFuture, Error, Follow, Follower, Response, Tasks, Transport};

    use super::super::plugins::{DraPlugin, choose};
    use super::*;

    /// Notes what is deleted; the first request fails.
    #[derive(Clone, Default)]
    struct Api(Arc<Mutex<Vec<String>>>);

    impl Transport for Api {
        fn call(&self, request: Request) -> BoxFuture<'_, Result<Response, Error>> {
            let mut all = self.0.lock().unwrap();
            all.push(format!("{} {}", request.method, request.target));
            let failed = all.len() == 1;
            Box::pin(async move {
                match failed {
                    true => Err(Error::from(api::Status::internal("not now"))),
                    false => Ok(Response { code: http::StatusCode::OK, body: Bytes::new() }),
                }
            })
        }

        fn follow(&self, _: Follow) -> Follower {
            Follower::channel().1
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slices_of_a_driver_that_does_not_come_back_are_deleted() {
        let (api, dir) = (Api::default(), tempfile::tempdir().unwrap());
        let client = Client::new(Arc::new(api.clone()));
        let dra = Dra::open(dir.path(), "n1", client, Tasks::new()).unwrap();
        let service = choose("d", "/s", &["v1.DRAPlugin".to_owned()]).unwrap();
        let took = dra.figures.calls.clone();
        let plugin = Arc::new(DraPlugin::new("d", "/s", service, took));
        dra.plugins.add(plugin.clone()).unwrap();
        // It comes back in time.
        dra.follow_slices("d");
        tokio::time::sleep(Duration::from_secs(29)).await;
        plugin.set_connected(true);
        dra.follow_slices("d");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(api.0.lock().unwrap().is_empty());
        // It does not; one more word of that changes nothing.
        plugin.set_connected(false);
        dra.follow_slices("d");
        tokio::time::sleep(Duration::from_secs(20)).await;
        dra.follow_slices("d");
        tokio::time::sleep(Duration::from_secs(12)).await;
        let target = "DELETE /apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dn1%2Cspec.driver%3Dd";
        assert_eq!(*api.0.lock().unwrap(), [target, target], "tried until it is done");
        wipe(&dra.client, "n1", "").await;
        assert!(api.0.lock().unwrap()[2].ends_with("=spec.nodeName%3Dn1"));
    }
}
