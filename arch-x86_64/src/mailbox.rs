//! A ready [`Shootdown`]: one request at a time, and for each CPU what it was asked and has answered.
//!
//! ```text
//!   one CPU                                   each other that takes part
//!   lock the mailbox, write the request
//!   asked = n for each ▶ fence ▶ interrupt ──▶ asked > answered: execute the request
//!   wait: answered = n for each ◀───────────── answered = n
//!   unlock
//! ```

use crate::instructions::TlbInstructions;
use crate::shootdown::{FlushRequest, Shootdown};
use core::fmt;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use mm_core::addr::{VirtAddr, VirtRange};
use mm_core::paging::FlushScope;

/// What a kernel brings to a [`Mailbox`].
///
/// # Safety
///
/// 1. `this_cpu` answers with the number of the CPU that it is called on. Each CPU has another, and
///    from before a call of the mailbox's until its end the caller stays on its CPU.
/// 2. After `interrupt`, the CPU calls [`Mailbox::answer`] before long: in the interrupt's handler,
///    or, where it waits for a lock with interrupts disabled, while it waits.
pub unsafe trait Interrupts {
    /// The number of the CPU that this runs on, counted from 0.
    fn this_cpu(&self) -> usize;

    /// Sends an interrupt to another CPU.
    fn interrupt(&self, cpu: usize);
}

/// A CPU's place in a [`Mailbox`]. Each has a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub struct MailboxSlot {
    /// Whether the CPU uses the page tables.
    takes_part: AtomicBool,
    /// The newest request that it was asked to execute.
    asked: AtomicU64,
    /// The newest that it has executed.
    answered: AtomicU64,
}

impl MailboxSlot {
    /// The place of a CPU that does not take part yet.
    pub const fn new() -> Self {
        Self {
            takes_part: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        }
    }
}

impl Default for MailboxSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// A mailbox has no place for a CPU with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSlot {
    /// The CPU's number.
    pub cpu: usize,
    /// How many places there are.
    pub slots: usize,
}

impl fmt::Display for NoSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CPU {} has no slot among {}; give the mailbox one for each CPU that can start",
            self.cpu, self.slots
        )
    }
}

impl core::error::Error for NoSlot {}

/// The request, in words: a CPU that is interrupted while it reads one that it need not answer any
/// more may meet the next one half written.
#[derive(Debug)]
struct Request {
    everything: AtomicBool,
    used: AtomicU64,
    ranges: [[AtomicU64; 2]; FlushRequest::RANGES],
}

impl Request {
    const fn new() -> Self {
        Self {
            everything: AtomicBool::new(false),
            used: AtomicU64::new(0),
            ranges: [const { [AtomicU64::new(0), AtomicU64::new(0)] }; FlushRequest::RANGES],
        }
    }

    fn write(&self, request: &FlushRequest) {
        let (everything, ranges): (bool, &[VirtRange]) = match request.scope() {
            FlushScope::Nothing => (false, &[]),
            FlushScope::Leaves(ranges) | FlushScope::Ranges(ranges) => (false, ranges),
            FlushScope::Everything => (true, &[]),
        };
        self.everything.store(everything, Ordering::Relaxed);
        self.used.store(ranges.len() as u64, Ordering::Relaxed);
        for ([start, last], range) in self.ranges.iter().zip(ranges) {
            start.store(range.start().get(), Ordering::Relaxed);
            last.store(range.last().get(), Ordering::Relaxed);
        }
    }

    fn read(&self) -> FlushRequest {
        if self.everything.load(Ordering::Relaxed) {
            return FlushRequest::EVERYTHING;
        }
        let used = self.used.load(Ordering::Relaxed) as usize;
        let address = |word: &AtomicU64| VirtAddr::new(word.load(Ordering::Relaxed));
        let mut ranges = [VirtRange::single(VirtAddr::new(0)); FlushRequest::RANGES];
        for ([start, last], range) in self.ranges.iter().zip(&mut ranges).take(used) {
            match VirtRange::between(address(start), address(last)) {
                Some(read) => *range = read,
                None => return FlushRequest::EVERYTHING,
            }
        }
        match ranges.get(..used) {
            Some(ranges) => FlushRequest::new(FlushScope::Ranges(ranges)),
            None => FlushRequest::EVERYTHING,
        }
    }
}

