//! Keeping everybody from addresses whose entries are being exchanged.
//!
//! ```text
//!   this CPU, interrupts masked        each other CPU
//!   Stop ─────────────────────────────▶ in its handler: stopped ▶ the last one: Wake
//!   all have stopped ▶ the work         waits, in code and data of the image
//!   released ▶ Wake ──────────────────▶ goes on
//! ```
//!
//! This stops the machine for as long as a batch takes, a few dozen entries and a flush. Another way stops only who touches the range: the
//! handler of translation faults waits until the work is done, and returns to the access. Walks of the hardware itself may go on in both.

use crate::cpus::{Arm, Interrupt, interrupt, wait_for_interrupt};
use arch_aarch64::Quiesce;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use experiment::{MOST_CPUS, Processor, others_than};
use mm_core::addr::VirtRange;

/// The newest stop, who asks for it, and the newest that is over.
static NEWEST: AtomicU64 = AtomicU64::new(0);
static ASKING: AtomicUsize = AtomicUsize::new(0);
static RELEASED: AtomicU64 = AtomicU64::new(0);

/// The newest stop that each CPU has stopped for.
static STOPPED: [AtomicU64; MOST_CPUS] = [const { AtomicU64::new(0) }; MOST_CPUS];

/// Whether all CPUs but `asking` have stopped for `stop`.
fn all_have_stopped(asking: usize, stop: u64) -> bool {
    let mut others = others_than(asking).filter_map(|number| STOPPED.get(number));
    others.all(|stopped| stopped.load(Ordering::SeqCst) >= stop)
}

/// Called at the interrupt, with interrupts masked and the interrupt done.
pub fn stop_here() {
    let stop = NEWEST.load(Ordering::SeqCst);
    let asking = ASKING.load(Ordering::SeqCst);
    if let Some(stopped) = STOPPED.get(Arm::this_cpu()) {
        stopped.store(stop, Ordering::SeqCst);
    }
    // Of those that stop at the same time, one at least sees what all have stored.
    if all_have_stopped(asking, stop) {
        interrupt(asking, Interrupt::Wake);
    }
    while RELEASED.load(Ordering::Acquire) < stop {
        wait_for_interrupt();
    }
}

/// All other CPUs that have started are stopped, and interrupts are masked on this one. Before there are others, that is all.
///
/// Others stop once their interrupts are on, so none of them is under a reader's guard then; one that waits for a round of interrupts stops
/// as well. Whoever waits with interrupts masked for something that this CPU has would never stop: nobody does that here.
#[derive(Clone, Copy, Debug)]
pub struct OthersStopped(());

impl OthersStopped {
    /// # Safety
    ///
    /// 1. The value is used at EL1, by one CPU at a time.
    /// 2. CPUs that have not said that they have started touch no descriptor.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: 1: each other CPU that uses descriptors (duty 2 of `new`) has said that it is in `stop_here`, and stays there until it is released;
// code, stacks and what is looked at there lie in the image, and are mapped by the lower half. On this CPU no handler of an interrupt comes
// in between. 2: it is called once, here.
unsafe impl Quiesce for OthersStopped {
    fn quiesce(&self, _range: VirtRange, work: &mut dyn FnMut()) {
        let were_enabled = Arm::mask();
        let this = Arm::this_cpu();
        ASKING.store(this, Ordering::SeqCst);
        let stop = NEWEST.fetch_add(1, Ordering::SeqCst) + 1;
        let others = others_than(this);
        let all = |why| others.clone().for_each(|number| interrupt(number, why));
        all(Interrupt::Stop);
        while !all_have_stopped(this, stop) {
            wait_for_interrupt();
        }
        work();
        RELEASED.store(stop, Ordering::Release);
        all(Interrupt::Wake);
        if were_enabled {
            Arm::unmask();
        }
    }
}
