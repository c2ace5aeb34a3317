//! One client API over two transports: in-process and HTTPS.
//!
//! Those who use it (controllers, scheduler, kubelet, proxy, DNS) neither know nor care who serves
//! them: a [`Transport`] carries requests and follows, [`Client`] makes them typed, [`Informer`]
//! keeps a live view, [`Queue`] and [`run_workers`] turn changes into level-triggered work.

mod client;
mod codec;
mod error;
mod event;
mod exec_plugin;
mod figures;
mod follow;
mod https;
mod informer;
mod kubeconfig;
mod lease;
mod mirror;
mod queue;
mod transport;
mod worker;

pub use client::{Client, DeleteParams, ListParams, Patch, Resource, ResourceId, percent_encode};
pub use codec::{Codec, List, to_tree};
pub use error::Error;
pub use event::{EventType, Recorder};
pub use exec_plugin::ExecPlugin;
pub use figures::figures;
pub use follow::{Follow, FollowEvent, Follower};
pub use https::{Auth, Credentials, HttpsConfig, HttpsTransport, Proof};
pub use informer::{Change, Index, IndexKey, Informer, Informers, Listing};
pub use kubeconfig::{Kubeconfig, KubeconfigError};
pub use lease::LeaderElection;
pub use queue::Queue;
pub use tasks::{Backoff, Health, Tasks};
pub use transport::{BoxFuture, Request, Response, Transport};
pub use worker::{Action, run_workers};

/// For [`codec!`].
#[doc(hidden)]
pub use api::typed::from_slice;
#[doc(hidden)]
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
#[doc(hidden)]
pub use serde_json::{Error as CodecError, Value as Tree, to_vec};
