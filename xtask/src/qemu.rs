//! The virtual machine that boots a kernel, and its verdict.

use crate::MachineArguments;
use crate::bytes::Bytes;
use crate::console::{self, Outcome, Pause};
use crate::dump::{Monitor, READY};
use crate::kernel::{Boot, Granule, Kernel, Parts, Statuses};
use crate::requirement::{Requirement, need_program};
use crate::tally::Tally;
use crate::toolchain;
use anyhow::{Context, Result};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use tempfile::NamedTempFile;

/// How many lines of a machine that hung are shown again.
const LAST_LINES: usize = 8;

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All checks passed.
    Passed(Tally),
    /// The kernel says that some failed; its last line.
    Failed(String),
    /// The kernel panicked.
    Panicked,
    /// The CPU lacks what was asked for; why, as the kernel says.
    Skipped(String),
    /// The machine stopped or was reset without a verdict.
    Inconclusive(String),
    /// The time limit, and what was printed last.
    TimedOut(String),
}

impl Verdict {
    /// xtask's own exit status for it.
    pub(crate) const fn status(&self) -> u8 {
        match self {
            Self::Passed(_) => 0,
            Self::Failed(_) => 10,
            Self::Panicked => 11,
            Self::Inconclusive(_) => 12,
            Self::Skipped(_) => 13,
            Self::TimedOut(_) => 124,
        }
    }

    /// What the process status of the emulator says, together with what was printed.
    fn of(outcome: &Outcome, statuses: Statuses) -> Self {
        let last = || outcome.last_lines(1).join("\n");
        let Some(status) = outcome.status else {
            return Self::TimedOut(outcome.last_lines(LAST_LINES).join("\n  "));
        };
        match status.code() {
            Some(code) if code == statuses.passed => match Tally::of_line(&last()) {
                Some(tally) if tally.is_good() => Self::Passed(tally),
                // A kernel that checked nothing, or ended early, has not passed.
                _ => Self::inconclusive(status, &last()),
            },
            Some(code) if code == statuses.failed => Self::Failed(last()),
            Some(code) if code == statuses.panicked => Self::Panicked,
            Some(code) if Some(code) == statuses.skipped => {
                let last = last();
                let why = last.strip_prefix("skipped: ").unwrap_or(&last);
                Self::Skipped(why.to_owned())
            }
            _ => Self::inconclusive(status, &last()),
        }
    }

    fn inconclusive(status: ExitStatus, last: &str) -> Self {
        Self::Inconclusive(format!("{status}; last line: {last}"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(tally) => write!(f, "{tally}"),
            Self::Failed(summary) => write!(f, "{summary}"),
            Self::Panicked => f.write_str("the kernel panicked"),
            Self::Skipped(why) => write!(f, "{why}"),
            Self::Inconclusive(why) => write!(f, "ended without a verdict ({why})"),
            Self::TimedOut(last) => {
                write!(f, "stopped at the time limit; last output:\n  {last}")
            }
        }
    }
}

/// A kernel that was built, and what it takes to boot it.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    emulator: PathBuf,
    image: PathBuf,
    /// Where files may be written.
    directory: PathBuf,
}

/// What is missing to build and boot a kernel of `parts`.
pub(crate) fn missing(parts: &Parts) -> Vec<Requirement> {
    let emulator = need_program(parts.emulator, parts.emulator_package).err();
    let firmware = need_firmware(parts).err();
    let compiler = toolchain::find(parts.target).err();
    let missing = emulator.into_iter().chain(firmware);
    missing.chain(compiler).collect()
}

/// That the firmware of `parts` is there, if it has some.
fn need_firmware(parts: &Parts) -> Result<(), Requirement> {
    match parts.firmware {
        Some(firmware) if !Path::new(firmware.file).exists() => Err(Requirement {
            what: format!("{} is not installed ({})", firmware.name, firmware.file),
            packages: vec![firmware.package],
            or: None,
        }),
        _ => Ok(()),
    }
}

/// Builds the kernels of `packages` below `directory`, all as `parts` says but for the package.
pub(crate) fn build<'p>(
    packages: &[&'p str],
    parts: &Parts,
    directory: &Path,
) -> Result<Vec<(&'p str, Built)>> {
    let emulator = need_program(parts.emulator, parts.emulator_package)?;
    need_firmware(parts)?;
    let way = toolchain::find(parts.target)?;
    let images = toolchain::build(packages, parts.target, way, parts.profile, directory)?;
    let built = |package: &&'p str| {
        let built = Built {
            emulator: emulator.clone(),
            image: images.join(package),
            directory: directory.to_path_buf(),
        };
        (*package, built)
    };
    Ok(packages.iter().map(built).collect())
}

