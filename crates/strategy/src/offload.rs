//! Long computations leave the async workers: others' requests go on meanwhile.

use std::sync::{Mutex, OnceLock, PoisonError};

use api::limits::TREE_MAX;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Bytes of input from which a computation is worth moving: about a millisecond's work.
const LARGE: usize = 64 * 1024;

static RELEASE: OnceLock<fn()> = OnceLock::new();

/// Sets how the calling thread gives free memory back to the kernel; called after large computations.
/// Allocators keep what a thread has freed for its next allocation, and such a thread has none for long.
/// The first setting holds.
pub fn release_memory_by(release: fn()) {
    RELEASE.get_or_init(|| release);
}

fn release_memory() {
    if let Some(release) = RELEASE.get() {
        release();
    }
}

/// Gives memory that large computations left back to the kernel.
pub fn give_back() {
    release_memory();
}

/// Whether a request of `size` bytes of text that may take `weight` bytes of memory is worth moving.
pub fn is_large(size: usize, weight: usize) -> bool {
    size >= LARGE || weight >= TREE_MAX
}

/// Runs `work` here, with the other tasks of this worker moved to another thread.
pub fn offload<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(|| {
            let done = work();
            release_memory();
            done
        }),
        // A runtime of one thread, as tests have, has nowhere to move them.
        _ => work(),
    }
}

/// The same, where the input is large enough for it to pay.
pub fn offload_large<T>(size: usize, work: impl FnOnce() -> T) -> T {
    if size >= LARGE { offload(work) } else { work() }
}

/// The same for an item of a list that is being sent, for which no room can be waited for: one large item
/// at a time in the whole process.
pub fn one_large<T>(size: usize, work: impl FnOnce() -> T) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    offload_large(size, || {
        let _turn = (size >= LARGE).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
        work()
    })
}

/// Completes a request; a large one away from the async workers, all of it.
pub async fn run<F: Future>(is_large: bool, work: F) -> F::Output {
    match Handle::try_current() {
        Ok(handle) if is_large && handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            offload(|| handle.block_on(work))
        }
        _ => work.await,
    }
}
