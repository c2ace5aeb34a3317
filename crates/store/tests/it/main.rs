//! The store on a real disk: killed at random points, damaged, full, churned.

mod crash;
mod damage;
mod full_disk;
mod harness;
mod soak;