/// Boots what was built of `boot`'s kernel, and copies what it prints to `out`.
pub(crate) fn boot(
    built: &Built,
    boot: Boot,
    machine: &MachineArguments,
    out: impl Write + Send + 'static,
) -> Result<Verdict> {
    let outcome = boot_with(built, boot, machine, out, None)?;
    Ok(Verdict::of(&outcome, boot.kernel.parts().statuses))
}

/// The same with memory online, which is dumped to `file`; the verdict, and what was printed.
pub(crate) fn boot_dumped(
    built: &Built,
    boot: Boot,
    machine: &MachineArguments,
    file: &Path,
    out: impl Write + Send + 'static,
) -> Result<(Verdict, String)> {
    let outcome = boot_with(
        built,
        boot,
        &machine.dumped(),
        out,
        Some(Monitor::new(file)?),
    )?;
    let verdict = Verdict::of(&outcome, boot.kernel.parts().statuses);
    Ok((verdict, outcome.output))
}

fn boot_with(
    built: &Built,
    boot: Boot,
    machine: &MachineArguments,
    out: impl Write + Send + 'static,
    monitor: Option<Monitor>,
) -> Result<Outcome> {
    let dump = if monitor.is_some() { " dump" } else { "" };
    let mut command = emulator(built);
    if boot.kernel.starts_cpus() {
        command.args(["-smp", &machine.cpus().to_string()]);
    }
    let x86_64 = |command, cpu| x86_64(command, cpu, machine, &built.directory);
    // A file goes with its value.
    let _device = match boot.kernel {
        Kernel::X86_64 | Kernel::EmbedX86_64Crate | Kernel::EmbedOwnTable => {
            Some(x86_64(&mut command, "max,la57=off")?)
        }
        Kernel::X86_64La57 => Some(x86_64(&mut command, "max")?),
        Kernel::AArch64 => {
            aarch64(&mut command, boot.granule, machine, dump);
            None
        }
        Kernel::RiscV64Sv39 => riscv64(&mut command, "sv39", machine, dump),
        Kernel::RiscV64Sv48 => riscv64(&mut command, "sv48", machine, dump),
        Kernel::RiscV64Sv57 => riscv64(&mut command, "sv57", machine, dump),
    };
    command.arg("-kernel").arg(&built.image);
    let pause = monitor.map(|monitor| {
        command.args(monitor.arguments());
        if puts_notes(boot.kernel) {
            command.args(["-device", "vmcoreinfo"]);
        }
        Pause {
            line: READY,
            work: Box::new(move || monitor.dump()),
        }
    });
    if pause.is_some() && parts_of_pc(boot.kernel) {
        command.args(["-append", "dump"]);
    }
    console::run_with_pause(command, machine.timeout, out, pause)
}

/// Whether the emulator puts a note of `kernel`'s own into dumps: QEMU 7.2 does not on RISC-V, where it makes the configuration device
/// behind all others.
pub(crate) fn puts_notes(kernel: Kernel) -> bool {
    !matches!(
        kernel,
        Kernel::RiscV64Sv39 | Kernel::RiscV64Sv48 | Kernel::RiscV64Sv57
    )
}

/// Whether a kernel's machine is a PC, whose kernels have no arguments otherwise.
fn parts_of_pc(kernel: Kernel) -> bool {
    kernel.parts().emulator == "qemu-system-x86_64"
}

/// Boots the kernel that counts its instructions, with a clock that goes on by one with each of them; the
/// verdict, and what it printed.
pub(crate) fn boot_counting(
    built: &Built,
    machine: &MachineArguments,
    out: impl Write + Send + 'static,
) -> Result<(Verdict, String)> {
    let mut command = emulator(built);
    command.args(["-icount", "shift=0,sleep=off", "-smp", "1"]);
    let _device = x86_64(&mut command, "max,la57=off", machine, &built.directory)?;
    command.arg("-kernel").arg(&built.image);
    let outcome = console::run(command, machine.timeout, out)?;
    let verdict = Verdict::of(&outcome, Parts::COUNTING.statuses);
    Ok((verdict, outcome.output))
}

fn emulator(built: &Built) -> Command {
    let mut command = Command::new(&built.emulator);
    // Always emulated: what a host's hardware makes of it is another experiment.
    command.args(["-accel", "tcg", "-nodefaults", "-no-reboot"]);
    command.args(["-display", "none", "-serial", "stdio"]);
    command
}

/// The machine `virt`, with an interrupt controller for more than eight CPUs, and semihosting to exit by. The device's memory is the top of RAM, as the
/// kernel is told by its arguments.
fn aarch64(command: &mut Command, granule: Granule, machine: &MachineArguments, dump: &str) {
    let size = machine.device_size().mebibytes();
    let all = machine.memory(granule).mebibytes() + size;
    command
        .args(["-machine", "virt,gic-version=3", "-cpu", machine.cpu()])
        .args(["-m", &format!("{all}M")])
        .args(["-semihosting-config", "enable=on,target=native"])
        .args([
            "-append",
            &format!("granule={granule} device={size}M{dump}"),
        ]);
}

