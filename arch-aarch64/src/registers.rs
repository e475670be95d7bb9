//! How the kernel has set up its CPUs, as far as they can be asked.
//!
//! Fields as in the Arm ARM, "AArch64 System Register Descriptions", of the registers' names.

use crate::format::{NORMAL_MEMORY, NORMAL_MEMORY_INDEX};
use crate::granule::ADDRESS_BITS;
use core::fmt;
use mm_core::addr::Granule;

/// The registers that say how a CPU translates. [`Cpu`](crate::Cpu) reads the real ones.
pub trait Registers {
    /// TCR_EL1.
    fn tcr_el1(&self) -> u64;

    /// MAIR_EL1.
    fn mair_el1(&self) -> u64;

    /// SCTLR_EL1.
    fn sctlr_el1(&self) -> u64;

    /// TCR2_EL1, where there is one (ID_AA64MMFR3_EL1.TCRX), or zero.
    fn tcr2_el1(&self) -> u64;
}

/// What is not as the descriptors of this crate need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misconfigured {
    /// TCR_EL1.T1SZ: TTBR1 translates another number of address bits than 48.
    AddressBits {
        /// How many.
        bits: u32,
    },
    /// TCR_EL1.TG1 says other pages than the format has.
    OtherGranule {
        /// The field.
        tg1: u8,
    },
    /// TCR_EL1.DS is 1: descriptors have 52 bits of output address (FEAT_LPA2), where this crate has
    /// shareability.
    LargeAddresses,
    /// TCR_EL1.SH1, ORGN1 or IRGN1: walks are not inner shareable and write-back.
    Walks {
        /// The three fields, bits 29 to 24.
        fields: u8,
    },
    /// TCR_EL1.EPD1 is 1: there are no walks by TTBR1.
    NoWalks,
    /// The field of MAIR_EL1 that leaves go by is not normal write-back memory (0xff).
    NotWriteBack {
        /// What it is.
        field: u8,
    },
    /// SCTLR_EL1.EE is 1: walks are big endian.
    BigEndianWalks,
    /// TCR2_EL1.PIE or D128 is 1: rights are elsewhere, or descriptors have 128 bits.
    OtherDescriptors {
        /// The register.
        tcr2: u64,
    },
}

impl fmt::Display for Misconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressBits { bits } => write!(
                f,
                "TTBR1 translates {bits} address bits instead of 48; set TCR_EL1.T1SZ to 16"
            ),
            Self::OtherGranule { tg1 } => write!(
                f,
                "TCR_EL1.TG1 is {tg1:#b}, for other pages than the tables'; take the format of these"
            ),
            Self::LargeAddresses => f.write_str(
                "TCR_EL1.DS is 1; clear it, since descriptors with 52-bit addresses are not made here",
            ),
            Self::Walks { fields } => write!(
                f,
                "TCR_EL1.SH1, ORGN1, IRGN1 are {fields:#08b}; make walks inner shareable and write-back"
            ),
            Self::NoWalks => f.write_str("TCR_EL1.EPD1 is 1; clear it, so that TTBR1 is walked"),
            Self::NotWriteBack { field } => write!(
                f,
                "field {NORMAL_MEMORY_INDEX} of MAIR_EL1 is {field:#x} instead of 0xff, normal write-back memory"
            ),
            Self::BigEndianWalks => {
                f.write_str("SCTLR_EL1.EE is 1; clear it, since descriptors are little endian")
            }
            Self::OtherDescriptors { tcr2 } => write!(
                f,
                "TCR2_EL1 is {tcr2:#x}; clear PIE and D128, since descriptors have 64 bits and the rights"
            ),
        }
    }
}

impl core::error::Error for Misconfigured {}

/// Bits `low` to `high` of `register`.
const fn field(register: u64, high: u32, low: u32) -> u64 {
    register >> low & ((1 << (high - low + 1)) - 1)
}

/// Whether a CPU is set up as tables with pages of `granule` need it. A kernel asks on each CPU that
/// uses them, before it does.
///
/// Physical memory beyond 48 bits (FEAT_LPA, with 64K pages) is no reason to refuse: TCR_EL1.IPS may say
/// 52 bits, and frames up there are refused one by one.
///
/// # Errors
///
/// [`Misconfigured`]: the first that is not so.
pub fn check(registers: &impl Registers, granule: Granule) -> Result<(), Misconfigured> {
    const WRITE_BACK: [u64; 2] = [0b01, 0b11];
    const INNER_SHAREABLE: u64 = 0b11;
    let tcr = registers.tcr_el1();
    let bits = 64 - field(tcr, 21, 16) as u32;
    let tg1 = field(tcr, 31, 30) as u8;
    let expected = match granule {
        Granule::Size16K => 0b01,
        Granule::Size4K => 0b10,
        Granule::Size64K => 0b11,
    };
    let walks_are_good = field(tcr, 29, 28) == INNER_SHAREABLE
        && WRITE_BACK.contains(&field(tcr, 27, 26))
        && WRITE_BACK.contains(&field(tcr, 25, 24));
    let shift = u32::from(NORMAL_MEMORY_INDEX) * 8;
    let memory = field(registers.mair_el1(), shift + 7, shift) as u8;
    let tcr2 = registers.tcr2_el1();
    if field(tcr, 23, 23) == 1 {
        Err(Misconfigured::NoWalks)
    } else if bits != ADDRESS_BITS {
        Err(Misconfigured::AddressBits { bits })
    } else if tg1 != expected {
        Err(Misconfigured::OtherGranule { tg1 })
    } else if field(tcr, 59, 59) == 1 {
        Err(Misconfigured::LargeAddresses)
    } else if !walks_are_good {
        let fields = field(tcr, 29, 24) as u8;
        Err(Misconfigured::Walks { fields })
    } else if memory != NORMAL_MEMORY.0 {
        Err(Misconfigured::NotWriteBack { field: memory })
    } else if field(registers.sctlr_el1(), 25, 25) == 1 {
        Err(Misconfigured::BigEndianWalks)
    } else if field(tcr2, 1, 1) == 1 || field(tcr2, 5, 5) == 1 {
        Err(Misconfigured::OtherDescriptors { tcr2 })
    } else {
        Ok(())
    }
}
