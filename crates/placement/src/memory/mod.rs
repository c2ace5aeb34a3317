//! The memory manager: containers of guaranteed pods get memory and huge pages of certain NUMA nodes.

mod policy;
mod reserved;
mod state;

#[cfg(test)]
mod tests;

pub(crate) use policy::MemoryManager;
pub use reserved::Reservation;
pub(crate) use reserved::check as check_reserved;
pub use state::Block;
