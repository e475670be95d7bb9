//! AArch64: the vmemmap in translation tables of the hardware's own format, with pages of 4, 16 or
//! 64 KiB.
//!
//! - [`Format4K`], [`Format16K`] and [`Format64K`] say what descriptors look like.
//! - [`MODEL_4K`], [`MODEL_16K`] and [`MODEL_64K`] say where the vmemmap lies.
//! - [`Tlb`] flushes translations on CPUs. [`Cpu`] executes the instructions for it.
//! - [`Choices`] says what a kernel may choose about descriptors.
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
//! # What the kernel has set up
//!
//! Duty 1 of `RadixTable::new` is about CPUs that walk the format. On every CPU that uses the tables,
//! besides TTBR1_EL1:
//!
//! 1. TCR_EL1 has T1SZ = 16, TG1 = the granule, EPD1 = 0, and inner shareable write-back walks.
//! 2. TCR_EL1.DS is 0. With DS = 1 (FEAT_LPA2) descriptors have 52 bits of output address, where these
//!    have shareability. With 64K pages and FEAT_LPA, IPS may say 52 bits: the upper address bits of
//!    these descriptors are zero. Frames beyond 48 bits are refused either way.
//! 3. TCR2_EL1, where there is one, has PIE = 0 and D128 = 0: the rights are in the descriptors, which
//!    have 64 bits.
//! 4. [`NORMAL_MEMORY`] is in field [`NORMAL_MEMORY_INDEX`] of MAIR_EL1.
//! 5. SCTLR_EL1.EE is 0.
//! 6. A kernel that hides its half of the address space from user mode chooses leaves that are
//!    [not global](Choices::not_global).
//!
//! [`check`] asks the registers of the CPU that it runs on for 1 to 5.
//!
//! Facts about the processor are from the *Arm Architecture Reference Manual for A-profile
//! architecture* (DDI 0487; below: Arm ARM). Sections are cited by their titles, since their
//! numbers change between editions.
#![no_std]
#![deny(missing_docs)]

mod break_before_make;
mod choices;
// Documentation is for every host: it does not look into functions.
#[cfg(any(target_arch = "aarch64", doc))]
mod cpu;
mod format;
mod granule;
mod model;
mod quiesce;
mod registers;
mod tlb;

pub use break_before_make::BreakBeforeMake;
pub use choices::Choices;
#[cfg(any(target_arch = "aarch64", doc))]
pub use cpu::Cpu;
pub use format::{
    Format4K, Format16K, Format64K, NORMAL_MEMORY, NORMAL_MEMORY_INDEX, OWNED, Stage1, TAIL,
};
pub use model::{MODEL_4K, MODEL_16K, MODEL_64K};
pub use quiesce::{NoQuiesce, Quiesce};
pub use registers::{Misconfigured, Registers, check};
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
