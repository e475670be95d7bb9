//! What descriptors cost, as a chart beside Linux: memory by geometry and policy, and instructions.
//!
//! - [`memory`]: how much memory a TiB takes, brought online on simulated machines;
//! - [`instructions`]: how many instructions a GiB takes, as `cargo xtask qemu x86_64 --icount` has counted them;
//! - [`rows`]: both on logarithmic scales.

pub mod instructions;
pub mod memory;
pub mod rows;

use crate::failure::Failure;
use crate::need::Limits;
use crate::progress::Progress;
use rows::{Chart, Panel};

/// The chart.
///
/// # Errors
///
/// A [`Failure`] where the host has no room for one of the machines.
pub fn chart(limits: &Limits, progress: &dyn Progress) -> Result<Chart, Failure> {
    let memory = Panel {
        title: "Memory for descriptors and their page tables, per TiB".to_owned(),
        unit: rows::Unit::Bytes,
        rows: memory::rows(limits, progress)?,
    };
    let [online, offline] = instructions::rows();
    let counts = |title: &str, rows| Panel {
        title: title.to_owned(),
        unit: rows::Unit::Count,
        rows,
    };
    Ok(Chart {
        title: "What descriptors cost, beside Linux".to_owned(),
        subtitle: "x86-64 with 4K base pages. Scales are logarithmic: each line is ten times the one before.".to_owned(),
        panels: vec![
            memory,
            counts("Instructions to bring memory online, per GiB", online),
            counts("Instructions to take it offline, per GiB", offline),
        ],
        notes: vec![
            "Memory: measured on a simulated machine, all tables below the root. Linux 6.1, 6.12 and 7.3 alike, without tables above leaf tables.".to_owned(),
            "Instructions: counted in a kernel under QEMU, the slope from one size to the next. Linux 7.3, device-dax, likewise.".to_owned(),
            "Linux has one way for each page size; the same mark stands beside each policy of that size.".to_owned(),
        ],
    })
}
