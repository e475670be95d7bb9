//! Touching an address: the one load and the one store that may fault, and where they go on when they do.

use core::arch::global_asm;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicU64, Ordering};
use experiment::{Fault, FaultKind, Probe};
use mm_core::addr::VirtAddr;

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
    fn probe_load(at: u64, word: *mut u64) -> u32;
    fn probe_store(at: u64, word: u64) -> u32;
    static probe_load_access: u8;
    static probe_store_access: u8;
    static probe_landing: u8;
}

static FAULTS: AtomicU64 = AtomicU64::new(0);
static LAST_ADDRESS: AtomicU64 = AtomicU64::new(0);
static LAST_SYNDROME: AtomicU64 = AtomicU64::new(0);

/// DFSC of a data abort (Arm ARM, "ESR_EL1", "ISS encoding for an exception from a Data Abort"), without the level.
const STATUS: u64 = 0b11_1100;
const TRANSLATION_FAULT: u64 = 0b00_0100;
const PERMISSION_FAULT: u64 = 0b00_1100;

/// Where an access at `pc` goes on after a fault, if it may fault at all.
pub fn landing_of(pc: u64) -> Option<u64> {
    let accesses = [
        addr_of!(probe_load_access) as u64,
        addr_of!(probe_store_access) as u64,
    ];
    accesses
        .contains(&pc)
        .then_some(addr_of!(probe_landing) as u64)
}

/// What the exception handler has seen: FAR_EL1 and ESR_EL1.
pub fn record(address: u64, syndrome: u64) {
    LAST_ADDRESS.store(address, Ordering::Relaxed);
    LAST_SYNDROME.store(syndrome, Ordering::Relaxed);
    FAULTS.fetch_add(1, Ordering::Relaxed);
}

/// Accesses by the CPU that it runs on.
#[derive(Clone, Copy, Debug)]
pub struct CpuProbe(());

impl CpuProbe {
    /// Accesses by this CPU.
    ///
    /// # Safety
    ///
    /// 1. The exception handler is installed.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

fn last_fault() -> Fault {
    let syndrome = LAST_SYNDROME.load(Ordering::Relaxed);
    Fault {
        at: VirtAddr::new(LAST_ADDRESS.load(Ordering::Relaxed)),
        kind: match syndrome & STATUS {
            TRANSLATION_FAULT => FaultKind::NotMapped,
            PERMISSION_FAULT => FaultKind::NotAllowed,
            _ => FaultKind::Other(syndrome),
        },
    }
}

// SAFETY: 1: one instruction each. 2: the handler records and leads to the landing pad.
unsafe impl Probe for CpuProbe {
    fn load(&self, at: VirtAddr) -> Result<u64, Fault> {
        let mut word = 0;
        // SAFETY: the function loads eight bytes, which has no effect on memory, and a fault is handled (duty 1 of `new`).
        match unsafe { probe_load(at.get(), &mut word) } {
            0 => Ok(word),
            _ => Err(last_fault()),
        }
    }

    unsafe fn store(&self, at: VirtAddr, value: u64) -> Result<(), Fault> {
        // SAFETY: an atomic that may have the value, or nothing (the caller's duty); a fault is handled (duty 1 of `new`).
        match unsafe { probe_store(at.get(), value) } {
            0 => Ok(()),
            _ => Err(last_fault()),
        }
    }

    fn faults(&self) -> u64 {
        FAULTS.load(Ordering::Relaxed)
    }
}
