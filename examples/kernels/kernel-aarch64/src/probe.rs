//! Touching an address: the one load and the one store that may fault, and where they go on when they do; and what the MMU says
//! of an address when it is asked.

use core::arch::{asm, global_asm};
use core::ptr::addr_of;
use experiment::{Accesses, FaultKind, Hardware, Places};
use mm_core::addr::{PhysAddr, VirtAddr};

global_asm!(
    r#"
    .pushsection .text.probe, "ax", @progbits
    .globl probe_load, probe_load_access, probe_store, probe_store_access, probe_landing
    // X0 = address, X1 = where the word goes. W0 = whether it faulted.
probe_load:
probe_load_access:
    ldr x2, [x0]
    str x2, [x1]
    mov w0, #0
    ret

    // X0 = address, X1 = the word.
probe_store:
probe_store_access:
    str x1, [x0]
    mov w0, #0
    ret

probe_landing:
    mov w0, #1
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

/// DFSC of a data abort (Arm ARM, "ESR_EL1", "ISS encoding for an exception from a Data Abort"), without the level.
const STATUS: u64 = 0b11_1100;
const TRANSLATION_FAULT: u64 = 0b00_0100;
const PERMISSION_FAULT: u64 = 0b00_1100;

/// PAR_EL1.F: there is no translation, or none that allows the access.
const FAILED: u64 = 1;

/// PAR_EL1.PA: bits 47 to 12 of the address.
const ADDRESS: u64 = (1 << 48) - (1 << 12);

/// The instructions above.
#[derive(Debug)]
pub enum Instructions {}

/// What PAR_EL1 says.
fn address_of(par: u64) -> Option<PhysAddr> {
    (par & FAILED == 0).then_some(PhysAddr::new(par & ADDRESS))
}

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
        match code & STATUS {
            TRANSLATION_FAULT => FaultKind::NotMapped,
            PERMISSION_FAULT => FaultKind::NotAllowed,
            _ => FaultKind::Other(code),
        }
    }

    /// Arm ARM, "Address translation instructions".
    fn ask(at: VirtAddr) -> Option<Hardware> {
        let (load, store): (u64, u64);
        // SAFETY: at EL1, translates like an access at EL1 but accesses nothing; PAR_EL1 is nobody else's, since no exception handler that
        // returns here uses it.
        unsafe {
            asm!(
                "at s1e1r, {at}",
                "isb",
                "mrs {load}, par_el1",
                "at s1e1w, {at}",
                "isb",
                "mrs {store}, par_el1",
                at = in(reg) at.get(),
                load = out(reg) load,
                store = out(reg) store,
                options(nostack, preserves_flags)
            )
        };
        Some(Hardware {
            load: address_of(load),
            store: address_of(store),
        })
    }

    /// The virtual counter.
    fn ticks() -> u64 {
        let ticks: u64;
        // SAFETY: reads a register that EL1 may read (Arm ARM, "CNTVCT_EL0"); the barrier keeps what comes before in front.
        unsafe {
            asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags))
        };
        ticks
    }
}
