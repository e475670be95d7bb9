//! Every backend on a simulated machine.
//!
//! The backends know nothing of the simulation, and the simulation knows nothing of them. This
//! crate puts them together for whoever needs a whole machine: the explorer, benchmarks, tests.
//!
//! - [`for_each_backend!`]: the list of backends, from which everything else follows;
//! - [`BackendKind`]: choosing one at run time;
//! - [`Sim`], [`X86_64`], [`X86_64La57`], [`AArch64_4K`], [`AArch64_16K`], [`AArch64_64K`],
//!   [`RiscV64Sv39`], [`RiscV64Sv48`], [`RiscV64Sv57`]: the backends;
//! - [`Radix`]: what an architecture brings to be one of them;
//! - [`Machine`]: RAM on two nodes, device memory, CPUs, and the tables of one [`Backend`];
//! - [`AnyMachine`]: the same, of a backend that is chosen at run time, for what is compiled once;
//! - [`inspect`]: a machine looked at, and interfered with, from outside: reading its tables byte by
//!   byte, mapping what is somebody else's;
//! - [`Threads`]: threads that help to describe memory, as other CPUs of a kernel do;
//! - [`layout`]: where RAM lies, out of the way of the memory that is to be brought online.
#![deny(missing_docs)]

mod aarch64;
mod ahead;
mod any;
mod backend;
mod cpus;
pub mod inspect;
mod kind;
pub mod layout;
mod list;
mod machine;
mod radix;
mod riscv64;
mod sim;
mod workers;
mod x86_64;

pub use aarch64::{AArch64_4K, AArch64_16K, AArch64_64K, ArmCpus};
pub use ahead::ReadAhead;
pub use any::{AnyMachine, AnyTable, Boxed, any_table};
pub use backend::Backend;
pub use cpus::{NoCpus, SimCpus};
pub use inspect::Inspect;
pub use kind::{BackendFacts, BackendKind, WithBackend};
pub use machine::{Machine, MachineConfig, MachineError};
pub use radix::{Radix, RadixBackend};
pub use riscv64::{HartsMmu, RiscV64Sv39, RiscV64Sv48, RiscV64Sv57, RiscVHarts};
pub use sim::Sim;
pub use workers::Threads;
pub use x86_64::{X86_64, X86_64La57, X86Cpus};
