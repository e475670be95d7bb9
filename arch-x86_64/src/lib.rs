//! x86-64: the vmemmap in page tables of the hardware's own format.
//!
//! - [`FourLevel`] and [`FiveLevel`] say what entries look like.
//! - [`MODEL_4_LEVEL`] and [`MODEL_5_LEVEL`] say where descriptors lie.
//! - [`Tlb`] flushes translations on CPUs. `Cpu` executes the instructions for it. A kernel adds how it
//!   reaches its other CPUs ([`Shootdown`]).
//!
//! A kernel that uses this library's page tables combines them:
//!
//! ```
//! use arch_x86_64::{FourLevelTable, Shootdown, Tlb, TlbInstructions};
//! use mm_core::addr::Pfn;
//! use mm_core::frame::{DirectMap, FrameAllocator};
//! use mm_core::paging::Roots;
//!
//! /// The vmemmap's page table. Where address spaces share one upper half, `roots` is
//! /// `unsafe { OneRoot::new() }`.
//! ///
//! /// # Safety
//! ///
//! /// As for `RadixTable::new`.
//! unsafe fn vmemmap_table<A, M, I, S, R>(
//!     root: Pfn,
//!     roots: R,
//!     frames: A,
//!     direct_map: M,
//!     cpu: I, // `unsafe { Cpu::new() }` in ring 0
//!     other_cpus: S,
//! ) -> FourLevelTable<A, M, Tlb<I, S>, R>
//! where
//!     A: FrameAllocator,
//!     M: DirectMap,
//!     I: TlbInstructions + Sync,
//!     S: Shootdown,
//!     R: Roots,
//! {
//!     // SAFETY: the caller's duties are the same.
//!     unsafe { FourLevelTable::new(root, roots, frames, direct_map, Tlb::new(cpu, other_cpus)) }
//! }
//! ```
//!
//! Facts about the processor are from the *Intel 64 and IA-32 Architectures Software Developer's
//! Manual* (below: SDM), volume 3A, chapter "Paging". Sections are cited by their titles, since
//! their numbers change between editions.
#![no_std]
#![deny(missing_docs)]

#[cfg(target_arch = "x86_64")]
mod cpu;
mod format;
mod model;
mod tlb;

#[cfg(target_arch = "x86_64")]
pub use cpu::Cpu;
pub use format::{FiveLevel, FourLevel, LongMode, LongModeFormat, OWNED, TAIL};
pub use model::{MODEL_4_LEVEL, MODEL_5_LEVEL};
pub use tlb::{INVLPG_LIMIT, Shootdown, SingleCpu, Tlb, TlbInstructions};

use mm_core::paging::{OneRoot, RadixTable};

/// A page table of 4 levels, for a kernel's frames `A`, direct map `M`, MMU `U` and other roots `R`.
pub type FourLevelTable<A, M, U, R = OneRoot> = RadixTable<FourLevel, A, M, U, R>;

/// A page table of 5 levels, for a kernel's frames `A`, direct map `M`, MMU `U` and other roots `R`.
pub type FiveLevelTable<A, M, U, R = OneRoot> = RadixTable<FiveLevel, A, M, U, R>;
