//! Two CPUs: instructions act on the one that executes them.

use arch_sim::walker::X86_64Walker;
use arch_sim::{SimMemory, SimTlb};
use arch_x86_64::{FlushRequest, Shootdown, TlbInstructions};
use mm_core::addr::{Pfn, VirtAddr, VirtRange};
use mm_core::paging::{FlushScope, Roots};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// What happened, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// INVLPG on a CPU.
    Invlpg(usize, VirtAddr),
    /// INVPCID type 2 on a CPU.
    Invpcid(usize),
    /// CR4.PGE toggled on a CPU.
    TogglePge(usize),
    /// Fences on a CPU.
    Fence(usize),
    /// A root hook.
    Installed(VirtAddr),
    /// A root hook.
    Removed(VirtAddr),
    /// A run was reported.
    Released,
}

pub(crate) struct Cpus {
    all: Vec<SimTlb<X86_64Walker>>,
    current: AtomicUsize,
    pub(crate) has_invpcid: AtomicBool,
    pub(crate) uses_pcids: AtomicBool,
    /// EFER.TCE: INVLPG keeps upper-level entries that do not lead to its page.
    pub(crate) keeps_others: AtomicBool,
    /// What all CPUs read of their own accord after each instruction.
    speculation: Mutex<Option<VirtRange>>,
    events: Mutex<Vec<Event>>,
}

impl Cpus {
    pub(crate) fn new(walker: X86_64Walker, memory: &SimMemory, root: Pfn) -> Self {
        Self {
            all: (0..2).map(|_| SimTlb::new(walker, memory, root)).collect(),
            current: AtomicUsize::new(0),
            has_invpcid: AtomicBool::new(true),
            uses_pcids: AtomicBool::new(false),
            keeps_others: AtomicBool::new(false),
            speculation: Mutex::new(None),
            events: Mutex::default(),
        }
    }

    pub(crate) fn all(&self) -> &[SimTlb<X86_64Walker>] {
        &self.all
    }

    /// Makes all CPUs cache `range`, now and after each instruction.
    pub(crate) fn speculate(&self, range: VirtRange) {
        *self.speculation.lock().unwrap() = Some(range);
        self.all.iter().for_each(|cpu| cpu.fill(range));
    }

    pub(crate) fn record(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    /// The events since the last call.
    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    fn execute(&self, event: impl Fn(usize) -> Event, instruction: impl Fn(&SimTlb<X86_64Walker>)) {
        let current = self.current.load(Relaxed);
        instruction(&self.all[current]);
        self.record(event(current));
        if let Some(range) = *self.speculation.lock().unwrap() {
            self.all.iter().for_each(|cpu| cpu.fill(range));
        }
    }
}

// SAFETY: 1 and 2: `SimTlb` drops what these instructions drop. 3: `uses_pcids` is false unless a
// test sets it. 4: it sees stores in the order of the host.
unsafe impl TlbInstructions for Cpus {
    fn invlpg(&self, at: VirtAddr) {
        let keeps_others = self.keeps_others.load(Relaxed);
        let page = [VirtRange::single(at)];
        self.execute(
            |cpu| Event::Invlpg(cpu, at),
            |cpu| match keeps_others {
                true => cpu.forget(FlushScope::Ranges(&page)),
                false => cpu.invalidate_page(at),
            },
        );
    }

    fn has_invpcid(&self) -> bool {
        self.has_invpcid.load(Relaxed)
    }

    fn invpcid_all_including_global(&self) {
        assert!(self.has_invpcid(), "an undefined instruction");
        self.execute(Event::Invpcid, SimTlb::flush_all);
    }

    fn toggle_global(&self) {
        self.execute(Event::TogglePge, SimTlb::flush_all);
    }

    fn uses_pcids(&self) -> bool {
        self.uses_pcids.load(Relaxed)
    }

    fn fence(&self) {
        self.execute(Event::Fence, |_| ());
    }
}

// SAFETY: 1: each other CPU executes the request before this returns.
unsafe impl Shootdown for Cpus {
    fn on_other_cpus(&self, request: &FlushRequest) {
        let this = self.current.load(Relaxed);
        for other in (0..self.all.len()).filter(|cpu| *cpu != this) {
            self.current.store(other, Relaxed);
            request.execute(self);
        }
        self.current.store(this, Relaxed);
    }
}

// SAFETY: 1 to 3: there are no other roots.
unsafe impl Roots for Cpus {
    unsafe fn entry_installed(&self, at: VirtAddr) {
        self.record(Event::Installed(at));
    }

    unsafe fn entry_removed(&self, at: VirtAddr) {
        self.record(Event::Removed(at));
    }
}
