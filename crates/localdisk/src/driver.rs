//! The driver as a whole: its place on disk, what is under way, and how calls become work.

use std::sync::{Arc, Mutex, PoisonError};

use csi::server;
use grpc::Code;
use grpc::server::{Methods, Status};

use crate::inner::{Config, Inner};
use crate::state::State;
use crate::still;

/// The driver of one node.
#[derive(Debug, Clone)]
pub struct Driver {
    pub(crate) inner: Arc<Inner>,
}

impl Driver {
    /// Opens what is on disk, and puts right what a process that was killed left half done.
    pub fn open(config: Config) -> std::io::Result<Driver> {
        let state = State::open(&config.root)?;
        still::thaw_all(&state);
        let (under_way, room) = (Mutex::default(), Mutex::default());
        let driver = Driver { inner: Arc::new(Inner { config, state, under_way, room }) };
        driver.inner.detach_orphans();
        Ok(driver)
    }

    /// Runs work to its end on a blocking thread, alone with what it names.
    pub(crate) async fn run<A: Send + 'static>(
        &self,
        names: Vec<String>,
        work: impl FnOnce(&Inner) -> Result<A, Status> + Send + 'static,
    ) -> Result<A, Status> {
        let claim = Claim::of(&self.inner, names)?;
        let done = tokio::task::spawn_blocking(move || work(&claim.inner));
        done.await.unwrap_or_else(|_| Err(Status::new(Code::Internal, "the operation failed")))
    }
}

/// All methods of the driver.
pub fn methods(driver: &Driver) -> Methods {
    let driver = Arc::new(driver.clone());
    let methods = server::identity(server::methods(), &driver);
    let methods = server::controller(methods, &driver);
    server::node(server::group_controller(methods, &driver), &driver)
}

/// Names that one call works on; free again when it is dropped.
struct Claim {
    inner: Arc<Inner>,
    names: Vec<String>,
}

impl Claim {
    fn of(inner: &Arc<Inner>, names: Vec<String>) -> Result<Claim, Status> {
        let mut under_way = inner.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = names.iter().find(|name| under_way.contains(*name)) {
            let why = format!("an operation on {taken} is under way");
            return Err(Status::new(Code::Aborted, why));
        }
        under_way.extend(names.iter().cloned());
        drop(under_way);
        Ok(Claim { inner: inner.clone(), names })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut under_way = self.inner.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            under_way.remove(name);
        }
    }
}
