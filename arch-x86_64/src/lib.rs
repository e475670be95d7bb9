//! x86-64: the vmemmap in page tables of the hardware's own format.
//!
//! - [`FourLevel`] and [`FiveLevel`] say what entries look like.
//! - [`MODEL_4_LEVEL`] and [`MODEL_5_LEVEL`] say where descriptors lie.
//! - [`Tlb`] flushes translations on CPUs. `Cpu` executes the instructions for it. A kernel adds how it
//!   reaches its other CPUs ([`Shootdown`]) and its other root tables ([`Roots`]).
//!
//! A kernel that uses this library's page tables combines them:
//!
//! ```
//! use arch_x86_64::{FourLevelTable, OneRoot, Shootdown, Tlb, TlbInstructions};
//! use mm_core::addr::Pfn;
//! use mm_core::frame::{DirectMap, FrameAllocator};
//!
//! /// The vmemmap's page table of a kernel whose address spaces share one upper half.
//! ///
//! /// # Safety
//! ///
//! /// As for `RadixTable::new`.
//! unsafe fn vmemmap_table<A, M, I, S>(
//!     root: Pfn,
//!     frames: A,
//!     direct_map: M,
//!     cpu: I, // `unsafe { Cpu::new() }` in ring 0
//!     other_cpus: S,
//! ) -> FourLevelTable<A, M, Tlb<I, S, OneRoot>>
//! where
//!     A: FrameAllocator,
//!     M: DirectMap,
//!     I: TlbInstructions + Sync,
//!     S: Shootdown,
//! {
//!     // SAFETY: the caller's duties are the same.
//!     unsafe { FourLevelTable::new(root, frames, direct_map, Tlb::new(cpu, other_cpus, OneRoot)) }
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
pub use tlb::{INVLPG_LIMIT, OneRoot, Roots, Shootdown, SingleCpu, Tlb, TlbInstructions};

use mm_core::paging::RadixTable;

/// A page table of 4 levels, for a kernel's frames `A`, direct map `M` and MMU `U`.
pub type FourLevelTable<A, M, U> = RadixTable<FourLevel, A, M, U>;

/// A page table of 5 levels, for a kernel's frames `A`, direct map `M` and MMU `U`.
pub type FiveLevelTable<A, M, U> = RadixTable<FiveLevel, A, M, U>;
