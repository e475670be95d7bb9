//! The project's own commands: `cargo xtask --help`.
//!
//! - `kernel`: which example kernels there are, and what each needs;
//! - `toolchain`: how to compile one on this machine;
//! - `requirement`: programs that have to be installed, what brings them, and installing them;
//! - `qemu`: the virtual machine that boots one;
//! - `console`: running a program with its output shown, under a time limit or line by line;
//! - `suite`: the whole test suite;
//! - `parts`: its parts, what became of each, and the table of all;
//! - `side_by_side`: jobs that run at the same time;
//! - `sanitize`: the hosted tests under sanitizers;
//! - `linux`: what Linux was measured at;
//! - `nightly`: the nightly toolchain, which they need;
//! - `oldest`: the library tested with the oldest dependencies that it takes;
//! - `packages`, in tests: whether the manifests let `cargo package` work;
//! - `dump`: a machine dumped while its kernel waits, and what is in the dump;
//! - `icount`: a kernel that counts its instructions;
//! - `libtest`: counting tests in what `cargo test` prints;
//! - `tally`: how many passed, failed and were skipped;
//! - `bench`: what the library costs, measured;
//! - `size`: how much code the library adds to a kernel;
//! - `source`: the modules of a crate, from its source;
//! - `api`: `docs/api` against the public API;
//! - `soundness`: `docs/soundness.md` against the public API.

mod api;
mod bench;
mod bytes;
mod console;
#[cfg(test)]
mod documents;
mod dump;
mod icount;
mod kernel;
mod libtest;
#[allow(
    unreachable_pub,
    reason = "a link to a module of `figures`, where it is public"
)]
mod linux;
mod nightly;
mod oldest;
#[cfg(test)]
mod packages;
mod parts;
mod qemu;
mod requirement;
mod sanitize;
mod side_by_side;
mod size;
mod soundness;
mod source;
mod suite;
mod tally;
mod toolchain;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use kernel::{Boot, Granule, Kernel};
use qemu::Verdict;
use sanitize::Sanitizer;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build an example kernel and boot it in QEMU
    ///
    /// Prints what the kernel prints, and ends with its verdict as exit status:
    ///
    ///     0  all checks passed
    ///     1  it could not be built or booted
    ///     2  wrong arguments
    ///    10  some checks failed
    ///    11  the kernel panicked
    ///    12  the machine stopped without a verdict
    ///    13  the CPU lacks what was asked for
    ///   124  it was stopped at the time limit
    #[command(verbatim_doc_comment)]
    Qemu {
        /// Which kernel
        kernel: Kernel,
        /// The size of base pages; other than 4K on aarch64 only
        #[arg(long, value_name = "SIZE", default_value = "4K", ignore_case = true)]
        granule: Granule,
        /// Install what is missing with apt-get first
        #[arg(long)]
        install: bool,
        /// Count the instructions of memory online and offline per GiB, beside Linux; x86_64 only
        ///
        /// Boots a small kernel for that, compiled as a kernel is released, on one CPU.
        #[arg(long)]
        icount: bool,
        /// Have the kernel bring memory online with each policy, dump the machine's memory to this file, and take it offline again
        ///
        /// Nothing else is done. `explorer inspect FILE` reads the dump. Not with the embed kernels.
        #[arg(long, value_name = "FILE", conflicts_with = "icount")]
        dump: Option<PathBuf>,
        #[command(flatten)]
        machine: MachineArguments,
    },
    /// Run the whole test suite: hosted tests and doctests, then each kernel in QEMU, several at a time.
    ///
    /// A part for which something is missing (QEMU, or a `core` for bare metal) is skipped and says
    /// what would help. With --install, or with CI=true in the environment, it fails.
    ///
    /// Ends with a table of the parts, how long each took and what became of it, and, alone on the
    /// last line, with all tests and checks: `N passed, N failed`, and `N skipped` where something
    /// was. Exit status: 0 nothing failed, 1 something did, 2 wrong arguments.
    Test {
        /// Install what is missing with apt-get first, all at once; a part of its own in the table
        #[arg(long)]
        install: bool,
        #[command(flatten)]
        machine: MachineArguments,
    },
    /// Compare docs/soundness.md with the public functions of the library
    ///
    /// Names each function that the document does not account for, or that is gone, and each that is
    /// safe there and unsafe in the source, or the other way round. The tests do the same.
    Soundness,
    /// Compare docs/api with the public API of the published crates
    ///
    /// Each public item is a line there, with its signature. The tests do the same.
    Api {
        /// Write the files instead
        #[arg(long)]
        bless: bool,
    },
    /// Say how much code a kernel gains by the library
    ///
    /// By operation, each with what it adds to those before: the library's code, its data, and what
    /// it needs of Rust's core, which a kernel mostly has anyway. Then the largest functions, and what
    /// is compiled more than once.
    Size,
    /// Measure what the library costs, side by side with memset, stores by hand and other crates
    ///
    /// Entries written and cleared, instructions of whole operations where `valgrind` is installed,
    /// and times of whole operations. docs/performance.md says how each is obtained.
    Bench {
        #[command(flatten)]
        wanted: bench::Wanted,
    },
    /// Compile and test the library with the oldest dependencies that it takes
    ///
    /// The other tests have the newest. `test` does the same.
    Oldest,
    /// Run the hosted tests under sanitizers, with a nightly toolchain.
    ///
    /// What cannot run under one is left out and named, with the reason. The churn has fewer
    /// operations than otherwise, unless CHURN_OPERATIONS says how many.
    ///
    /// Ends like `test`. Each report of a sanitizer counts as a failure.
    Sanitize {
        /// Which ones; all of them if none is named
        sanitizers: Vec<Sanitizer>,
        /// The tests of this package only; may be repeated [default: of the whole workspace]
        #[arg(long = "package", short, value_name = "PACKAGE")]
        packages: Vec<String>,
    },
}

