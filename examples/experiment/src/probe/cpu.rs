//! A [`Probe`] on a CPU: two instructions that may fault, and what the fault handler writes down.

use super::{Fault, FaultKind, Hardware, Probe};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};
use mm_core::addr::VirtAddr;

/// What a kernel's fault handler has written down.
#[derive(Debug)]
pub struct FaultLog {
    faults: AtomicU64,
    address: AtomicU64,
    code: AtomicU64,
}

impl FaultLog {
    /// No fault yet.
    #[expect(clippy::new_without_default, reason = "it is a static of the kernel's")]
    pub const fn new() -> Self {
        Self {
            faults: AtomicU64::new(0),
            address: AtomicU64::new(0),
            code: AtomicU64::new(0),
        }
    }

    /// A fault at `address`, with the hardware's `code` for why.
    pub fn record(&self, address: u64, code: u64) {
        self.address.store(address, Ordering::Relaxed);
        self.code.store(code, Ordering::Relaxed);
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    fn last(&self, kind: fn(u64) -> FaultKind) -> Fault {
        Fault {
            at: VirtAddr::new(self.address.load(Ordering::Relaxed)),
            kind: kind(self.code.load(Ordering::Relaxed)),
        }
    }
}

/// The instructions of an architecture.
///
/// # Safety
///
/// 1. `load` and `store` access the word at `at` by one instruction each, at the addresses that
///    `accesses` names.
/// 2. The kernel's fault handler answers a fault of those by recording it in `log` and going on at
///    `landing`, which makes them return that they faulted.
pub unsafe trait Accesses {
    /// What the fault handler writes to.
    fn log() -> &'static FaultLog;

    /// What the hardware's code for a fault means.
    fn kind(code: u64) -> FaultKind;

    /// The addresses of the instructions that may fault.
    fn accesses() -> [u64; 2];

    /// Where they go on when they have.
    fn landing() -> u64;

    /// Loads the word at `at`. Says whether it faulted.
    fn load(at: u64, word: &mut u64) -> bool;

    /// Stores `word` at `at`. Says whether it faulted.
    ///
    /// # Safety
    ///
    /// 1. As for [`Probe::store`].
    unsafe fn store(at: u64, word: u64) -> bool;

    /// What the MMU says of `at`, where an instruction asks it.
    fn ask(at: VirtAddr) -> Option<Hardware> {
        let _ = at;
        None
    }

    /// Where the instruction at `pc` goes on after a fault, if it is one that may.
    fn landing_of(pc: u64) -> Option<u64> {
        Self::accesses().contains(&pc).then(Self::landing)
    }
}

/// Accesses by the CPU that it runs on.
#[derive(Debug)]
pub struct CpuProbe<A>(PhantomData<A>);

impl<A: Accesses> CpuProbe<A> {
    /// Accesses by this CPU.
    ///
    /// # Safety
    ///
    /// 1. The fault handler is installed.
    pub const unsafe fn new() -> Self {
        Self(PhantomData)
    }
}

// SAFETY: 1: duty 1 of `Accesses`. 2: duty 2, and duty 1 of `new`.
unsafe impl<A: Accesses> Probe for CpuProbe<A> {
    fn load(&self, at: VirtAddr) -> Result<u64, Fault> {
        let mut word = 0;
        match A::load(at.get(), &mut word) {
            false => Ok(word),
            true => Err(A::log().last(A::kind)),
        }
    }

    unsafe fn store(&self, at: VirtAddr, value: u64) -> Result<(), Fault> {
        // SAFETY: 1: the caller's duty.
        match unsafe { A::store(at.get(), value) } {
            false => Ok(()),
            true => Err(A::log().last(A::kind)),
        }
    }

    fn faults(&self) -> u64 {
        A::log().faults.load(Ordering::Relaxed)
    }

    fn ask(&self, at: VirtAddr) -> Option<Hardware> {
        A::ask(at)
    }
}