/// A ready [`Shootdown`], for kernels that have nothing of the kind: `C` sends interrupts, `I` are
/// the instructions.
///
/// It lies in a `static`. Each CPU [joins](Self::join) before it uses the page tables. The handler of
/// the interrupt calls [`answer`](Self::answer), and so does whoever waits for a lock with interrupts
/// disabled, if the lock may be held by a CPU that flushes.
///
/// ```
/// use arch_x86_64::{Interrupts, Mailbox, MailboxSlot, TlbInstructions};
///
/// // One for each CPU that can start.
/// static SLOTS: [MailboxSlot; 64] = [const { MailboxSlot::new() }; 64];
///
/// /// The handler of the kernel's interrupt.
/// fn handle_shootdown(mailbox: &Mailbox<'_, impl Interrupts, impl TlbInstructions>) {
///     mailbox.answer();
///     // End of interrupt.
/// }
/// ```
#[derive(Debug)]
pub struct Mailbox<'s, C, I> {
    kernel: C,
    instructions: I,
    slots: &'s [MailboxSlot],
    /// Whether a CPU has a request out.
    is_busy: AtomicBool,
    /// The number of the newest request.
    number: AtomicU64,
    request: Request,
}

impl<'s, C: Interrupts, I: TlbInstructions> Mailbox<'s, C, I> {
    /// A mailbox in which no CPU takes part yet. `slots` are for the CPUs with their indices as
    /// numbers.
    ///
    /// # Safety
    ///
    /// 1. `slots` are for this mailbox alone, and as they were made.
    /// 2. Each CPU [joins](Self::join) before it uses the page tables that are flushed by this.
    pub const unsafe fn new(kernel: C, instructions: I, slots: &'s [MailboxSlot]) -> Self {
        Self {
            kernel,
            instructions,
            slots,
            is_busy: AtomicBool::new(false),
            number: AtomicU64::new(0),
            request: Request::new(),
        }
    }

    /// The CPU that this runs on takes part from now on. It forgets everything.
    ///
    /// # Errors
    ///
    /// [`NoSlot`], and it does not take part.
    pub fn join(&self) -> Result<(), NoSlot> {
        let cpu = self.kernel.this_cpu();
        let slot = self.slots.get(cpu).ok_or(NoSlot {
            cpu,
            slots: self.slots.len(),
        })?;
        slot.takes_part.store(true, Ordering::SeqCst);
        // Either whoever flushes sees that this CPU takes part, or this CPU sees what was stored to
        // the tables.
        fence(Ordering::SeqCst);
        self.instructions.fence();
        FlushRequest::EVERYTHING.execute(&self.instructions);
        // What it was asked for before it left the last time.
        self.answer();
        Ok(())
    }

    /// The CPU that this runs on takes no part any more, until it joins again.
    ///
    /// # Safety
    ///
    /// 1. Until then it does not use the page tables.
    pub unsafe fn leave(&self) {
        if let Some(slot) = self.slots.get(self.kernel.this_cpu()) {
            slot.takes_part.store(false, Ordering::SeqCst);
        }
    }

    /// Executes on the CPU that this runs on what it was asked for, if there is something.
    pub fn answer(&self) {
        let Some(slot) = self.slots.get(self.kernel.this_cpu()) else {
            return;
        };
        let asked = slot.asked.load(Ordering::Acquire);
        if slot.answered.load(Ordering::Relaxed) < asked {
            self.request.read().execute(&self.instructions);
            // An interrupt in between may have answered this one and later ones.
            slot.answered.fetch_max(asked, Ordering::Release);
        }
    }

    fn lock(&self) {
        while self.is_busy.swap(true, Ordering::Acquire) {
            // Whoever holds it may wait for this CPU.
            self.answer();
            spin_loop();
        }
    }
}

// SAFETY: 1: every CPU that uses the tables takes part (duty 2 of `new`) and is asked, or it joins
// after what was stored to the tables is visible, and forgets everything. It has executed the
// request, which stays as it is until all have, when it answers.
unsafe impl<C: Interrupts, I: TlbInstructions> Shootdown for Mailbox<'_, C, I> {
    fn on_other_cpus(&self, request: &FlushRequest) {
        self.lock();
        let this = self.kernel.this_cpu();
        self.request.write(request);
        let number = self.number.load(Ordering::Relaxed).wrapping_add(1);
        self.number.store(number, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        for (cpu, slot) in self.slots.iter().enumerate() {
            if cpu != this && slot.takes_part.load(Ordering::SeqCst) {
                slot.asked.store(number, Ordering::Release);
            }
        }
        self.instructions.fence();
        let asked = || {
            let slots = self.slots.iter().enumerate();
            slots.filter(|(_, slot)| slot.asked.load(Ordering::Relaxed) == number)
        };
        asked().for_each(|(cpu, _)| self.kernel.interrupt(cpu));
        for (_, slot) in asked() {
            while slot.answered.load(Ordering::Acquire) < number
                && slot.takes_part.load(Ordering::Acquire)
            {
                spin_loop();
            }
        }
        self.is_busy.store(false, Ordering::Release);
    }
}
