//! The emulator's configuration device (QEMU, *QEMU Firmware Configuration (fw_cfg) Device*).

use core::arch::asm;
use mm_core::addr::PhysAddr;

/// The port of the first half of a request's address, and that of the second.
const PORTS: [u16; 2] = [0x514, 0x518];

/// Tells the device that a request lies at `at`.
///
/// # Safety
///
/// 1. As for [`TellDevice`](experiment::TellDevice).
pub unsafe fn tell(at: PhysAddr) {
    let halves = [at.get() >> 32, at.get()].map(|half| (half as u32).to_be());
    for (port, half) in PORTS.into_iter().zip(halves) {
        // SAFETY: the device's port, in ring 0. What the second one makes the device do to memory is what the request says (duty 1).
        unsafe {
            asm!("out dx, eax", in("dx") port, in("eax") half, options(nostack, preserves_flags));
        }
    }
}
