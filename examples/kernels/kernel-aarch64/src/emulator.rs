//! The emulator's configuration device (QEMU, *QEMU Firmware Configuration (fw_cfg) Device*).

use core::arch::asm;
use mm_core::addr::PhysAddr;

/// Where the machine `virt` has it.
pub const BASE: u64 = 0x0902_0000;

/// The register for the address of a request.
const REQUEST: u64 = 0x10;

/// Tells the device that a request lies at `at`.
///
/// # Safety
///
/// 1. As for [`TellDevice`](experiment::TellDevice).
pub unsafe fn tell(at: PhysAddr) {
    let register = core::ptr::with_exposed_provenance_mut::<u64>((BASE + REQUEST) as usize);
    // SAFETY: the device's register, mapped where it is by the kernel's tables, behind a barrier. What that makes the device do to memory is
    // what the request says (duty 1).
    unsafe {
        asm!("dsb sy", options(nostack, preserves_flags));
        register.write_volatile(at.get().to_be());
    }
}
