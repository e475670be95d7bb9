//! Touching an address and coming back.

mod cpu;

pub use cpu::{Accesses, CpuProbe, Places};

use core::fmt;
use mm_core::addr::{PhysAddr, VirtAddr};

/// What the fault handler has recorded of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The address that the hardware reported.
    pub at: VirtAddr,
    /// Why.
    pub kind: FaultKind,
}

/// Why an access faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// There is no translation.
    NotMapped,
    /// There is one, and it does not allow the access.
    NotAllowed,
    /// One of the two; the hardware does not say which.
    NotTold,
    /// Something else; the hardware's own code for it.
    Other(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FaultKind::NotMapped => write!(f, "fault at {}: not mapped", self.at),
            FaultKind::NotAllowed => write!(f, "fault at {}: not allowed", self.at),
            FaultKind::NotTold => write!(f, "fault at {}: not mapped or not allowed", self.at),
            FaultKind::Other(code) => write!(f, "fault at {}: code {code:#x}", self.at),
        }
    }
}

/// What the MMU says of an address without an access to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// What it translates to for loads.
    pub load: Option<PhysAddr>,
    /// What it translates to for stores.
    pub store: Option<PhysAddr>,
}

/// Loads and stores that the MMU translates, by a kernel whose fault handler records a fault and
/// resumes.
///
/// # Safety
///
/// 1. The access is made by the CPU, at exactly that address, once.
/// 2. A fault is answered by `Err`, with what the handler was told, and by nothing else.
pub unsafe trait Probe {
    /// Loads the word at `at`, which is a multiple of 8 in the vmemmap.
    ///
    /// # Errors
    ///
    /// The [`Fault`].
    fn load(&self, at: VirtAddr) -> Result<u64, Fault>;

    /// Stores a word at `at`, which is a multiple of 8.
    ///
    /// # Errors
    ///
    /// The [`Fault`].
    ///
    /// # Safety
    ///
    /// 1. At `at` lies an atomic of a descriptor that may have that value, or nothing at all.
    unsafe fn store(&self, at: VirtAddr, value: u64) -> Result<(), Fault>;

    /// How many faults the handler has recorded so far.
    fn faults(&self) -> u64;

    /// What the MMU says of `at`; `None` where no instruction asks it.
    fn ask(&self, at: VirtAddr) -> Option<Hardware> {
        let _ = at;
        None
    }

    /// A counter that goes up with time, or with instructions where a machine is set up so; `None` where
    /// there is none.
    fn ticks(&self) -> Option<u64> {
        None
    }
}
