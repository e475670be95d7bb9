//! The project's own commands: `cargo xtask --help`.
//!
//! - `kernel`: which example kernels there are, and what each needs;
//! - `toolchain`: how to compile one on this machine;
//! - `requirement`: programs that have to be installed, what brings them, and installing them;
//! - `qemu`: the virtual machine that boots one;
//! - `console`: running a program under a time limit, with its output shown;
//! - `suite`: the whole test suite.

mod bytes;
mod console;
mod kernel;
mod qemu;
mod requirement;
mod suite;
mod toolchain;

use anyhow::Result;
use bytes::Bytes;
use clap::{Parser, Subcommand};
use kernel::{Boot, Granule, Kernel};
use requirement::Missing;
use std::process::ExitCode;
use std::time::Duration;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build an example kernel and boot it in QEMU.
    ///
    /// Exit status: 0 all checks passed, 10 some failed, 11 the kernel panicked, 12 the machine
    /// stopped without a verdict, 13 the CPU lacks what was asked for, 124 time limit, 1 it
    /// could not be built or booted.
    Qemu {
        /// Which kernel.
        kernel: Kernel,
        /// The size of base pages; other than 4K on aarch64 only.
        #[arg(long, default_value = "4K", ignore_case = true)]
        granule: Granule,
        #[command(flatten)]
        machine: MachineArguments,
        /// Install what is missing with apt-get.
        #[arg(long)]
        install: bool,
    },
    /// Run the whole test suite: hosted tests, then each kernel in QEMU.
    ///
    /// What cannot run is skipped and said to be, except with --install or with CI=true in the
    /// environment: then it is a failure.
    Test {
        #[command(flatten)]
        machine: MachineArguments,
        /// Install what is missing with apt-get.
        #[arg(long)]
        install: bool,
    },
}

/// The virtual machine.
#[derive(Clone, Debug, clap::Args)]
struct MachineArguments {
    /// RAM, as in 1G, which is what there is by default; 3G with pages of 64K, where a huge leaf
    /// of vmemmap takes 512M.
    #[arg(long)]
    memory: Option<Bytes>,
    /// Device memory, as in 4G.
    #[arg(long, default_value = "4G")]
    device_size: Bytes,
    /// The emulated CPU of aarch64, as QEMU names it.
    #[arg(long, default_value = "max", value_name = "MODEL")]
    cpu: String,
    /// After how many seconds the machine is stopped.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

impl MachineArguments {
    fn memory(&self, granule: Granule) -> Bytes {
        self.memory.unwrap_or(granule.memory())
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Qemu {
            kernel,
            granule,
            machine,
            install,
        } => {
            let boot = Boot::new(kernel, granule)?;
            let missing = if install {
                Missing::Install
            } else {
                Missing::Refuse
            };
            let verdict = qemu::build_and_boot(boot, &machine, missing)?;
            eprintln!("{boot}: {verdict}");
            Ok(ExitCode::from(verdict.status()))
        }
        Command::Test { machine, install } => suite::run(&machine, install),
    }
}
