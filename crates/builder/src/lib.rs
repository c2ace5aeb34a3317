//! Images from Dockerfiles, without a daemon: stages are run with the embedded runtime, and what each
//! instruction changes becomes a layer of an image store.
//!
//! * [`Builder`] holds a store and a runtime of its own; [`Request`] is one build.
//! * `engine`: stages in order, only those that the target needs; one instruction after the other.
//! * `state`: the image so far: layers, configuration, history, arguments, and the key that names its files.
//! * `copy`: ADD and COPY, in a mount namespace of one thread, so that a killed build leaves no mount.
//! * `run`: RUN in a container; what it changed is read from the container's upper directory.
//! * `cache`: layers by the content that they were made of.
//!
//! Not done: images of other platforms than the machine's, Git repositories as sources, archives in bzip2 or
//! xz, devices of the Container Device Interface. Each is refused with a message.

mod cache;
mod copy;
mod engine;
mod error;
mod mounted;
mod output;
mod request;
mod run;
mod state;

pub use engine::Builder;
pub use error::{Error, Result};
pub use request::Request;
