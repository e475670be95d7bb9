//! x86-64: the vmemmap in page tables of the hardware's own format.
//!
//! - [`FourLevel`] and [`FiveLevel`] say what entries look like.
//! - [`MODEL_4_LEVEL`] and [`MODEL_5_LEVEL`] say where descriptors lie.
//! - [`Choices`] says what a kernel may choose about them.
//! - [`Streaming`] writes the descriptors of much memory past the caches.
//! - [`Tlb`] flushes translations on CPUs. [`Cpu`] executes the instructions for it. A kernel adds how it
//!   reaches its other CPUs ([`Shootdown`]), or an interrupt for a ready [`Mailbox`].
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
//!     I: TlbInstructions,
//!     S: Shootdown,
//!     R: Roots,
//! {
//!     // SAFETY: the caller's duties are the same.
//!     unsafe { FourLevelTable::new(root, roots, frames, direct_map, Tlb::new(cpu, other_cpus)) }
//! }
//! ```
//!
//! A kernel on the `x86_64` crate has an `OffsetPageTable` and an allocator for it already: [`engine_over`]
//! and [`Frames4K`] take these. The chapter “Embedding” of the repository's book has all that such a kernel
//! writes, as a file to copy. With version 0.16 of that crate, the code of this one stays as it is:
//! `OffsetPageTable` is an alias there, whose `phys_offset` and `level_4_table_mut` remain (tried with
//! 0.16.0-rc.0, which needs Rust 1.98).
//!
//! # What the kernel has set up
//!
//! Duty 1 of `RadixTable::new` is about CPUs that walk the format. On every CPU that uses the tables:
//!
//! 1. IA32_EFER.NXE is 1: all leaves have XD (SDM, "Access Rights").
//! 2. CR0.WP is 1: tails that many compound pages share are read-only, for the kernel too (the same).
//! 3. CR4.PGE is 1, unless leaves are [not global](Choices::not_global) by choice (SDM, "Global Pages").
//!    A kernel that hides its half of the address space from user mode makes that choice.
//! 4. Entry 0 of IA32_PAT is write-back, and so are the MTRRs for the vmemmap's frames and tables:
//!    PAT, PCD and PWT are clear in all entries (SDM, "Paging and Memory Typing").
//! 5. CR4.LA57 fits the format.
//! 6. Where CR4.PKS is 1, IA32_PKRS allows key 0, which all leaves have (SDM, "Protection Keys").
//! 7. Where memory is encrypted, the [`Choices`] say so.
//! 8. None of them is of AMD family 10h, unless the [`Tlb`] is one [without
//!    replacement](Tlb::without_replacement) (erratum 383: see `Replacement::Direct`).
//!
//! IA32_EFER.TCE (AMD) may have either value. When it is 1, INVLPG keeps upper-level entries that do not
//! lead to its page (AMD APM, volume 2, "Translation Cache Extension"), and nothing here counts on more.
//! That was tried on a model of such a CPU, not on a real one.
//!
//! [`check`] asks the registers of the CPU that it runs on for 1 to 5, but for the MTRRs.
//!
//! Facts about the processor are from the *Intel 64 and IA-32 Architectures Software Developer's
//! Manual* (below: SDM), volume 3A, chapter "Paging". Sections are cited by their titles, since
//! their numbers change between editions.
#![no_std]
#![deny(missing_docs)]

mod choices;
// Documentation is for every host: it does not look into functions.
#[cfg(any(target_arch = "x86_64", doc))]
mod cpu;
// Instructions that a sanitizer does not see are not for it.
#[cfg(all(
    target_arch = "x86_64",
    not(any(miri, address_sanitizer, thread_sanitizer))
))]
mod entry_lines;
mod format;
mod frames_4k;
mod instructions;
mod mailbox;
mod model;
#[cfg(target_pointer_width = "64")]
mod offset_table;
mod registers;
// Nor are these.
#[cfg(all(
    target_arch = "x86_64",
    not(any(miri, address_sanitizer, thread_sanitizer))
))]
mod seen_bits;
mod shootdown;
#[cfg(any(target_arch = "x86_64", doc))]
mod streaming;
mod tlb;

pub use choices::Choices;
#[cfg(any(target_arch = "x86_64", doc))]
pub use cpu::Cpu;
pub use format::{FiveLevel, FourLevel, LongMode, LongModeFormat, OWNED, TAIL};
pub use frames_4k::{FrameWork, Frames4K, KernelFrames};
pub use instructions::{INVLPG_LIMIT, TlbInstructions};
pub use mailbox::{Interrupts, Mailbox, MailboxSlot, NoSlot};
pub use model::{MODEL_4_LEVEL, MODEL_5_LEVEL};
#[cfg(target_pointer_width = "64")]
pub use offset_table::{OffsetMap, RootNotByOffset, engine_over, linear_map_of};
pub use registers::{Misconfigured, Registers, check};
pub use shootdown::{FlushRequest, Shootdown, SingleCpu};
#[cfg(any(target_arch = "x86_64", doc))]
pub use streaming::{STREAM_FROM, Streaming, end_stream, stream};
pub use tlb::Tlb;

use mm_core::paging::{OneRoot, RadixTable};

/// A page table of 4 levels, for a kernel's frames `A`, direct map `M`, MMU `U` and other roots `R`.
pub type FourLevelTable<A, M, U, R = OneRoot> = RadixTable<FourLevel, A, M, U, R>;

/// A page table of 5 levels, for a kernel's frames `A`, direct map `M`, MMU `U` and other roots `R`.
pub type FiveLevelTable<A, M, U, R = OneRoot> = RadixTable<FiveLevel, A, M, U, R>;
