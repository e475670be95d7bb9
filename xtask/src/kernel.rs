//! Which example kernels there are, and what each needs.

use anyhow::{Result, bail};
use clap::ValueEnum;

/// A kernel, and the kind of machine that it is booted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// x86-64 with 4 levels of page tables.
    #[value(name = "x86_64")]
    X86_64,
    /// x86-64 with 5 levels of page tables.
    #[value(name = "x86_64-la57")]
    X86_64La57,
    /// AArch64.
    #[value(name = "aarch64")]
    AArch64,
}

/// How a kernel is built, and on what it boots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    /// Its package in the kernels' workspace, and the file that comes of it.
    pub(crate) package: &'static str,
    /// The target that it is compiled for.
    pub(crate) target: &'static str,
    /// The emulator.
    pub(crate) emulator: &'static str,
    /// The Debian package that brings the emulator.
    pub(crate) emulator_package: &'static str,
    /// What the emulator's process status means.
    pub(crate) statuses: Statuses,
}

/// The process statuses by which a kernel tells its verdict.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statuses {
    pub(crate) passed: i32,
    pub(crate) failed: i32,
    pub(crate) panicked: i32,
}

/// QEMU's `isa-debug-exit` makes `c << 1 | 1` of the kernel's codes 0x10, 0x11 and 0x12. A machine that was shut down or
/// reset, as by a triple fault, ends with 0.
pub(crate) const DEBUG_EXIT: Statuses = Statuses {
    passed: 33,
    failed: 35,
    panicked: 37,
};

impl Kernel {
    /// The kernels that the suite boots: all that exist.
    pub(crate) const SUITE: [Self; 2] = [Self::X86_64, Self::X86_64La57];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "kernel x86_64",
            Self::X86_64La57 => "kernel x86_64-la57",
            Self::AArch64 => "kernel aarch64",
        }
    }

    /// What it is made of.
    ///
    /// # Errors
    ///
    /// Where it does not exist yet.
    pub(crate) fn parts(self) -> Result<Parts> {
        match self {
            Self::X86_64 | Self::X86_64La57 => Ok(Parts {
                package: "kernel-x86_64",
                target: "x86_64-unknown-none",
                emulator: "qemu-system-x86_64",
                emulator_package: "qemu-system-x86",
                statuses: DEBUG_EXIT,
            }),
            Self::AArch64 => bail!("there is no kernel for aarch64 yet"),
        }
    }
}
