//! RISC-V: the vmemmap in Sv39, Sv48 and Sv57 page tables of the hardware's own format.
//!
//! - [`Sv39`], [`Sv48`] and [`Sv57`] say what entries look like.
//! - [`MODEL_SV39`], [`MODEL_SV48`] and [`MODEL_SV57`] say where descriptors lie.
//! - [`Choices`] says what a kernel may choose about entries.
//! - [`Tlb`] fences translations on harts. [`Hart`] executes the instructions for it. A kernel adds how its other harts
//!   fence: by firmware ([`Sbi`]), or by an interrupt of its own ([`RemoteFences`]).
//!
//! A kernel that uses this library's page tables combines them:
//!
//! ```
//! use arch_riscv64::{RemoteFences, Sv48Table, Tlb, TlbInstructions};
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
//! unsafe fn vmemmap_table<A, M, I, H, R>(
//!     root: Pfn,
//!     roots: R,
//!     frames: A,
//!     direct_map: M,
//!     hart: I,        // `unsafe { Hart::new() }` in supervisor mode
//!     other_harts: H, // `unsafe { Sbi::new() }`, if firmware has the RFENCE extension
//! ) -> Sv48Table<A, M, Tlb<I, H>, R>
//! where
//!     A: FrameAllocator,
//!     M: DirectMap,
//!     I: TlbInstructions,
//!     H: RemoteFences,
//!     R: Roots,
//! {
//!     // SAFETY: the caller's duties are the same.
//!     unsafe { Sv48Table::new(root, roots, frames, direct_map, Tlb::new(hart, other_harts)) }
//! }
//! ```
//!
//! # What the kernel has set up
//!
//! Duty 1 of `RadixTable::new` is about CPUs that walk the format. On every hart that uses the tables:
//!
//! 1. satp.MODE is the format's (4.1.11). [`check`] asks the hart that it runs on.
//! 2. Implicit accesses to tables are little endian (mstatus.SBE is 0: 3.1.6.4), as they are unless firmware changes it.
//! 3. Frames of the vmemmap and of its tables are main memory, cached and coherent among the harts (3.6, "Physical Memory Attributes"): entries say
//!    nothing about it.
//! 4. A kernel that hides its half of the address space from user mode chooses leaves that are [not global](Choices::not_global).
//!
//! Neither Svadu nor Svade, Svpbmt, Svnapot or Svinval is needed, and each of them may be there.
//!
//! Facts about harts are from *The RISC-V Instruction Set Manual, Volume II: Privileged Architecture* (below: privileged
//! manual). The numbers of sections are those of version 20211203; later versions have other numbers, and the same titles.
#![no_std]
#![deny(missing_docs)]

mod choices;
mod flags;
mod format;
// Documentation is for every host: it does not look into functions.
#[cfg(any(target_arch = "riscv64", doc))]
mod hart;
mod instructions;
mod model;
mod registers;
mod remote;
#[cfg(any(target_arch = "riscv64", doc))]
mod sbi;
mod tlb;

pub use choices::Choices;
pub use flags::PteFlags;
pub use format::{OWNED, Sv, Sv39, Sv48, Sv57, SvFormat, TAIL};
#[cfg(any(target_arch = "riscv64", doc))]
pub use hart::Hart;
pub use instructions::{SFENCE_LIMIT, TlbInstructions};
pub use model::{MODEL_SV39, MODEL_SV48, MODEL_SV57};
pub use registers::{Misconfigured, Registers, check, satp_mode};
pub use remote::{Fence, RemoteFences, SingleHart};
#[cfg(any(target_arch = "riscv64", doc))]
pub use sbi::{NoRemoteFences, Sbi};
pub use tlb::Tlb;

use mm_core::paging::{OneRoot, RadixTable};

/// A page table for Sv39, for a kernel's frames `A`, direct map `M`, MMU `U` and other roots `R`.
pub type Sv39Table<A, M, U, R = OneRoot> = RadixTable<Sv39, A, M, U, R>;

/// A page table for Sv48, for a kernel's frames `A`, direct map `M`, MMU `U` and other roots `R`.
pub type Sv48Table<A, M, U, R = OneRoot> = RadixTable<Sv48, A, M, U, R>;

/// A page table for Sv57, for a kernel's frames `A`, direct map `M`, MMU `U` and other roots `R`.
pub type Sv57Table<A, M, U, R = OneRoot> = RadixTable<Sv57, A, M, U, R>;
