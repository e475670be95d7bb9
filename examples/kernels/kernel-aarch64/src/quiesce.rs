//! Keeping everybody from addresses whose entries are being exchanged, on a machine with one CPU.

use arch_aarch64::Quiesce;
use core::arch::asm;
use mm_core::addr::VirtRange;

/// With interrupts masked, nothing runs on the only CPU but the work itself.
///
/// A kernel with more CPUs has to keep the others away as well. It sends each an interrupt, or stops them in another way, and waits until all
/// have said that they are in code that touches no descriptor (nor waits for a lock that this CPU holds); or it lets its handler of
/// translation faults wait, for addresses in the range, until the work is done, and return to the access. The first is simple and stops the
/// machine for as long as a batch takes, a few dozen entries and a flush; the second stops only who touches the range. Walks of the hardware
/// itself may go on in both.
#[derive(Clone, Copy, Debug)]
pub struct InterruptsMasked(());

impl InterruptsMasked {
    /// # Safety
    ///
    /// 1. The value is used at EL1.
    /// 2. No other CPU was started.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: 1: there is no other CPU (duty 2 of `new`), and on this one no handler of an interrupt comes in between. 2: it is called once,
// here.
unsafe impl Quiesce for InterruptsMasked {
    fn quiesce(&self, _range: VirtRange, work: &mut dyn FnMut()) {
        let before: u64;
        // SAFETY: at EL1 (duty 1 of `new`): PSTATE.DAIF may be read and set.
        unsafe {
            asm!("mrs {}, daif", "msr daifset, #0xf", out(reg) before, options(nostack, preserves_flags))
        };
        work();
        // SAFETY: as above; what was masked before is masked still.
        unsafe { asm!("msr daif, {}", in(reg) before, options(nostack, preserves_flags)) };
    }
}
