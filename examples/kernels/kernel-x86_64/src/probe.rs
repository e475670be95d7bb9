//! Touching an address: the one load and the one store that may fault, and where they go on when they do.

use core::arch::global_asm;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicU64, Ordering};
use experiment::{Fault, FaultKind, Probe};
use mm_core::addr::VirtAddr;

global_asm!(
    r#"
    .pushsection .text.probe, "ax", @progbits
    # RDI = address, RSI = where the word goes. EAX = whether it faulted.
probe_load:
probe_load_access:
    mov rax, [rdi]
    mov [rsi], rax
    xor eax, eax
    ret

    # RDI = address, RSI = the word.
probe_store:
probe_store_access:
    mov [rdi], rsi
    xor eax, eax
    ret

probe_landing:
    mov eax, 1
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
static LAST_CODE: AtomicU64 = AtomicU64::new(0);

/// Page-fault error codes (SDM, volume 3A, "Interrupt 14—Page-Fault Exception").
const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;

/// Where an access at `rip` goes on after a fault, if it may fault at all.
pub fn landing_of(rip: u64) -> Option<u64> {
    let accesses = [
        addr_of!(probe_load_access) as u64,
        addr_of!(probe_store_access) as u64,
    ];
    accesses
        .contains(&rip)
        .then_some(addr_of!(probe_landing) as u64)
}

/// What the page-fault handler has seen.
pub fn record(address: u64, code: u64) {
    LAST_ADDRESS.store(address, Ordering::Relaxed);
    LAST_CODE.store(code, Ordering::Relaxed);
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
    let code = LAST_CODE.load(Ordering::Relaxed);
    Fault {
        at: VirtAddr::new(LAST_ADDRESS.load(Ordering::Relaxed)),
        kind: match code & !WRITE {
            0 => FaultKind::NotMapped,
            PRESENT => FaultKind::NotAllowed,
            _ => FaultKind::Other(code),
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
