//! Dumps of a machine's memory, as ELF cores: read, looked at, and written for simulated machines.
//!
//! ```text
//!   file ─▶ elf ─▶ Dump ─▶ find ─▶ description ─▶ Look ─▶ report ─▶ text | json
//!   simulated machine ─▶ core ─▶ file
//! ```
//!
//! - [`elf`]: where memory lies in the file, checked against its length;
//! - [`find`]: the description of the vmemmap, by a note or by its magic;
//! - [`report`]: what is told of it;
//! - [`core`]: a core of a simulated machine;
//! - [`robustness`]: what must hold for any dump.

pub mod core;
pub mod elf;
pub mod find;
pub mod report;
pub mod robustness;

pub use elf::Dump;

use crate::args::Format;
use crate::failure::Failure;
use crate::live::{Region, with_memory_online};
use crate::look::{Budget, Look};
use crate::need::Limits;
use clap::Args;
use report::Report;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Options of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The dump: an ELF core with physical memory, as QEMU's dump-guest-memory writes it
    #[arg(value_name = "DUMP.elf")]
    pub dump: PathBuf,
    /// How to print the result; json is one object on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

/// Options of `dump`.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// Where the dump goes
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The memory.
    #[command(flatten)]
    pub look: crate::draw::LookArgs,
}

/// Looks at the vmemmap that is described in `dump`.
///
/// # Errors
///
/// A [`Failure`] where there is none, or it cannot be read.
pub fn look(dump: &Dump, budget: Budget) -> Result<Look, Failure> {
    let (described, _) = find::description(dump)?;
    Ok(Look::new(dump, dump.machine(), described, budget)?)
}

/// What `inspect` finds in `file`.
///
/// # Errors
///
/// A [`Failure`] where there is nothing to be found.
pub fn inspect(file: &Path) -> Result<Report, Failure> {
    let dump = Dump::open(file)?;
    let (described, place) = find::description(&dump)?;
    let look = Look::new(&dump, dump.machine(), described, Budget::USUAL)?;
    Ok(Report::new(&look, dump.machine_name(), place))
}

/// Prints `report` to `out`.
///
/// # Errors
///
/// Those of `out`.
pub fn print(out: &mut dyn Write, report: &Report, format: Format) -> io::Result<()> {
    match format {
        Format::Table => report::print(out, report),
        Format::Json => crate::json::print(out, report),
    }
}

/// A core of a machine on which `region` is online.
///
/// # Errors
///
/// A [`Failure`] where it does not come online.
pub fn of_simulation(region: &Region, limits: &Limits) -> Result<Vec<u8>, Failure> {
    with_memory_online(region, limits, &mut |machine| {
        let bytes = machine.description.ok_or_else(|| {
            let name = region.backend.name();
            Failure::host(format_args!(
                "{name} has no page tables to be dumped; take another --backend"
            ))
        })?;
        Ok(core::of_memory(
            machine.memory,
            machine.elf_machine,
            core::Told::Note(bytes),
        ))
    })
}
