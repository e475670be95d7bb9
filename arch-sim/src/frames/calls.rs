//! How often an allocator was called.

/// Calls of each method of a [`FrameAllocator`](mm_core::frame::FrameAllocator), those that failed
/// included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocatorCalls {
    /// `allocate` and `allocate_run`.
    pub allocate: u64,
    /// `acquire`.
    pub acquire: u64,
    /// `release`, `release_run` and `release_each`.
    pub release: u64,
    /// `free`.
    pub free: u64,
    /// `keep`.
    pub keep: u64,
    /// `split`.
    pub split: u64,
}

impl AllocatorCalls {
    /// The calls since there were `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            allocate: self.allocate - before.allocate,
            acquire: self.acquire - before.acquire,
            release: self.release - before.release,
            free: self.free - before.free,
            keep: self.keep - before.keep,
            split: self.split - before.split,
        }
    }
}
