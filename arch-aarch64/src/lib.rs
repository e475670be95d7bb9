//! AArch64: the vmemmap in translation tables of the hardware's own format, with pages of 4, 16 or
//! 64 KiB.
//!
//! - [`Format4K`], [`Format16K`] and [`Format64K`] say what descriptors look like.
//! - [`MODEL_4K`], [`MODEL_16K`] and [`MODEL_64K`] say where the vmemmap lies.
//! - [`Tlb`] flushes translations on CPUs. `Cpu` executes the instructions for it.
//! - [`BreakBeforeMake`] says what may be changed in place. Nothing here depends on it.
//!
//! A kernel that uses this library's translation tables combines them, below the root in TTBR1:
//!
//! ```
//! use arch_aarch64::{Format16K, Table16K, Tlb, TlbInstructions};
//! use mm_core::addr::Pfn;
//! use mm_core::frame::{DirectMap, FrameAllocator};
//! use mm_core::paging::OneRoot;
//!
//! /// The vmemmap's page table of a kernel with 16 KiB pages.
//! ///
//! /// # Safety
//! ///
//! /// As for `RadixTable::new`.
//! unsafe fn vmemmap_table<A, M, I>(
//!     root: Pfn,
//!     one_root: OneRoot, // `unsafe { OneRoot::new() }`: every CPU's TTBR1 names `root`
//!     frames: A,
//!     direct_map: M,
//!     cpu: I, // `unsafe { Cpu::new() }` at EL1
//! ) -> Table16K<A, M, Tlb<Format16K, I>>
//! where
//!     A: FrameAllocator,
//!     M: DirectMap,
//!     I: TlbInstructions,
//! {
//!     // SAFETY: the caller's duties are the same.
//!     unsafe { Table16K::new(root, one_root, frames, direct_map, Tlb::new(cpu)) }
//! }
//! ```
//!
//! Besides TTBR1_EL1, the kernel has set up:
//!
//! - TCR_EL1 with T1SZ = 16, TG1 = the granule, DS = 0, and inner shareable write-back walks;
//! - TCR2_EL1, where there is one, with PIE = 0 and D128 = 0, since the rights are in the descriptors
//!   and these have 64 bits;
//! - [`NORMAL_MEMORY`] in field [`NORMAL_MEMORY_INDEX`] of MAIR_EL1.
//!
//! Facts about the processor are from the *Arm Architecture Reference Manual for A-profile
//! architecture* (DDI 0487; below: Arm ARM). Sections are cited by their titles, since their
//! numbers change between editions.
#![no_std]
#![deny(missing_docs)]

mod break_before_make;
#[cfg(target_arch = "aarch64")]
mod cpu;
mod format;
mod granule;
mod model;
mod quiesce;
mod tlb;

pub use break_before_make::BreakBeforeMake;
#[cfg(target_arch = "aarch64")]
pub use cpu::Cpu;
pub use format::{
    Format4K, Format16K, Format64K, NORMAL_MEMORY, NORMAL_MEMORY_INDEX, OWNED, Stage1, TAIL,
};
pub use model::{MODEL_4K, MODEL_16K, MODEL_64K};
pub use quiesce::{NoQuiesce, Quiesce};
pub use tlb::{PageOperand, TLBI_LIMIT, Tlb, TlbInstructions};

use mm_core::paging::{OneRoot, RadixTable};

/// A page table with 4 KiB pages, for a kernel's frames `A`, direct map `M`, MMU `U`
/// and other roots `R`.
pub type Table4K<A, M, U, R = OneRoot> = RadixTable<Format4K, A, M, U, R>;

/// A page table with 16 KiB pages, for a kernel's frames `A`, direct map `M`, MMU `U`
/// and other roots `R`.
pub type Table16K<A, M, U, R = OneRoot> = RadixTable<Format16K, A, M, U, R>;

/// A page table with 64 KiB pages, for a kernel's frames `A`, direct map `M`, MMU `U`
/// and other roots `R`.
pub type Table64K<A, M, U, R = OneRoot> = RadixTable<Format64K, A, M, U, R>;
