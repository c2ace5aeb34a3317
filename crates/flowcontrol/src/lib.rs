//! API priority and fairness (KEP-1040, apiserver `pkg/util/flowcontrol`): which requests are worked on now,
//! and which wait.
//!
//! A [`FlowControl`] gives each request the first flow schema that matches, and with it a priority level and a
//! flow. A level has seats; a request takes some while it is worked on. When all are taken it waits in one of
//! the level's queues, which its flow chooses by shuffle sharding, and queues are served by fair queueing: who
//! sends much waits behind their own requests. Seats that a level does not need are lent to others.

mod classify;
mod control;
mod demand;
mod lending;
mod level;
mod queues;
mod settings;
mod tally;

#[cfg(test)]
mod tests;

pub use control::{Family, FlowControl, Names, Place, Refused};
pub use level::Refusal;