/// The longest time limit for a machine: a day.
const LONGEST: u64 = 24 * 60 * 60;

/// How many CPUs there are if nobody says, and for how many the kernels have room.
const CPUS: u8 = 4;
const MOST_CPUS: u8 = 16;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "The virtual machines")]
struct MachineArguments {
    /// RAM, as in 2G [default: 1G; with pages of 64K, where a huge leaf of vmemmap takes 512M, 3G; 512M where the machine is
    /// dumped]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// Device memory, as in 4G: a multiple of 2M [default: 4G; 64M where the machine is dumped]
    #[arg(long, value_name = "SIZE", value_parser = device_size)]
    device_size: Option<Bytes>,
    /// The emulated CPU of aarch64, as QEMU names it [default: max]
    #[arg(long, value_name = "MODEL", value_parser = cpu)]
    cpu: Option<String>,
    /// How many CPUs the machines have whose kernels start them (all but the embed ones) [default: 4]
    ///
    /// With 1, nobody reads beside the owner of memory, and that part is skipped.
    #[arg(long, value_name = "N", value_parser = cpus)]
    cpus: Option<u8>,
    /// After how many seconds a machine is stopped
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    timeout: Duration,
}

impl MachineArguments {
    /// What is meant where nobody says anything.
    const fn usual() -> Self {
        Self {
            memory: None,
            device_size: None,
            cpu: None,
            cpus: None,
            timeout: Duration::from_secs(300),
        }
    }

    /// The same for a machine that is dumped: nothing needs more memory, and a dump has all of it.
    fn dumped(&self) -> Self {
        Self {
            memory: self.memory.or(Some(Bytes::from_mebibytes(512))),
            device_size: self.device_size.or(Some(Bytes::from_mebibytes(64))),
            ..self.clone()
        }
    }

    /// Whether the machines have as much memory as they usually have.
    fn is_usual(&self) -> bool {
        self.memory.is_none() && self.device_size.is_none()
    }

    fn device_size(&self) -> Bytes {
        self.device_size.unwrap_or(Bytes::from_mebibytes(4 << 10))
    }

    fn memory(&self, granule: Granule) -> Bytes {
        self.memory.unwrap_or(granule.memory())
    }

    fn cpu(&self) -> &str {
        self.cpu.as_deref().unwrap_or("max")
    }

    fn cpus(&self) -> u8 {
        self.cpus.unwrap_or(CPUS)
    }

    /// What is meant for another kernel would be ignored.
    fn check(&self, kernel: Kernel) -> Result<()> {
        ensure!(
            self.cpu.is_none() || kernel == Kernel::AArch64,
            "{kernel} has a CPU of its own; leave out --cpu"
        );
        ensure!(
            self.cpus.is_none() || kernel.starts_cpus(),
            "{kernel} uses one CPU; leave out --cpus"
        );
        Ok(())
    }
}

fn device_size(text: &str) -> Result<Bytes, String> {
    let size: Bytes = text.parse()?;
    match size.mebibytes().is_multiple_of(2) {
        true => Ok(size),
        false => Err(format!("{size} is not a multiple of 2M")),
    }
}

fn cpu(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a CPU has a name; `max` has all that QEMU can do".to_owned()),
        model => Ok(model.to_owned()),
    }
}

