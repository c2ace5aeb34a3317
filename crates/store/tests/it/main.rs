//! The store on a real disk: killed at random points, damaged, full, churned; and on a real etcd.

mod crash;
mod damage;
mod encrypted;
mod etcd;
mod etcd_server;
mod full_disk;
mod harness;
mod soak;
