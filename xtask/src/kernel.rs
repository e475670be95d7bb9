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
}

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
            }),
            Self::AArch64 => bail!("there is no kernel for aarch64 yet"),
        }
    }
}
