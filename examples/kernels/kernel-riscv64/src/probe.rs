//! Touching an address: the one load and the one store that may fault, and where they go on when they do.

use core::arch::{asm, global_asm};
use core::ptr::addr_of;
use experiment::{Accesses, FaultKind, Places};

global_asm!(
    r#"
    .pushsection .text.probe, "ax", @progbits
    .globl probe_load, probe_load_access, probe_store, probe_store_access, probe_landing
    // A0 = address, A1 = where the word goes. A0 = whether it faulted.
probe_load:
probe_load_access:
    ld t0, 0(a0)
    sd t0, 0(a1)
    li a0, 0
    ret

    // A0 = address, A1 = the word.
probe_store:
probe_store_access:
    sd a1, 0(a0)
    li a0, 0
    ret

probe_landing:
    li a0, 1
    ret
    .popsection
    "#
);

unsafe extern "C" {
    fn probe_load(at: u64, word: *mut u64) -> bool;
    fn probe_store(at: u64, word: u64) -> bool;
    static probe_load_access: u8;
    static probe_store_access: u8;
    static probe_landing: u8;
}

/// scause (privileged manual, 4.1.8): a page fault of a load, and of a store.
const LOAD_PAGE_FAULT: u64 = 13;
const STORE_PAGE_FAULT: u64 = 15;

/// The instructions above.
#[derive(Debug)]
pub enum Instructions {}

// SAFETY: 1: one instruction each. 2: the landing pad says so. 3: `exceptions` does.
unsafe impl Accesses for Instructions {
    const LOAD: unsafe extern "C" fn(u64, *mut u64) -> bool = probe_load;
    const STORE: unsafe extern "C" fn(u64, u64) -> bool = probe_store;

    fn places() -> Places {
        Places {
            load: addr_of!(probe_load_access),
            store: addr_of!(probe_store_access),
            landing: addr_of!(probe_landing),
        }
    }

    fn kind(code: u64) -> FaultKind {
        match code {
            LOAD_PAGE_FAULT | STORE_PAGE_FAULT => FaultKind::NotTold,
            _ => FaultKind::Other(code),
        }
    }

    /// The time.
    fn ticks() -> u64 {
        let ticks: u64;
        // SAFETY: reads a register that firmware lets supervisor mode read; the fence keeps what comes before in front.
        unsafe { asm!("fence", "rdtime {}", out(reg) ticks, options(nostack, preserves_flags)) };
        ticks
    }
}
