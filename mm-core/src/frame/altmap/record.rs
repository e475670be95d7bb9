//! What a vmemmap remembers of an altmap, in memory of the altmap.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

/// Memory in which the vmemmap that uses an [`Altmap`](super::Altmap) remembers the altmap.
///
/// There is no heap, and there may be thousands of altmaps. So each brings the memory that it takes
/// to be remembered. The contents are the library's alone.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct AltmapRecord {
    /// How many frames the vmemmap has taken and not released.
    pub(crate) out: AtomicU64,
    /// The reserved frames: the first one, and how many.
    pub(crate) start: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) count_frames: AtomicU64,
    pub(crate) node: AtomicU32,
    /// Records of altmaps that lie below and above in memory, in a search tree.
    pub(crate) below: AtomicPtr<AltmapRecord>,
    pub(crate) above: AtomicPtr<AltmapRecord>,
}

static_assertions::const_assert!(size_of::<AltmapRecord>() as u64 == AltmapRecord::BYTES);

impl AltmapRecord {
    /// The size in bytes.
    pub const BYTES: u64 = 64;

    /// The record of an altmap that no vmemmap uses yet.
    pub const fn new() -> Self {
        Self {
            out: AtomicU64::new(0),
            start: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            count_frames: AtomicU64::new(0),
            node: AtomicU32::new(0),
            below: AtomicPtr::new(core::ptr::null_mut()),
            above: AtomicPtr::new(core::ptr::null_mut()),
        }
    }
}
