//! Starting the other CPUs, one after the other.

use super::apic::Command;
use super::{APICS, Interrupt, ON_FLUSH, Trampoline, X86, delay, local_apic, set_this_cpu};
use crate::{exceptions, segments};
use core::fmt;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicU64, Ordering};
use experiment::{Cpus, MOST_CPUS, has_started, idle, is_started};
use mm_core::addr::{Granule, Pfn, PhysAddr};
use spin::Once;
use x86_64::instructions::interrupts;
use x86_64::instructions::port::Port;

/// What the CPU that starts finds: its stack, its number, and the root of the kernel's tables.
pub(super) static STACK: AtomicU64 = AtomicU64::new(0);
pub(super) static NUMBER: AtomicU64 = AtomicU64::new(0);
pub(super) static ROOT: AtomicU64 = AtomicU64::new(0);

/// What each CPU does first.
static ON_START: Once<fn()> = Once::new();

/// How long a CPU is waited for, in hundreds of microseconds.
const PATIENCE: u32 = 50_000;

const STACK_BYTES: u64 = 64 << 10;
const STACK_GAP: u64 = 4 << 10;

unsafe extern "C" {
    static __stack_end: u8;
}

/// Where the stack of CPU `number` starts and ends. Nothing is mapped in front of it.
pub fn stack_of(number: usize) -> (u64, u64) {
    let end = addr_of!(__stack_end) as u64 + number as u64 * (STACK_GAP + STACK_BYTES);
    (end - STACK_BYTES, end)
}

/// The CPUs of a machine, as ACPI's MADT lists them.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    /// Where the registers of each CPU's local APIC are.
    pub local_apic: PhysAddr,
    ids: [u8; MOST_CPUS],
    used: usize,
    left_out: usize,
}

impl Processors {
    /// None yet.
    pub const fn new(local_apic: PhysAddr) -> Self {
        Self {
            local_apic,
            ids: [0; MOST_CPUS],
            used: 0,
            left_out: 0,
        }
    }

    /// Adds the CPU with the local APIC `id`. Those that there is no room for are counted.
    pub fn add(&mut self, id: u8) {
        match self.ids.get_mut(self.used) {
            Some(place) => {
                *place = id;
                self.used += 1;
            }
            None => self.left_out += 1,
        }
    }

    /// The numbers of their local APICs.
    pub fn ids(&self) -> &[u8] {
        self.ids.get(..self.used).unwrap_or_default()
    }

    /// How many there was no room for.
    pub const fn left_out(&self) -> usize {
        self.left_out
    }
}

/// A CPU has not started within a time in which it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotStarted {
    /// The number of its local APIC.
    pub apic: u8,
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the CPU with the local APIC {} does not start",
            self.apic
        )
    }
}

/// With what CPUs start.
#[derive(Clone, Copy, Debug)]
pub struct StartSetting<'s> {
    /// Which.
    pub processors: &'s Processors,
    /// Where.
    pub trampoline: Trampoline,
    /// The root of the kernel's tables.
    pub root: Pfn,
    /// What each of them does first, with interrupts off.
    pub on_start: fn(),
    /// What each CPU does that is interrupted by [`Interrupt::Flush`].
    pub on_flush: fn(),
}

/// Starts all CPUs but this one, which takes interrupts from now on too.
///
/// # Errors
///
/// [`NotStarted`]: the first that has not.
///
/// # Safety
///
/// 1. Called once, on the first CPU, which uses the tables below `root`, below 4 GiB.
/// 2. They map the image, the stacks of all CPUs, and the processors' local APIC at
///    [`LOCAL_APIC`](super::LOCAL_APIC), uncached. The boot code's tables are as they were.
/// 3. The processors are the machine's, and the trampoline still has its code.
/// 4. From now on what other CPUs may see is guarded against them.
pub unsafe fn start(setting: &StartSetting<'_>) -> Result<Cpus<X86>, NotStarted> {
    set_this_cpu(0);
    let this_apic = apic_of_this_cpu();
    ON_START.call_once(|| setting.on_start);
    ON_FLUSH.call_once(|| setting.on_flush);
    mask_legacy_interrupts();
    local_apic().enable(Interrupt::Spurious as u8);
    if let Some(first) = APICS.first() {
        first.store(this_apic, Ordering::Relaxed);
    }
    has_started(0);
    let root = setting.root.base(Granule::Size4K).get();
    ROOT.store(root, Ordering::Relaxed);
    let ids = setting.processors.ids().iter();
    let mut others = 0;
    for &apic in ids.filter(|id| **id != this_apic).take(MOST_CPUS - 1) {
        start_one(others + 1, apic, setting.trampoline)?;
        others += 1;
    }
    interrupts::enable();
    // SAFETY: 1: called once, on CPU 0 (duty 1). So many have said that they have started, on their way to `idle`.
    Ok(unsafe { Cpus::new(others) })
}

/// Starts CPU `number` (SDM, volume 3A, "MP Initialization Protocol"): INIT, 10 ms, SIPI, and once more if it does not come.
fn start_one(number: usize, apic: u8, trampoline: Trampoline) -> Result<(), NotStarted> {
    let of_number = APICS.get(number).ok_or(NotStarted { apic })?;
    of_number.store(apic, Ordering::Relaxed);
    STACK.store(stack_of(number).1, Ordering::Relaxed);
    NUMBER.store(number as u64, Ordering::SeqCst);
    local_apic().send(apic, Command::Initialise);
    delay::wait(10_000);
    for _ in 0..2 {
        local_apic().send(apic, Command::Start(trampoline.page()));
        delay::wait(200);
    }
    for _ in 0..PATIENCE {
        if is_started(number) {
            return Ok(());
        }
        delay::wait(100);
    }
    Err(NotStarted { apic })
}

/// Called on a CPU that starts, on its stack and on the kernel's tables.
pub(super) extern "C" fn enter(number: u64) -> ! {
    let number = number as usize;
    set_this_cpu_after_segments(number);
    local_apic().enable(Interrupt::Spurious as u8);
    if let Some(start) = ON_START.get() {
        start();
    }
    idle::<X86>()
}

/// Segments first: loading one would set the base of GS.
fn set_this_cpu_after_segments(number: usize) {
    // SAFETY: 1: called once on this CPU, in this order; the gates were filled by the first CPU. 2: numbers are below the limit.
    unsafe {
        segments::initialise(number);
        exceptions::load();
    }
    set_this_cpu(number);
}

/// The number of this CPU's local APIC: CPUID leaf 1, EBX.
fn apic_of_this_cpu() -> u8 {
    (core::arch::x86_64::__cpuid(1).ebx >> 24) as u8
}

/// Masks what the two old interrupt controllers send, which firmware may have left on.
fn mask_legacy_interrupts() {
    for data in [0x21, 0xa1] {
        // SAFETY: the mask registers of the controllers, which nobody else uses.
        unsafe { Port::new(data).write(0xff_u8) };
    }
}
