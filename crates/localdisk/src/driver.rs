//! The driver as a whole: its place on disk, what is under way, and how calls become work.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use csi::server;
use grpc::Code;
use grpc::server::{Methods, Status};

use crate::state::State;

/// What a driver is made with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where volumes and snapshots are.
    pub root: PathBuf,
    /// The name of the node, which is its id, too.
    pub node: String,
    /// Volumes that may be published to the node at once; 0 for no limit.
    pub volumes_max: i64,
    /// The version that the driver tells.
    pub version: String,
}

/// The driver of one node.
#[derive(Debug, Clone)]
pub struct Driver {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) state: State,
    /// Volumes, snapshots and names that calls are working on.
    under_way: Mutex<BTreeSet<String>>,
    /// Held while room is looked for and taken.
    pub(crate) room: Mutex<()>,
}

impl Driver {
    /// Opens what is on disk, and puts right what a process that was killed left half done.
    pub fn open(config: Config) -> std::io::Result<Driver> {
        let state = State::open(&config.root)?;
        crate::node::thaw_all(&state);
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

pub(crate) fn volume_claim(id: &str) -> String {
    format!("volume {id}")
}

pub(crate) fn snapshot_claim(id: &str) -> String {
    format!("snapshot {id}")
}

/// Says what failed, in an error that the caller may try again.
pub(crate) fn internal(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Status {
    move |error| {
        let code = match error.kind() {
            std::io::ErrorKind::StorageFull => Code::ResourceExhausted,
            _ => Code::Internal,
        };
        Status::new(code, format!("{what}: {error}"))
    }
}

pub(crate) fn invalid(why: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, why)
}

pub(crate) fn not_found(what: &str, id: &str) -> Status {
    Status::new(Code::NotFound, format!("{what} {id:?} not found"))
}

/// Refuses an empty field by its name.
pub(crate) fn required(field: &str, value: &str) -> Result<(), Status> {
    match value.is_empty() {
        true => Err(invalid(format!("{field} is missing in the request"))),
        false => Ok(()),
    }
}
