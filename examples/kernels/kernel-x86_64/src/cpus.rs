//! The other CPUs: started, told what to forget, and set to read.
//!
//! ```text
//!   Tlb ▶ Mailbox ▶ interrupt ▶ each CPU forgets and answers
//! ```

use crate::paging::Levels;
use arch_x86_64::{Choices, Cpu, FiveLevel, FourLevel, Interrupts, Mailbox, MailboxSlot};
use boot_x86_64::{
    Interrupt, NotStarted, Processors, StartSetting, Trampoline, X86, interrupt, start_cpus,
};
use experiment::{Cpus, MOST_CPUS, Processor};
use mm_core::addr::Pfn;

/// Interrupts that say that there is something in the mailbox.
#[derive(Clone, Copy, Debug)]
pub struct FlushInterrupts;

// SAFETY: 1: the number is the CPU's own, and there is no scheduler. 2: the handler calls `answer`; interrupts are off
// under a reader's guard and in handlers only.
unsafe impl Interrupts for FlushInterrupts {
    fn this_cpu(&self) -> usize {
        X86::this_cpu()
    }

    fn interrupt(&self, cpu: usize) {
        interrupt(cpu, Interrupt::Flush);
    }
}

static SLOTS: [MailboxSlot; MOST_CPUS] = [const { MailboxSlot::new() }; MOST_CPUS];

/// How all CPUs are told what to forget.
// SAFETY: 1 of `Mailbox::new`: they are used here only. 2: each CPU joins when it has started, before it reads anything of the
// vmemmap. 1 and 2 of `Cpu::new`: this is ring 0, and the virtual machine's CPUs are alike.
pub static MAILBOX: Mailbox<'static, FlushInterrupts, Cpu> =
    unsafe { Mailbox::new(FlushInterrupts, Cpu::new(), &SLOTS) };

/// What a CPU does first: it takes part in flushes, and is set up as the first one.
fn joins() {
    // SAFETY: 1: this is ring 0. 2: as above.
    let cpu = unsafe { Cpu::new() };
    let checked = match Levels::current() {
        Levels::Four => cpu.check::<FourLevel>(Choices::new()),
        Levels::Five => cpu.check::<FiveLevel>(Choices::new()),
    };
    if let Err(error) = checked {
        panic!("CPU {}: {error}", X86::this_cpu());
    }
    if let Err(error) = MAILBOX.join() {
        panic!("{error}");
    }
}

/// Starts the CPUs of `processors`.
///
/// # Errors
///
/// [`NotStarted`].
///
/// # Safety
///
/// 1. The duties of [`start_cpus`].
pub unsafe fn start(
    processors: &Processors,
    trampoline: Trampoline,
    root: Pfn,
) -> Result<Cpus<X86>, NotStarted> {
    let setting = StartSetting {
        processors,
        trampoline,
        root,
        on_start: joins,
        on_flush: || MAILBOX.answer(),
    };
    // SAFETY: 1 to 4: the caller's.
    let cpus = unsafe { start_cpus(&setting) }?;
    joins();
    Ok(cpus)
}
