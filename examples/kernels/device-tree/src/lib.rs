//! What kernels read of a device tree when they start: memory, CPUs, and their arguments.
//!
//! - [`DeviceTree`]: its nodes and properties;
//! - [`Machine`]: what every kernel reads there. What starts and interrupts CPUs differs from architecture to architecture, and is theirs.
#![no_std]

mod machine;
mod tree;

pub use machine::{BootError, Cells, Machine, mebibytes};
pub use tree::{DeviceTree, Properties, Property, number_at, text};
