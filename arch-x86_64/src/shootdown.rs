//! How a kernel reaches its other CPUs, so that they forget too.
//!
//! ```text
//!   Tlb::flush ▶ FlushRequest ─┬─▶ here
//!                              └─▶ Shootdown::on_other_cpus ▶ FlushRequest::execute there
//! ```
//!
//! A kernel that has an interrupt for this already implements [`Shootdown`]. One that has none takes
//! a [`Mailbox`](crate::Mailbox).

use crate::instructions::{TlbInstructions, flush_here};
use mm_core::addr::{VirtAddr, VirtRange};
use mm_core::paging::{Flush, FlushScope};

/// What CPUs have to forget, as plain data: a kernel copies it to where its other CPUs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushRequest {
    /// As many as are used; others are of one address.
    ranges: [VirtRange; Self::RANGES],
    used: usize,
    everything: bool,
}

impl FlushRequest {
    /// How many ranges there can be: as many as a page table asks for. A scope of more is everything.
    pub const RANGES: usize = Flush::RANGES;

    /// Nothing.
    pub const NOTHING: Self = Self {
        ranges: [VirtRange::single(VirtAddr::new(0)); Self::RANGES],
        used: 0,
        everything: false,
    };

    /// Everything, global translations included.
    pub const EVERYTHING: Self = Self {
        everything: true,
        ..Self::NOTHING
    };

    /// What `scope` says.
    pub fn new(scope: FlushScope<'_>) -> Self {
        let ranges = match scope {
            FlushScope::Nothing => &[],
            // INVLPG reaches the links on the way to an address in any case.
            FlushScope::Leaves(ranges) | FlushScope::Ranges(ranges) => ranges,
            FlushScope::Everything => return Self::EVERYTHING,
        };
        let mut request = Self::NOTHING;
        match request.ranges.get_mut(..ranges.len()) {
            Some(places) => {
                places.copy_from_slice(ranges);
                request.used = ranges.len();
                request
            }
            None => Self::EVERYTHING,
        }
    }

    /// The scope again.
    pub fn scope(&self) -> FlushScope<'_> {
        match self.ranges.get(..self.used) {
            _ if self.everything => FlushScope::Everything,
            None | Some([]) => FlushScope::Nothing,
            Some(ranges) => FlushScope::Ranges(ranges),
        }
    }

    /// Makes the CPU that this runs on forget. To do it once too often costs time and nothing else.
    pub fn execute(&self, instructions: &impl TlbInstructions) {
        flush_here(instructions, self.scope());
    }
}

/// How the kernel reaches its other CPUs.
///
/// # For implementers
///
/// Usually an inter-processor interrupt and a count of answers; [`Mailbox`](crate::Mailbox) is one.
/// It is called with the kernel's page-table lock held, after this CPU has forgotten: whoever waits
/// for that lock with interrupts disabled must still answer, and this CPU must not be exchanged for
/// another from before the flush until its end (preemption is off).
///
/// What the engine has stored is ordered before the call: see the fence of [`Tlb`](crate::Tlb). What
/// this stores itself, to say what is to be done, it orders before its interrupt itself: a write of
/// the x2APIC's interrupt command register is not ordered with it, so MFENCE and LFENCE come between
/// (SDM, "MSR Access in x2APIC Mode").
///
/// # Safety
///
/// 1. When `on_other_cpus` returns, the request has been [executed](FlushRequest::execute) on every
///    CPU but this one that uses the page tables, by instructions of that CPU. (Not later: a
///    processor walks tables of its own accord, also those that were freed.)
pub unsafe trait Shootdown {
    /// Has `request` executed on every other CPU, and waits for all of them.
    fn on_other_cpus(&self, request: &FlushRequest);
}

// SAFETY: 1 holds because it holds for the value behind the reference.
unsafe impl<T: Shootdown + ?Sized> Shootdown for &T {
    fn on_other_cpus(&self, request: &FlushRequest) {
        (**self).on_other_cpus(request)
    }
}

/// There is one CPU.
#[derive(Clone, Copy, Debug)]
pub struct SingleCpu(());

impl SingleCpu {
    /// Says that there is no other CPU to reach.
    ///
    /// # Safety
    ///
    /// 1. As long as the value is used, no other CPU uses the page tables.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: 1: there are no other CPUs (duty 1 of `new`).
unsafe impl Shootdown for SingleCpu {
    fn on_other_cpus(&self, _request: &FlushRequest) {}
}
