//! Which example kernels there are, and what each needs.
//!
//! [`Kernel`] says what they are called, [`Kernel::parts`] what they are made of and which pages
//! they have. What the suite boots, and under which names, follows from these.

use crate::bytes::Bytes;
use anyhow::{Result, ensure};
use clap::ValueEnum;
use std::fmt;

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
    /// RISC-V with Sv39.
    #[value(name = "riscv64-sv39")]
    RiscV64Sv39,
    /// RISC-V with Sv48.
    #[value(name = "riscv64-sv48")]
    RiscV64Sv48,
    /// RISC-V with Sv57.
    #[value(name = "riscv64-sv57")]
    RiscV64Sv57,
    /// A small one on the `x86_64` crate, with its page table and its traits for allocators.
    #[value(name = "embed-x86_64-crate")]
    EmbedX86_64Crate,
    /// A small one with a page table of its own, which runs the conformance battery.
    #[value(name = "embed-own-table")]
    EmbedOwnTable,
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
}

impl fmt::Display for Granule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(self))
    }
}

/// What something is called on the command line.
fn name_of(value: &impl ValueEnum) -> String {
    // All values that there are can be written there.
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// How a kernel is built, and on what it boots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    /// Its package in the kernels' workspace, and the file that comes of it.
    pub(crate) package: &'static str,
    /// The target that it is compiled for.
    pub(crate) target: &'static str,
    /// The profile that it is compiled by.
    pub(crate) profile: &'static str,
    /// The emulator.
    pub(crate) emulator: &'static str,
    /// The Debian package that brings the emulator.
    pub(crate) emulator_package: &'static str,
    /// What the machine needs besides, which the emulator brings on others.
    pub(crate) firmware: Option<Firmware>,
    /// What the emulator's process status means.
    pub(crate) statuses: Statuses,
    /// The pages that it can have, at least one size.
    pub(crate) granules: &'static [Granule],
}

impl Parts {
    /// The kernel that counts its instructions, which stands for [`Kernel::X86_64`].
    pub(crate) const COUNTING: Self = Self {
        profile: "counted",
        ..Self::x86_64("count-x86_64")
    };

    /// A kernel for x86-64.
    const fn x86_64(package: &'static str) -> Self {
        Self {
            package,
            target: "x86_64-unknown-none",
            profile: "release",
            emulator: "qemu-system-x86_64",
            emulator_package: "qemu-system-x86",
            firmware: None,
            statuses: DEBUG_EXIT,
            granules: &[Granule::Size4K],
        }
    }
}

/// Firmware that a kernel runs under.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Firmware {
    /// What it is called.
    pub(crate) name: &'static str,
    /// Where the emulator finds it.
    pub(crate) file: &'static str,
    /// The Debian package that brings it.
    pub(crate) package: &'static str,
}

/// What the emulator starts on RISC-V.
const OPENSBI: Firmware = Firmware {
    name: "OpenSBI",
    file: "/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin",
    package: "opensbi",
};

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
    /// What the suite boots: each kernel with pages of each size that it can have.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Kernel::value_variants().iter().flat_map(|&kernel| {
            let granules = kernel.parts().granules;
            granules
                .iter()
                .map(move |&granule| Self { kernel, granule })
        })
    }

    /// `kernel` with pages of `granule`.
    ///
    /// # Errors
    ///
    /// Where its architecture has no such pages.
    pub(crate) fn new(kernel: Kernel, granule: Granule) -> Result<Self> {
        let possible = kernel.parts().granules;
        let names: Vec<String> = possible.iter().map(name_of).collect();
        ensure!(
            possible.contains(&granule),
            "{kernel} has base pages of {} only, not of {granule}",
            names.join(", ")
        );
        Ok(Self { kernel, granule })
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kernel)?;
        match self.kernel.parts().granules {
            [_] => Ok(()),
            _ => write!(f, " {}", self.granule),
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}", name_of(self))
    }
}

impl Kernel {
    /// Whether it starts the machine's other CPUs.
    pub(crate) const fn starts_cpus(self) -> bool {
        !matches!(self, Self::EmbedX86_64Crate | Self::EmbedOwnTable)
    }

    /// What it is made of.
    pub(crate) const fn parts(self) -> Parts {
        match self {
            Self::X86_64 | Self::X86_64La57 => Parts::x86_64("kernel-x86_64"),
            Self::EmbedX86_64Crate => Parts::x86_64("embed-x86_64-crate"),
            Self::EmbedOwnTable => Parts::x86_64("embed-own-table"),
            Self::AArch64 => Parts {
                package: "kernel-aarch64",
                target: "aarch64-unknown-none",
                profile: "release",
                emulator: "qemu-system-aarch64",
                emulator_package: "qemu-system-arm",
                firmware: None,
                statuses: SEMIHOSTING,
                granules: &[Granule::Size4K, Granule::Size16K, Granule::Size64K],
            },
            Self::RiscV64Sv39 | Self::RiscV64Sv48 | Self::RiscV64Sv57 => Parts {
                package: "kernel-riscv64",
                target: "riscv64gc-unknown-none-elf",
                profile: "release",
                emulator: "qemu-system-riscv64",
                emulator_package: "qemu-system-misc",
                firmware: Some(OPENSBI),
                statuses: SEMIHOSTING,
                granules: &[Granule::Size4K],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hosted::BackendKind;

    /// The backend whose tables a kernel has the CPU walk, by its name.
    fn backend_of(boot: Boot) -> String {
        let name = boot.to_string().replacen("kernel ", "", 1);
        name.replace(' ', "-").to_lowercase()
    }

    #[test]
    fn every_backend_with_tables_boots_a_kernel() {
        let booted: Vec<String> = Boot::all().map(backend_of).collect();
        for backend in BackendKind::ALL
            .into_iter()
            .filter(|kind| kind.has_tables())
        {
            let name = backend.name();
            assert!(
                booted.iter().any(|booted| booted == name),
                "no kernel boots on the tables of the backend `{name}`: add it to `Kernel`, or its \
                 granule to `Kernel::parts`, in {}; booted are {}",
                file!(),
                booted.join(", ")
            );
        }
    }

    #[test]
    fn boots_are_named_as_on_the_command_line() {
        let x86_64 = Boot::new(Kernel::X86_64La57, Granule::Size4K).unwrap();
        assert_eq!(x86_64.to_string(), "kernel x86_64-la57");
        let aarch64 = Boot::new(Kernel::AArch64, Granule::Size16K).unwrap();
        assert_eq!(aarch64.to_string(), "kernel aarch64 16K");
    }

    #[test]
    fn only_aarch64_has_other_granules() {
        assert!(Boot::new(Kernel::X86_64, Granule::Size4K).is_ok());
        assert_eq!(
            Boot::new(Kernel::X86_64La57, Granule::Size16K)
                .unwrap_err()
                .to_string(),
            "kernel x86_64-la57 has base pages of 4K only, not of 16K"
        );
        for boot in Boot::all() {
            assert_eq!(Boot::new(boot.kernel, boot.granule).unwrap(), boot);
        }
    }
}
