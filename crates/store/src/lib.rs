//! Revisioned objects: an ordered, watchable map in memory over a durable engine.
//!
//! One read primitive: *the state at revision R, and then exactly the events after R*. A
//! [`Collection`] answers both from memory; an [`Engine`] makes acknowledged writes survive. All
//! writes pass one writer thread, which gives each its revision and lets concurrent ones share a
//! single flush. What a Pod is, this crate does not know.

mod collection;
mod encrypted;
mod engine;
mod etcd;
mod log;
mod shelf;
mod store;
mod transformer;
mod writer;

pub use collection::{Collection, CollectionSpec, Event, Expired, Page, Watcher};
pub use engine::{Engine, EngineError, MemoryEngine, Record, Room};
pub use etcd::EtcdOptions;
pub use log::LogEngine;
pub use store::{Expect, Store, Write, WriteError};
pub use transformer::{ENCRYPTED, Form, Kept, Opened, Place, Stamp, Transformer};
