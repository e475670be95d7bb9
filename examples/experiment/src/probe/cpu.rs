//! A [`Probe`] on a CPU: two instructions that may fault, and what the fault handler writes down.

use super::{Fault, FaultKind, Hardware, Probe};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};
use mm_core::addr::VirtAddr;

/// How often probes have faulted, and the address and the hardware's code of the last fault. One
/// CPU probes.
static FAULTS: AtomicU64 = AtomicU64::new(0);
static LAST_ADDRESS: AtomicU64 = AtomicU64::new(0);
static LAST_CODE: AtomicU64 = AtomicU64::new(0);

/// Where an architecture's instructions lie.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The load that may fault.
    pub load: *const u8,
    /// The store that may.
    pub store: *const u8,
    /// Where either goes on when it has.
    pub landing: *const u8,
}

/// The instructions of an architecture.
///
/// # Safety
///
/// 1. `LOAD` loads the word at an address and puts it elsewhere, `STORE` stores a word at an address,
///    by one instruction each, which `places` names. Both answer that they have not faulted.
/// 2. At `landing` either returns with the answer that it has.
/// 3. The kernel's fault handler asks `answer_fault` and goes on where that says.
pub unsafe trait Accesses {
    /// The load.
    const LOAD: unsafe extern "C" fn(at: u64, word: *mut u64) -> bool;

    /// The store.
    const STORE: unsafe extern "C" fn(at: u64, word: u64) -> bool;

    /// Where their instructions lie.
    fn places() -> Places;

    /// What the hardware's code for a fault means. Where it does not tell what is not mapped from what is not
    /// allowed, [`FaultKind::NotTold`]: a [`CpuProbe`] finds out.
    fn kind(code: u64) -> FaultKind;

    /// What the MMU says of `at`, where an instruction asks it.
    fn ask(at: VirtAddr) -> Option<Hardware> {
        let _ = at;
        None
    }

    /// The CPU's counter of time.
    fn ticks() -> u64;

    /// Called by the fault handler: the instruction at `pc` has faulted, at `address` and with the
    /// hardware's `code`. Where it goes on, if it is one that may fault; it is written down then.
    fn answer_fault(pc: u64, address: u64, code: u64) -> Option<u64> {
        let Places {
            load,
            store,
            landing,
        } = Self::places();
        if pc != load as u64 && pc != store as u64 {
            return None;
        }
        LAST_ADDRESS.store(address, Ordering::Relaxed);
        LAST_CODE.store(code, Ordering::Relaxed);
        FAULTS.fetch_add(1, Ordering::Relaxed);
        Some(landing as u64)
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

/// `fault`, of a page that can be loaded from if it is mapped, with its kind found out where the hardware does not tell.
fn told(fault: Fault, is_mapped: impl FnOnce() -> bool) -> Fault {
    let kind = match fault.kind {
        FaultKind::NotTold if is_mapped() => FaultKind::NotAllowed,
        FaultKind::NotTold => FaultKind::NotMapped,
        kind => kind,
    };
    Fault { kind, ..fault }
}

/// Whether `at` can be loaded from. That it cannot is not counted as a fault.
fn is_mapped<A: Accesses>(at: VirtAddr) -> bool {
    let mut word = 0;
    // SAFETY: a load has no effect on memory, and a fault is answered (duty 1 of `CpuProbe::new`, of whose probes this is part).
    let has_faulted = unsafe { A::LOAD(at.get(), &mut word) };
    FAULTS.fetch_sub(u64::from(has_faulted), Ordering::Relaxed);
    !has_faulted
}

fn last_fault<A: Accesses>() -> Fault {
    Fault {
        at: VirtAddr::new(LAST_ADDRESS.load(Ordering::Relaxed)),
        kind: A::kind(LAST_CODE.load(Ordering::Relaxed)),
    }
}

// SAFETY: 1: duty 1 of `Accesses`. 2: duties 2 and 3, and duty 1 of `new`.
unsafe impl<A: Accesses> Probe for CpuProbe<A> {
    fn load(&self, at: VirtAddr) -> Result<u64, Fault> {
        let mut word = 0;
        // SAFETY: a load has no effect on memory, and a fault is answered (duty 1 of `new`).
        match unsafe { A::LOAD(at.get(), &mut word) } {
            false => Ok(word),
            true => Err(told(last_fault::<A>(), || false)),
        }
    }

    unsafe fn store(&self, at: VirtAddr, value: u64) -> Result<(), Fault> {
        // SAFETY: an atomic that may have the value, or nothing (duty 1); a fault is answered (duty 1
        // of `new`).
        match unsafe { A::STORE(at.get(), value) } {
            false => Ok(()),
            // What cannot be stored to and can be loaded from is mapped.
            true => Err(told(last_fault::<A>(), || is_mapped::<A>(at))),
        }
    }

    fn faults(&self) -> u64 {
        FAULTS.load(Ordering::Relaxed)
    }

    fn ask(&self, at: VirtAddr) -> Option<Hardware> {
        A::ask(at)
    }

    fn ticks(&self) -> Option<u64> {
        Some(A::ticks())
    }
}
