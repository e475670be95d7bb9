//! Every backend on a simulated machine.
//!
//! The backends know nothing of the simulation and the simulation nothing of them; this crate puts
//! them together for whoever needs a whole machine: tests, benchmarks, fuzzing, the explorer.
//!
//! - [`Machine`]: RAM on two nodes, device memory, CPUs, and the tables of one [`Backend`];
//! - [`layout`]: where RAM lies, out of the way of the memory that is to be brought online;
//! - [`Sim`], [`X86_64`], [`X86_64La57`], [`AArch64_4K`], [`AArch64_16K`], [`AArch64_64K`]: the
//!   backends;
//! - [`Radix`]: what an architecture brings to be one of them;
//! - [`BackendKind`]: choosing one at run time;
//! - [`Foreign`]: somebody else's mappings among the library's;
//! - [`HostedHarness`]: a machine for the conformance battery;
//! - [`testbed`]: a vmemmap on any backend, for tests, looked at from outside at each step;
//! - [`script`]: operations at random, on tables, oracle and model side by side;
//! - [`churn`]: very many of them, on any backend.
#![deny(missing_docs)]

mod aarch64;
mod backend;
pub mod churn;
mod foreign;
mod harness;
pub mod layout;
mod machine;
mod radix;
pub mod script;
mod sim;
pub mod testbed;
mod together;
mod x86_64;

pub use aarch64::{AArch64_4K, AArch64_16K, AArch64_64K, ArmCpus, WithoutQuiesce};
pub use backend::{Backend, BackendKind, WithBackend};
pub use foreign::Foreign;
pub use harness::{HostedAltmap, HostedHarness, HostedPowers, Power, watch};
pub use machine::{Machine, MachineConfig, MachineError};
pub use radix::{Radix, RadixBackend, SimCpus};
pub use sim::Sim;
pub use x86_64::{X86_64, X86_64La57, X86Cpus};
