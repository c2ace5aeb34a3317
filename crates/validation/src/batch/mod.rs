//! Jobs and the schedules that make them.

mod cron;
mod indexes;
mod job;
mod policies;
mod status;

pub(crate) use cron::KIND as CRON_JOB;
pub(crate) use job::KIND as JOB;
pub use job::generate_selector;
