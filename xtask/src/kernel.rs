//! Which example kernels there are, and what each needs.

use crate::bytes::Bytes;
use anyhow::{Result, ensure};
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

/// The size of a kernel's pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Granule {
    /// 4 KiB.
    #[default]
    #[value(name = "4K")]
    Size4K,
    /// 16 KiB.
    #[value(name = "16K")]
    Size16K,
    /// 64 KiB.
    #[value(name = "64K")]
    Size64K,
}

impl Granule {
    /// How much RAM a kernel needs to try everything.
    pub(crate) const fn memory(self) -> Bytes {
        Bytes::from_mebibytes(match self {
            Self::Size4K | Self::Size16K => 1 << 10,
            Self::Size64K => 3 << 10,
        })
    }

    /// As the kernel is told.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Size4K => "4K",
            Self::Size16K => "16K",
            Self::Size64K => "64K",
        }
    }
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
    /// `None` for a kernel that has nothing to skip.
    pub(crate) skipped: Option<i32>,
}

/// QEMU's `isa-debug-exit` makes `c << 1 | 1` of the kernel's codes 0x10, 0x11 and 0x12. A machine
/// that was shut down or reset, as by a triple fault, ends with 0.
pub(crate) const DEBUG_EXIT: Statuses = Statuses {
    passed: 33,
    failed: 35,
    panicked: 37,
    skipped: None,
};

/// By semihosting a kernel says the status itself. QEMU's own are 0 and 1.
pub(crate) const SEMIHOSTING: Statuses = Statuses {
    passed: 0x10,
    failed: 0x11,
    panicked: 0x12,
    skipped: Some(0x13),
};

/// A kernel with pages of some size: what is booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    pub(crate) kernel: Kernel,
    pub(crate) granule: Granule,
}

impl Boot {
    /// What the suite boots.
    pub(crate) const SUITE: [Self; 5] = [
        Self::with_4k(Kernel::X86_64),
        Self::with_4k(Kernel::X86_64La57),
        Self::with_4k(Kernel::AArch64),
        Self::aarch64(Granule::Size16K),
        Self::aarch64(Granule::Size64K),
    ];

    /// `kernel` with pages of `granule`.
    ///
    /// # Errors
    ///
    /// Where its architecture has no such pages.
    pub(crate) fn new(kernel: Kernel, granule: Granule) -> Result<Self> {
        ensure!(
            kernel == Kernel::AArch64 || granule == Granule::Size4K,
            "{} has base pages of 4K only; leave out --granule",
            kernel.name()
        );
        Ok(Self { kernel, granule })
    }

    const fn with_4k(kernel: Kernel) -> Self {
        let granule = Granule::Size4K;
        Self { kernel, granule }
    }

    const fn aarch64(granule: Granule) -> Self {
        let kernel = Kernel::AArch64;
        Self { kernel, granule }
    }

    pub(crate) const fn name(self) -> &'static str {
        match (self.kernel, self.granule) {
            (Kernel::AArch64, Granule::Size4K) => "kernel aarch64 4K",
            (Kernel::AArch64, Granule::Size16K) => "kernel aarch64 16K",
            (Kernel::AArch64, Granule::Size64K) => "kernel aarch64 64K",
            (kernel, _) => kernel.name(),
        }
    }
}

impl Kernel {
    const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "kernel x86_64",
            Self::X86_64La57 => "kernel x86_64-la57",
            Self::AArch64 => "kernel aarch64",
        }
    }

    /// What it is made of.
    pub(crate) const fn parts(self) -> Parts {
        match self {
            Self::X86_64 | Self::X86_64La57 => Parts {
                package: "kernel-x86_64",
                target: "x86_64-unknown-none",
                emulator: "qemu-system-x86_64",
                emulator_package: "qemu-system-x86",
                statuses: DEBUG_EXIT,
            },
            Self::AArch64 => Parts {
                package: "kernel-aarch64",
                target: "aarch64-unknown-none",
                emulator: "qemu-system-aarch64",
                emulator_package: "qemu-system-arm",
                statuses: SEMIHOSTING,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aarch64_has_other_granules() {
        assert!(Boot::new(Kernel::X86_64, Granule::Size4K).is_ok());
        assert!(Boot::new(Kernel::X86_64La57, Granule::Size16K).is_err());
        for boot in Boot::SUITE {
            assert_eq!(Boot::new(boot.kernel, boot.granule).unwrap(), boot);
        }
    }
}
