//! The agent as a whole, against an API and a runtime that exist only here.

// A panic is how a test fails, and helpers are tests too.
#![allow(clippy::unwrap_used)]

mod admission;
mod api;
mod attacks;
mod authorities;
mod cgroups;
mod chaos;
mod containerd;
mod csi_driver;
mod csi_volumes;
mod device_plugin;
mod devices;
mod dra;
mod dra_driver;
mod endings;
mod fake_runtime;
mod features;
mod images;
mod isolation;
mod lifecycle;
mod placing;
mod pod_resources;
mod probes;
mod real;
mod resize;
mod shutdown;
mod statics;
mod tokens;
mod wire;
