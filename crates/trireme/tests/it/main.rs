//! The product as a user sees it: a real cluster, real containers, a real kubectl.

mod attack_host;
mod attack_volumes;
mod background;
mod busybox;
mod clients;
mod cluster;
mod commands;
mod controllers;
mod etcd;
mod figures;
mod ground;
mod harness;
mod metrics;
mod netns;
mod roles;
mod standalone;
mod terminal;
mod vm;
mod vm_power;
mod workloads;