fn cpus(text: &str) -> Result<u8, String> {
    text.parse()
        .ok()
        .filter(|cpus| (1..=MOST_CPUS).contains(cpus))
        .ok_or_else(|| format!("write a whole number of CPUs from 1 to {MOST_CPUS}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds| (1..=LONGEST).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| format!("write a whole number of seconds from 1 to {LONGEST}"))
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

/// Ends as at any other wrong argument.
fn refuse(error: &anyhow::Error) -> ! {
    let mut command = Arguments::command();
    command.error(ErrorKind::ArgumentConflict, error).exit()
}

fn run() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Qemu {
            kernel,
            granule,
            install,
            icount,
            dump,
            machine,
        } => {
            let boot = Boot::new(kernel, granule).unwrap_or_else(|error| refuse(&error));
            machine.check(kernel).unwrap_or_else(|error| refuse(&error));
            if icount {
                icount::check(kernel, &machine).unwrap_or_else(|error| refuse(&error));
            }
            if dump.is_some() && !kernel.starts_cpus() {
                refuse(&anyhow::anyhow!(
                    "{kernel} does not describe its vmemmap; leave out --dump"
                ));
            }
            let parts = match icount {
                true => kernel::Parts::COUNTING,
                false => kernel.parts(),
            };
            if install {
                requirement::install(|| qemu::missing(&parts))?;
            }
            if icount {
                return icount::run(&machine);
            }
            let directory = toolchain::target_directory()?;
            let built = qemu::build(&[parts.package], &parts, &directory)?;
            let (_, built) = built.first().context("nothing was built")?;
            let verdict = match &dump {
                Some(file) => qemu::boot_dumped(built, boot, &machine, file, io::stdout())?.0,
                None => qemu::boot(built, boot, &machine, io::stdout())?,
            };
            let head = match &verdict {
                Verdict::Passed(_) => "",
                Verdict::Skipped(_) => "skipped: ",
                _ => "FAILED: ",
            };
            eprintln!("{boot}: {head}{verdict}");
            Ok(ExitCode::from(verdict.status()))
        }
        Command::Test { install, machine } => suite::run(&machine, install),
        Command::Soundness => {
            let accounted = soundness::check()?;
            println!("{accounted} public functions and traits are accounted for");
            Ok(ExitCode::SUCCESS)
        }
        Command::Api { bless } => {
            let lines = match bless {
                true => api::bless()?,
                false => api::check()?,
            };
            println!("{lines} lines in docs/api");
            Ok(ExitCode::SUCCESS)
        }
        Command::Size => {
            print!("{}", size::report()?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench { wanted } => bench::run(&wanted),
        Command::Oldest => {
            let outcome = oldest::test(&toolchain::target_directory()?)?;
            println!("with {}: {outcome}", oldest::name());
            Ok(match outcome.is_failure() {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            })
        }
        Command::Sanitize {
            sanitizers,
            packages,
        } => sanitize::run(&sanitizers, &packages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &str) -> String {
        let words = ["xtask"].into_iter().chain(arguments.split(' '));
        match Arguments::try_parse_from(words) {
            Ok(_) => panic!("{arguments} is taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_arguments_contradict_each_other_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        for (arguments, why) in [
            ("test --timeout 0", "from 1 to 86400"),
            ("test --timeout soon", "whole number of seconds"),
            ("test --timeout 99999999999999999999", "from 1 to 86400"),
            ("test --device-size 3M", "3M is not a multiple of 2M"),
            ("test --device-size 0G", "from 1M to 1024T"),
            ("test --cpus 0", "from 1 to 16"),
            ("qemu x86_64 --cpus many", "whole number of CPUs"),
            ("test --memory 4", "write for example 512M or 4G"),
            ("test --memory", "a value is required for '--memory <SIZE>'"),
            ("test --cpu=", "a CPU has a name"),
            ("test everything", "unexpected argument 'everything'"),
            ("test --instal", "unexpected argument '--instal'"),
            ("tests", "unrecognized subcommand 'tests'"),
            (
                "qemu riscv64",
                "possible values: x86_64, x86_64-la57, aarch64, riscv64-sv39",
            ),
            ("qemu aarch64 --granule 8K", "possible values: 4K, 16K, 64K"),
            ("qemu", "<KERNEL>"),
            ("sanitize memory", "possible values: address, thread"),
        ] {
            let refusal = refusal(arguments);
            assert!(refusal.contains(why), "{arguments}: {refusal}");
        }
    }

    #[test]
    fn an_option_that_would_be_ignored_is_refused() {
        let machine = |arguments: &str| {
            let words = ["xtask", "test"].into_iter().chain(arguments.split(' '));
            match Arguments::try_parse_from(words).unwrap().command {
                Command::Test { machine, .. } => machine,
                _ => panic!(),
            }
        };
        let with_cpu = machine("--cpu cortex-a72");
        assert!(with_cpu.check(Kernel::AArch64).is_ok());
        assert!(with_cpu.check(Kernel::X86_64La57).is_err());
        let with_cpus = machine("--cpus 2");
        assert!(with_cpus.check(Kernel::X86_64La57).is_ok());
        assert!(with_cpus.check(Kernel::EmbedX86_64Crate).is_err());
        assert!(with_cpus.check(Kernel::AArch64).is_ok());
        assert!(machine("--timeout 1").check(Kernel::X86_64).is_ok());
    }
}