/// The machine `virt` under OpenSBI, with semihosting to exit by. The device's memory is the top of RAM, and the kernel chooses the mode, as it is told
/// by its arguments. There is no file that would have to go with it.
fn riscv64(
    command: &mut Command,
    mode: &str,
    machine: &MachineArguments,
    dump: &str,
) -> Option<NamedTempFile> {
    let size = machine.device_size().mebibytes();
    let all = machine.memory(Granule::Size4K).mebibytes() + size;
    command
        .args(["-machine", "virt", "-cpu", "rv64"])
        .args(["-m", &format!("{all}M")])
        .args(["-semihosting-config", "enable=on,target=native"])
        .args(["-append", &format!("mode={mode} device={size}M{dump}")]);
    None
}

/// A PC with an NVDIMM, which ACPI's NFIT describes, and the exit device.
fn x86_64(
    command: &mut Command,
    cpu: &str,
    machine: &MachineArguments,
    directory: &Path,
) -> Result<NamedTempFile> {
    let device = device_memory(machine.device_size(), directory)?;
    let memory = machine.memory(Granule::Size4K).mebibytes();
    let size = machine.device_size().mebibytes();
    // Slots are aligned to 1 GiB.
    let most = memory + size.next_multiple_of(1 << 10) + (2 << 10);
    command
        .args(["-machine", "q35,nvdimm=on", "-cpu", cpu])
        .args(["-m", &format!("{memory}M,slots=2,maxmem={most}M")])
        .arg("-object")
        .arg(format!(
            "memory-backend-file,id=device,share=on,size={size}M,mem-path={}",
            // A comma would end the path.
            device.path().display().to_string().replace(',', ",,")
        ))
        .args(["-device", "nvdimm,memdev=device"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    Ok(device)
}

/// A sparse file in `directory` for device memory, which goes with the value.
fn device_memory(size: Bytes, directory: &Path) -> Result<NamedTempFile> {
    let file = NamedTempFile::with_prefix_in("device-memory-", directory)
        .with_context(|| format!("no file in {}", directory.display()))?;
    file.as_file().set_len(size.get()).with_context(|| {
        format!(
            "a sparse file of {size} does not fit at {}",
            file.path().display()
        )
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{DEBUG_EXIT, SEMIHOSTING};
    use std::os::unix::process::ExitStatusExt;

    fn verdict_of(code: i32, output: &str, statuses: Statuses) -> Verdict {
        let outcome = Outcome {
            status: Some(ExitStatus::from_raw(code << 8)),
            output: output.to_owned(),
        };
        Verdict::of(&outcome, statuses)
    }

    fn verdict(code: i32, output: &str) -> Verdict {
        verdict_of(code, output, DEBUG_EXIT)
    }

    #[test]
    fn a_kernel_may_say_that_its_cpu_lacks_something() {
        let skipped = verdict_of(0x13, "skipped: no such pages\r\n", SEMIHOSTING);
        assert_eq!(skipped, Verdict::Skipped("no such pages".to_owned()));
        assert_eq!(
            verdict_of(0x10, "7 passed, 0 failed, 1 skipped\n", SEMIHOSTING).status(),
            0
        );
        assert_eq!(verdict_of(0x13, "", DEBUG_EXIT).status(), 12);
        for own in [0, 1] {
            assert_eq!(
                verdict_of(own, "7 passed, 0 failed, 1 skipped\n", SEMIHOSTING).status(),
                12
            );
        }
    }

    #[test]
    fn only_a_kernel_that_says_so_has_passed() {
        assert_eq!(
            verdict(33, "x\r\n7 passed, 0 failed, 0 skipped\r\n").status(),
            0
        );
        assert_eq!(verdict(33, "hello\n").status(), 12);
        assert_eq!(verdict(33, "0 passed, 0 failed, 7 skipped\n").status(), 12);
        assert_eq!(verdict(33, "7 passed, 10 failed, 0 skipped\n").status(), 12);
        assert_eq!(verdict(35, "6 passed, 1 failed, 0 skipped\n").status(), 10);
        assert_eq!(verdict(37, "PANIC\n").status(), 11);
        assert_eq!(verdict(0, "7 passed, 0 failed, 1 skipped\n").status(), 12);
        assert_eq!(verdict(1, "").status(), 12);
    }

    #[test]
    fn a_machine_that_hung_shows_its_last_lines() {
        let outcome = Outcome {
            status: None,
            output: "one\ntwo\n".to_owned(),
        };
        let hung = Verdict::of(&outcome, DEBUG_EXIT);
        assert_eq!(hung.status(), 124);
        assert!(hung.to_string().ends_with("one\n  two"));
    }
}
