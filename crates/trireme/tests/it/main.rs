//! The product as a user sees it: a real cluster, real containers, a real kubectl.

mod busybox;
mod cluster;
mod etcd;
mod harness;
mod roles;
mod workloads;
