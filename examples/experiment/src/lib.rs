//! What the example kernels do, whatever they run on.
//!
//! A kernel brings its memory map, a page table that its CPU translates by, a direct map, and a way
//! to touch an address and come back when that faults ([`Probe`]). This crate does the rest, on the
//! public interface of mm-core alone:
//!
//! ```text
//!   MemoryMap ──▶ EarlyFrames ──▶ Bitmap ─▶ Rationed ─▶ Counted     the kernel's memory
//!                                    │
//!   Probe, page table, direct map ──▶ Experiment ──▶ rows, checks, `N passed, N failed`
//! ```
//!
//! - [`MemoryMap`] and [`EarlyFrames`]: what there is, and memory from before there is an
//!   allocator;
//! - [`early_range`], [`early_slice`], [`frames`]: from the one to the other;
//! - [`Bitmap`]: frames of RAM, handed out and taken back; [`Rationed`] refuses when told to, and
//!   mm-core's `Counted` adds the reference counts: [`Frames`];
//! - [`FrameInfo`]: the kernel's own descriptor;
//! - [`Case`]: one geometry and policy on one range; [`Cost`]: what it has to cost, by arithmetic;
//! - [`Experiment`]: RAM online, each case online, looked at, offline and looked at again.
//!
//! The same code runs hosted, on simulated memory, in this crate's tests; so what a kernel reports
//! and what the simulation reports are held to the same figures.
#![no_std]
#![deny(missing_docs)]

mod bitmap;
mod books;
mod case;
mod cost;
mod descriptor;
mod early;
mod memory_map;
mod padding;
mod probe;
mod ration;
mod report;
mod run;

pub use bitmap::Bitmap;
pub use books::{early_range, early_slice, frames};
pub use case::{Case, Leaves, cases, ram_case};
pub use cost::{Cost, TableSpans};
pub use descriptor::FrameInfo;
pub use early::EarlyFrames;
pub use memory_map::{MemoryMap, RangeList};
pub use probe::{Fault, FaultKind, Probe};
pub use ration::Rationed;
pub use report::Report;
pub use run::Experiment;

use mm_core::frame::Counted;

/// The kernel's frames, with reference counts.
pub type Frames<'m> = Counted<'m, Rationed<Bitmap<'m>>>;
