//! Other harts by firmware: the RFENCE extension of the SBI (*RISC-V Supervisor Binary Interface Specification*, "RFENCE Extension").

use crate::remote::{Fence, RemoteFences};
use core::arch::asm;
use core::fmt;
use mm_core::addr::{Granule, VirtRange};

/// The base extension, and its function that asks for another one.
const BASE: u64 = 0x10;
const PROBE_EXTENSION: u64 = 3;

/// The RFENCE extension ("RFNC"), and its function that has harts execute SFENCE.VMA.
const RFENCE: u64 = 0x5246_4e43;
const REMOTE_SFENCE_VMA: u64 = 1;

/// As a base of a mask of harts: all harts.
const ALL_HARTS: u64 = u64::MAX;

/// As a size: all addresses.
const ALL_ADDRESSES: u64 = u64::MAX;

/// Firmware does not have the RFENCE extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRemoteFences;

impl fmt::Display for NoRemoteFences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("firmware has no RFENCE extension; fence other harts by an interrupt of your own (RemoteFences)")
    }
}

impl core::error::Error for NoRemoteFences {}

/// Firmware, which has other harts fence.
#[derive(Clone, Copy, Debug)]
pub struct Sbi(());

impl Sbi {
    /// The firmware that this kernel runs under, if it has the extension.
    ///
    /// # Errors
    ///
    /// [`NoRemoteFences`].
    ///
    /// # Safety
    ///
    /// 1. The value is used in supervisor mode, under firmware that has the SBI (version 0.2 or later), by harts that it has
    ///    started.
    pub unsafe fn new() -> Result<Self, NoRemoteFences> {
        // SAFETY: 1: duty 1. 2: asks, and changes nothing.
        let (error, has) = unsafe { call(BASE, PROBE_EXTENSION, [RFENCE, 0, 0, 0]) };
        if error == 0 && has != 0 {
            Ok(Self(()))
        } else {
            Err(NoRemoteFences)
        }
    }
}

// SAFETY: 1: the call returns when all harts have executed SFENCE.VMA for all of the addresses ("RFENCE Extension"); this one, which is among
// them, has done so already. One that firmware refuses is made again for everything, and then until it is served.
unsafe impl RemoteFences for Sbi {
    fn on_other_harts(&self, fence: Fence<'_>) {
        match fence {
            Fence::Leaves(ranges) => {
                for range in ranges.iter() {
                    if !has_fenced(*range) {
                        return fence_everything();
                    }
                }
            }
            Fence::Everything => fence_everything(),
        }
    }
}

/// Has all harts fence the leaves of `range`; says whether they have.
fn has_fenced(range: VirtRange) -> bool {
    let start = range.start().align_down(Granule::Size4K.shift()).get();
    let bytes = range
        .pages(Granule::Size4K)
        .checked_mul(Granule::Size4K.bytes());
    let Some(bytes) = bytes else {
        return false;
    };
    let arguments = [0, ALL_HARTS, start, bytes];
    // SAFETY: 1: duty 1 of `Sbi::new`. 2: fences have no effect but order.
    unsafe { call(RFENCE, REMOTE_SFENCE_VMA, arguments) }.0 == 0
}

/// Has all harts fence everything.
fn fence_everything() {
    let arguments = [0, ALL_HARTS, 0, ALL_ADDRESSES];
    // Frames would be freed that other harts reach: there is nothing else to do than to ask again.
    // SAFETY: 1: duty 1 of `Sbi::new`. 2: fences have no effect but order.
    while unsafe { call(RFENCE, REMOTE_SFENCE_VMA, arguments) }.0 != 0 {
        core::hint::spin_loop();
    }
}

/// Calls firmware: the error, and the value ("Binary Encoding").
///
/// # Safety
///
/// 1. This is supervisor mode, under firmware with the SBI.
/// 2. The caller bears what the function does.
unsafe fn call(extension: u64, function: u64, arguments: [u64; 4]) -> (u64, u64) {
    let [a0, a1, a2, a3] = arguments;
    let (error, value);
    // SAFETY: 1 and 2: the caller's; all registers but A0 and A1 keep their values.
    unsafe {
        asm!(
            "ecall",
            inlateout("a0") a0 => error,
            inlateout("a1") a1 => value,
            in("a2") a2,
            in("a3") a3,
            in("a6") function,
            in("a7") extension,
            options(nostack, preserves_flags)
        )
    };
    (error, value)
}
