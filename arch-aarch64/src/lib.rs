//! AArch64.
#![no_std]
#![deny(missing_docs)]

mod format;
mod granule;
mod model;

pub use format::{
    Format4K, Format16K, Format64K, NORMAL_MEMORY, NORMAL_MEMORY_INDEX, OWNED, Stage1, TAIL,
};
pub use model::{MODEL_4K, MODEL_16K, MODEL_64K};

use mm_core::paging::RadixTable;

/// A page table with 4 KiB pages, for a kernel's frames `A`, direct map `M` and MMU `U`.
pub type Table4K<A, M, U> = RadixTable<Format4K, A, M, U>;

/// A page table with 16 KiB pages, for a kernel's frames `A`, direct map `M` and MMU `U`.
pub type Table16K<A, M, U> = RadixTable<Format16K, A, M, U>;

/// A page table with 64 KiB pages, for a kernel's frames `A`, direct map `M` and MMU `U`.
pub type Table64K<A, M, U> = RadixTable<Format64K, A, M, U>;
