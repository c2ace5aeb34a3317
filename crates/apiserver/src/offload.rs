//! Long computations leave the async workers: others' requests go on meanwhile.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Bytes of input from which a computation is worth moving: about a millisecond's work.
pub(crate) const LARGE: usize = 64 * 1024;

/// Runs `work` here, with the other tasks of this worker moved to another thread.
pub(crate) fn offload<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // A runtime of one thread, as tests have, has nowhere to move them.
        _ => work(),
    }
}

/// The same, where the input is large enough for it to pay.
pub(crate) fn offload_large<T>(size: usize, work: impl FnOnce() -> T) -> T {
    if size >= LARGE { offload(work) } else { work() }
}

/// Completes a request of `size` bytes; a large one away from the async workers, all of it.
pub(crate) async fn run_large<F: Future>(size: usize, work: F) -> F::Output {
    match Handle::try_current() {
        Ok(handle) if size >= LARGE && handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| handle.block_on(work))
        }
        _ => work.await,
    }
}
