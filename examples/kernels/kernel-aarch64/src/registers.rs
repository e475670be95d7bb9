//! System registers: what this kernel writes into them, and what it reads.
//!
//! Fields as in the Arm ARM, "AArch64 System register descriptions".

use aarch64_paging::mair::{Mair, MairAttribute};
use arch_aarch64::{NORMAL_MEMORY, NORMAL_MEMORY_INDEX};
use core::arch::asm;
use mm_core::addr::Granule;

/// Which field of MAIR_EL1 describes devices.
pub const DEVICE_MEMORY_INDEX: u8 = 1;

/// MAIR_EL1: normal memory where arch-aarch64 wants it, and devices (nGnRnE).
pub const MAIR: u64 = Mair::EMPTY
    .with_attribute(NORMAL_MEMORY_INDEX, NORMAL_MEMORY)
    .with_attribute(DEVICE_MEMORY_INDEX, MairAttribute::DEVICE_NGNRNE)
    .0;

/// TCR_EL1.
#[derive(Debug)]
pub enum Tcr {}

impl Tcr {
    /// The shift of IPS.
    pub const IPS_SHIFT: u32 = 32;

    /// The largest value for IPS where descriptors have 48 bits of address: 48 bits.
    pub const MOST_PA_RANGE: u64 = 0b101;

    /// EPD1: no walks for the upper half.
    const EPD1: u64 = 1 << 23;

    const TG1_SHIFT: u32 = 30;

    /// 48 bits of address in both halves (T0SZ, T1SZ); inner shareable write-back walks (SH, ORGN, IRGN); 4 KiB pages in the lower half (TG0 =
    /// 0); ASIDs from TTBR0 (A1 = 0), of 8 bits (AS = 0); DS = 0. Nothing in the upper half yet. IPS is what the CPU has.
    pub const BOOT: u64 = Self::half(0) | Self::half(16) | Self::EPD1;

    const fn half(shift: u32) -> u64 {
        (16 | 0b01 << 8 | 0b01 << 10 | 0b11 << 12) << shift
    }

    /// With walks for the upper half, in pages of `granule`.
    pub const fn with_upper_half(boot: u64, granule: Granule) -> u64 {
        let tg1 = match granule {
            Granule::Size16K => 0b01,
            Granule::Size4K => 0b10,
            Granule::Size64K => 0b11,
        };
        boot & !(Self::EPD1 | 0b11 << Self::TG1_SHIFT) | tg1 << Self::TG1_SHIFT
    }
}

/// SCTLR_EL1.
#[derive(Debug)]
pub enum Sctlr {}

impl Sctlr {
    /// Bits that are 1 on CPUs that do not have what they control: LSMAOE, nTLSMD, SPAN, EIS, TSCXT, EOS.
    const RES1: u64 = 1 << 29 | 1 << 28 | 1 << 23 | 1 << 22 | 1 << 20 | 1 << 11;

    /// The MMU, data and instruction caches, and stack alignment checks.
    pub const MMU_ON: u64 = Self::RES1 | 1 << 12 | 1 << 3 | 1 << 2 | 1;
}

/// Why a granule is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GranuleMissing {
    /// The field of ID_AA64MMFR0_EL1 that says so.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
}

/// Whether the CPU has `granule` for stage 1 (ID_AA64MMFR0_EL1).
///
/// # Errors
///
/// What says that it has not.
pub fn has_granule(granule: Granule) -> Result<(), GranuleMissing> {
    let register: u64;
    // SAFETY: reads a register, at EL1.
    unsafe {
        asm!(
            "mrs {}, id_aa64mmfr0_el1",
            out(reg) register,
            options(nomem, nostack, preserves_flags, pure)
        )
    };
    let (field, shift, missing) = match granule {
        Granule::Size4K => ("TGran4", 28, 0xf),
        Granule::Size16K => ("TGran16", 20, 0),
        Granule::Size64K => ("TGran64", 24, 0xf),
    };
    match register >> shift & 0xf {
        value if value == missing => Err(GranuleMissing { field, value }),
        _ => Ok(()),
    }
}
