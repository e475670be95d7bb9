//! How the kernel has set up its CPUs, as far as they can be asked.

use crate::Choices;
use crate::format::LongModeFormat;
use core::fmt;

/// CR0.WP: read-only is read-only for the kernel, too.
const WRITE_PROTECT: u64 = 1 << 16;

/// CR4.PGE: global leaves are global.
const GLOBAL_PAGES: u64 = 1 << 7;

/// CR4.LA57: 5 levels.
const FIVE_LEVELS: u64 = 1 << 12;

/// IA32_EFER.NXE: bit 63 of entries is execute-disable, and not reserved.
const NO_EXECUTE: u64 = 1 << 11;

/// Write-back, in the encoding of IA32_PAT (SDM, "IA32_PAT MSR").
const WRITE_BACK: u8 = 6;

/// The registers that say how a CPU translates. [`Cpu`](crate::Cpu) reads the real ones.
pub trait Registers {
    /// CR0.
    fn cr0(&self) -> u64;

    /// CR4.
    fn cr4(&self) -> u64;

    /// IA32_EFER (MSR 0xc000_0080).
    fn efer(&self) -> u64;

    /// IA32_PAT (MSR 0x277).
    fn pat(&self) -> u64;
}

/// What is not as the entries of this crate need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misconfigured {
    /// IA32_EFER.NXE is 0: bit 63, which all leaves have, is reserved, and every access faults.
    NoExecuteIsOff,
    /// CR0.WP is 0: the kernel can store to tails that are shared read-only.
    WriteProtectIsOff,
    /// CR4.PGE is 0, and leaves are global by the kernel's choice.
    GlobalPagesAreOff,
    /// Entry 0 of IA32_PAT, which leaves and links go by, is another memory type than write-back (6).
    NotWriteBack {
        /// What it is.
        memory_type: u8,
    },
    /// CR4.LA57 is for another number of levels than the format's.
    OtherLevels {
        /// How many the format has.
        format: usize,
        /// How many the CPU walks.
        cpu: usize,
    },
}

impl fmt::Display for Misconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoExecuteIsOff => f.write_str("EFER.NXE is 0; set it, since all leaves have XD"),
            Self::WriteProtectIsOff => {
                f.write_str("CR0.WP is 0; set it, since shared tails are read-only")
            }
            Self::GlobalPagesAreOff => {
                f.write_str("CR4.PGE is 0; set it, or choose leaves that are not global")
            }
            Self::NotWriteBack { memory_type } => write!(
                f,
                "entry 0 of IA32_PAT is {memory_type}; leave it at write-back, 6"
            ),
            Self::OtherLevels { format, cpu } => {
                write!(f, "the CPU walks {cpu} levels, and the format has {format}")
            }
        }
    }
}

impl core::error::Error for Misconfigured {}

/// Whether a CPU is set up as tables in the format `F` with `choices` need it. A kernel asks on each
/// CPU that uses them, before it does.
///
/// # Errors
///
/// [`Misconfigured`]: the first that is not so.
pub fn check<F: LongModeFormat>(
    registers: &impl Registers,
    choices: Choices,
) -> Result<(), Misconfigured> {
    let cr4 = registers.cr4();
    let memory_type = registers.pat().to_le_bytes()[0] & 7;
    let levels = if cr4 & FIVE_LEVELS == 0 { 4 } else { 5 };
    if registers.efer() & NO_EXECUTE == 0 {
        Err(Misconfigured::NoExecuteIsOff)
    } else if registers.cr0() & WRITE_PROTECT == 0 {
        Err(Misconfigured::WriteProtectIsOff)
    } else if choices.are_leaves_global() && cr4 & GLOBAL_PAGES == 0 {
        Err(Misconfigured::GlobalPagesAreOff)
    } else if memory_type != WRITE_BACK {
        Err(Misconfigured::NotWriteBack { memory_type })
    } else if levels != F::LEVELS.len() {
        Err(Misconfigured::OtherLevels {
            format: F::LEVELS.len(),
            cpu: levels,
        })
    } else {
        Ok(())
    }
}
