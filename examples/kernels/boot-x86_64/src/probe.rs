//! Touching an address: the one load and the one store that may fault, and where they go on when they do.

use core::arch::global_asm;
use core::arch::x86_64::{_mm_lfence, _rdtsc};
use core::ptr::addr_of;
use experiment::{Accesses, FaultKind, Places};

global_asm!(
    r#"
    .pushsection .text.probe, "ax", @progbits
    .globl probe_load, probe_load_access, probe_store, probe_store_access, probe_landing
    # RDI = address, RSI = where the word goes. AL = whether it faulted.
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
    fn probe_load(at: u64, word: *mut u64) -> bool;
    fn probe_store(at: u64, word: u64) -> bool;
    static probe_load_access: u8;
    static probe_store_access: u8;
    static probe_landing: u8;
}

/// Page-fault error codes (SDM, volume 3A, "Interrupt 14—Page-Fault Exception").
const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;

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
        match code & !WRITE {
            0 => FaultKind::NotMapped,
            PRESENT => FaultKind::NotAllowed,
            _ => FaultKind::Other(code),
        }
    }

    /// The time-stamp counter.
    fn ticks() -> u64 {
        // SAFETY: every CPU in 64-bit mode has both; this is ring 0.
        unsafe {
            _mm_lfence();
            _rdtsc()
        }
    }
}
