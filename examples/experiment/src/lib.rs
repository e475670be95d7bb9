//! What the example kernels do, whatever they run on.
//!
//! A kernel brings its memory map, a page table that its CPU translates by, a direct map, and a way
//! to touch an address and come back when that faults ([`Probe`]). This crate does the rest, on the
//! public interface of mm-core alone:
//!
//! ```text
//!   Layout ──▶ Started ──▶ Experiment ──▶ rows, checks, `N passed, N failed, N skipped`
//!              memory in hand   │
//!              tables in use    ├─ Probe: what the CPU sees
//!                               ├─ RawTables: what the tables say
//!                               └─ MmuRecord: what the MMU was told
//! ```
//!
//! - `memory`: what there is ([`MemoryMap`]), and who hands it out;
//! - `tables`: page tables written and read by hand, before there is an allocator and beside the
//!   library;
//! - `probe`: loads and stores that may fault; `mmu`: what the MMU is told;
//! - [`Started`]: from the one to the other;
//! - [`FrameInfo`]: the kernel's own descriptor;
//! - [`Case`]: one geometry and policy on one range; [`Cost`]: what it has to cost, by arithmetic;
//! - [`Experiment`]: memory online in every way, looked at, offline and looked at again; and the
//!   conformance battery.
//!
//! The same code runs hosted, on simulated memory, in this crate's tests; so what a kernel reports
//! and what the simulation reports are held to the same figures.
#![no_std]
#![deny(missing_docs)]

mod case;
mod console;
mod cost;
mod descriptor;
mod machine;
mod memory;
mod mmu;
mod padding;
mod probe;
mod report;
mod run;
mod start;
mod tables;

pub use case::{Case, Leaves, cases, ram_case};
pub use console::put_text;
pub use cost::Cost;
pub use descriptor::FrameInfo;
pub use machine::Machine;
pub use memory::{Bitmap, EarlyFrames, Frames, Limited, LinearMap, MemoryMap, RangeList};
pub use mmu::{MmuRecord, Recorded, Refusing};
pub use probe::{Accesses, CpuProbe, Fault, FaultKind, Hardware, Places, Probe};
pub use report::{Report, Verdict};
pub use run::{Experiment, Subject};
pub use start::{AddressSpace, Layout, Setting, StartError, Started};
pub use tables::{
    ArmDescriptors, EntryBits, FOREIGN_TABLES, ForeignTables, NoTable, RawTables, Rights, Step,
    TableShape, Tables, X86Entries,
};
