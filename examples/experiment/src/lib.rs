//! What the example kernels do, on any architecture.
//!
//! A kernel provides its memory map, a page table that its CPU translates by, a direct map, and a
//! way to access an address and to return when that faults ([`Probe`]). This crate does the rest.
//! It uses only the public interface of mm-core:
//!
//! ```text
//!   Layout ──▶ Started ──▶ Experiment ──▶ rows, checks, `N passed, N failed, N skipped`
//!              memory in hand   │
//!              tables in use    ├─ Probe: what the CPU sees
//!                               ├─ RawTables: what the tables say
//!                               └─ MmuRecord: what the MMU was told
//! ```
//!
//! - `memory`: what memory there is ([`MemoryMap`]), and its allocators;
//! - `tables`: page tables that are written and read without the library, before there is an
//!   allocator and beside the library's own;
//! - `probe`: loads and stores that may fault; `mmu`: what the MMU is told;
//! - [`Started`]: the kernel from its memory map to the experiment;
//! - [`FrameInfo`]: the kernel's own descriptor;
//! - [`Case`]: one geometry and policy on one range; [`Cost`]: what it has to cost, by arithmetic;
//! - [`Experiment`]: brings memory online in every way, looks at it, takes it offline, and looks
//!   again; and runs the conformance battery;
//! - `cpus`: work for a kernel's other CPUs ([`Cpus`]), and interrupts to all of them;
//! - [`DumpPart`]: has the machine dumped with memory online, and says what is; `note`: what tells the emulator where the
//!   description is;
//! - [`ReadersPart`]: does that while other CPUs ask about the memory.
//!
//! This crate's tests run the same code hosted, on simulated memory. So the reports of a kernel and
//! of the simulation are held to the same figures.
#![no_std]
#![deny(missing_docs)]

mod case;
mod console;
mod cost;
mod cpus;
mod descriptor;
mod dump;
mod machine;
mod memory;
mod mmu;
mod note;
mod padding;
mod probe;
mod readers;
mod report;
mod run;
mod start;
mod tables;

pub use case::{Case, Leaves, cases, ram_case};
pub use console::put_text;
pub use cost::Cost;
pub use cpus::{
    Cpus, MOST_CPUS, OtherCpus, Processor, Rounds, Signal, give_up, has_started, idle, is_started,
    others_than, signalled,
};
pub use descriptor::FrameInfo;
pub use dump::{DumpPart, Emulator};
pub use machine::Machine;
pub use memory::{Bitmap, EarlyFrames, Frames, Limited, MemoryMap, RangeList};
pub use mmu::{MmuRecord, Recorded, RecordedRoots, Refusing};
pub use note::TellDevice;
pub use probe::{Accesses, CpuProbe, Fault, FaultKind, Hardware, Places, Probe};
pub use readers::{MappedDescriptors, ReadersPart};
pub use report::{Report, Verdict};
pub use run::{Experiment, Subject};
pub use start::{AddressSpace, Layout, Setting, StartError, Started};
pub use tables::{
    ArmDescriptors, EntryBits, FOREIGN_TABLES, ForeignTables, NoTable, RawTables, Rights,
    RiscVEntries, Step, TableShape, Tables, X86Entries,
};
