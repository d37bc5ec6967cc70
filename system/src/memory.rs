//! The allocator, and how it gives free memory back to the system: by themselves, the C library's and mimalloc keep nearly all of it.
//!
//! Input: calls of [`give_back`], and of [`before_sleep`] by each thread that allocates. Output: a smaller process.

#[cfg(target_env = "musl")]
pub use mimalloc::MiMalloc as Allocator;

#[cfg(target_env = "musl")]
mod rounds {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU64, Ordering};

    static NEWEST: AtomicU64 = AtomicU64::new(0);

    thread_local! {
        static DONE: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) fn begin() {
        NEWEST.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this thread has not taken part in the newest round. It counts as having taken part afterwards.
    pub(super) fn take_part() -> bool {
        let newest = NEWEST.load(Ordering::Relaxed);
        DONE.replace(newest) != newest
    }
}

/// Gives free memory back to the system. May take some milliseconds, during which other threads wait when they allocate.
///
/// With mimalloc, memory belongs to the thread that allocated it: each gives back its own when it calls [`before_sleep`].
pub fn give_back() {
    #[cfg(target_env = "musl")]
    rounds::begin();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: any thread may call it at any time; it takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// For a thread that is going to wait for work: gives its free memory back after [`give_back`].
pub fn before_sleep() {
    #[cfg(target_env = "musl")]
    if rounds::take_part() {
        // SAFETY: any thread may call it at any time; it concerns the heap of this thread.
        unsafe {
            libmimalloc_sys::mi_collect(true);
        }
    }
}
