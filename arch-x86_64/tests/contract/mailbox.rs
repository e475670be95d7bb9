//! The ready mailbox, with threads as CPUs.

use arch_x86_64::FourLevel;
use arch_x86_64::{
    FlushRequest, Interrupts, Mailbox, MailboxSlot, NoSlot, Shootdown, Tlb, TlbInstructions,
};
use mm_core::addr::{VirtAddr, VirtRange};
use mm_core::paging::{FlushScope, Mmu};
use std::cell::{Cell, RefCell};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

const CPUS: usize = 4;

/// How many pages each CPU changes the entries of.
const PAGES: u64 = 3;

/// How often it does so.
const ROUNDS: u64 = 40;

thread_local! {
    static THIS_CPU: Cell<usize> = const { Cell::new(usize::MAX) };
    /// What this CPU has cached: pages and the frames that they lead to.
    static CACHED: RefCell<Vec<(VirtAddr, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Where interrupts arrive. A thread takes its own where a CPU would be interrupted.
struct Wires([AtomicBool; CPUS]);

impl Wires {
    const fn new() -> Self {
        Self([const { AtomicBool::new(false) }; CPUS])
    }

    fn is_raised(&self) -> bool {
        self.0[THIS_CPU.get()].swap(false, Ordering::Acquire)
    }
}

// SAFETY: 1: each thread has a number. 2: threads look at their wire until all are done.
unsafe impl Interrupts for &Wires {
    fn this_cpu(&self) -> usize {
        THIS_CPU.get()
    }

    fn interrupt(&self, cpu: usize) {
        self.0[cpu].store(true, Ordering::Release);
    }
}

/// Works on what the thread has cached.
struct Caches;

// SAFETY: 1 and 2: they drop it. 3: there are no PCIDs. 4: a fence of the host.
unsafe impl TlbInstructions for Caches {
    fn invlpg(&self, at: VirtAddr) {
        CACHED.with_borrow_mut(|cached| cached.retain(|(page, _)| *page != at));
    }

    fn has_invpcid(&self) -> bool {
        false
    }

    fn invpcid_all_including_global(&self) {}

    fn toggle_global(&self) {
        CACHED.with_borrow_mut(Vec::clear);
    }

    fn uses_pcids(&self) -> bool {
        false
    }

    fn fence(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
    }
}

fn page(cpu: usize, index: u64) -> VirtAddr {
    VirtAddr::new(0xffff_ea00_0000_0000 + ((cpu as u64 * PAGES + index) << 12))
}

type Post<'s> = Mailbox<'s, &'s Wires, Caches>;

/// The entry of each page, and whether the frame that was there before is free.
struct Tables {
    entries: Vec<AtomicU64>,
    /// Frames below this number of a page are free.
    free_below: Vec<AtomicU64>,
}

impl Tables {
    fn new() -> Self {
        let zeros = || {
            (0..CPUS as u64 * PAGES)
                .map(|_| AtomicU64::new(0))
                .collect()
        };
        Self {
            entries: zeros(),
            free_below: zeros(),
        }
    }

    /// Accesses all pages as the CPU that this runs on. None leads to a free frame.
    fn access_all(&self) {
        for (index, entry) in self.entries.iter().enumerate() {
            let at = page(0, index as u64);
            let cached = CACHED.with_borrow(|cached| {
                let known = cached.iter().find(|(page, _)| *page == at);
                known.map(|(_, frame)| *frame)
            });
            let frame = cached.unwrap_or_else(|| {
                let frame = entry.load(Ordering::Acquire);
                CACHED.with_borrow_mut(|cached| cached.push((at, frame)));
                frame
            });
            // A CPU cannot be interrupted between its translation and its access.
            assert!(
                frame >= self.free_below[index].load(Ordering::Acquire),
                "{at}"
            );
        }
    }

    /// Has one of the CPU's own pages lead elsewhere; frees the frame when all CPUs have forgotten.
    fn change(&self, tlb: &Tlb<Caches, &Post<'_>>, cpu: usize, round: u64) {
        let index = cpu * PAGES as usize + (round % PAGES) as usize;
        let frame = self.entries[index].load(Ordering::Relaxed) + 1;
        self.entries[index].store(frame, Ordering::Release);
        let range = [VirtRange::new(page(0, index as u64), 1 << 12).unwrap()];
        let scope = match round % 7 {
            0 => FlushScope::Everything,
            _ => FlushScope::Ranges(&range),
        };
        Mmu::<FourLevel>::flush(tlb, scope);
        self.free_below[index].store(frame, Ordering::Release);
    }
}

/// A CPU that works. If it fails, the others do not wait for it.
struct SwitchedOn<'m, 's> {
    mailbox: &'m Post<'s>,
    working: &'m AtomicUsize,
}

impl Drop for SwitchedOn<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            // SAFETY: 1: it is over.
            unsafe { self.mailbox.leave() };
        }
        self.working.fetch_sub(1, Ordering::AcqRel);
    }
}

fn as_cpu<T>(cpu: usize, work: impl FnOnce() -> T) -> T {
    THIS_CPU.set(cpu);
    work()
}

#[test]
fn no_cpu_translates_by_what_another_has_flushed() {
    let slots = [const { MailboxSlot::new() }; CPUS];
    let wires = Wires::new();
    // SAFETY: 1: the slots are for this one. 2: each thread joins first.
    let mailbox = &unsafe { Mailbox::new(&wires, Caches, &slots) };
    let tables = &Tables::new();
    let (working, all_on) = (&AtomicUsize::new(CPUS), &Barrier::new(CPUS));
    thread::scope(|scope| {
        let cpus: Vec<_> = (0..CPUS)
            .map(|cpu| {
                let wires = &wires;
                let life = move || {
                    mailbox.join().unwrap();
                    let on = SwitchedOn { mailbox, working };
                    all_on.wait();
                    let tlb = Tlb::new(Caches, mailbox);
                    for round in 0..ROUNDS {
                        tables.access_all();
                        if wires.is_raised() {
                            mailbox.answer();
                        }
                        tables.change(&tlb, cpu, round);
                        // Now and then a CPU is switched off for a while.
                        if round % 10 == cpu as u64 {
                            // SAFETY: 1: it joins before its next access.
                            unsafe { mailbox.leave() };
                            thread::yield_now();
                            mailbox.join().unwrap();
                        }
                        // Threads are few at a time: without this they work one after the other.
                        thread::yield_now();
                    }
                    drop(on);
                    while working.load(Ordering::Acquire) > 0 {
                        mailbox.answer();
                        thread::yield_now();
                    }
                };
                scope.spawn(move || as_cpu(cpu, life))
            })
            .collect();
        cpus.into_iter().for_each(|cpu| cpu.join().unwrap());
    });
    let changed = tables.free_below.iter();
    let changed: u64 = changed.map(|frame| frame.load(Ordering::Relaxed)).sum();
    assert_eq!(changed, CPUS as u64 * ROUNDS);
}

#[test]
fn only_cpus_that_take_part_are_asked() {
    let slots = [const { MailboxSlot::new() }; 2];
    let wires = Wires::new();
    // SAFETY: 1: the slots are for this one. 2: nobody uses tables.
    let mailbox = unsafe { Mailbox::new(&wires, Caches, &slots) };
    as_cpu(0, || {
        mailbox.join().unwrap();
        // Nobody else is there: no interrupt, and nothing to wait for.
        mailbox.on_other_cpus(&FlushRequest::EVERYTHING);
        assert!(wires.0.iter().all(|wire| !wire.load(Ordering::Relaxed)));
    });
    as_cpu(1, || {
        mailbox.join().unwrap();
        // SAFETY: 1: it uses no tables.
        unsafe { mailbox.leave() };
    });
    as_cpu(0, || mailbox.on_other_cpus(&FlushRequest::EVERYTHING));
    assert!(wires.0.iter().all(|wire| !wire.load(Ordering::Relaxed)));
    let refused = as_cpu(3, || mailbox.join());
    assert_eq!(refused, Err(NoSlot { cpu: 3, slots: 2 }));
    // Whom nobody has asked has nothing to do.
    as_cpu(3, || mailbox.answer());
}

#[test]
fn joining_forgets_what_was_cached_before() {
    let slots = [const { MailboxSlot::new() }];
    let wires = Wires::new();
    // SAFETY: 1: the slots are for this one. 2: nobody uses tables.
    let mailbox = unsafe { Mailbox::new(&wires, Caches, &slots) };
    as_cpu(0, || {
        CACHED.with_borrow_mut(|cached| cached.push((page(0, 0), 7)));
        mailbox.join().unwrap();
        CACHED.with_borrow(|cached| assert!(cached.is_empty()));
    });
}

#[test]
fn a_request_says_what_the_scope_said_or_everything() {
    let range = |at: u64| VirtRange::new(VirtAddr::new(at << 20), 0x3000).unwrap();
    let ranges: Vec<_> = (1..=FlushRequest::RANGES as u64 + 1).map(range).collect();
    for count in 1..=FlushRequest::RANGES {
        let scope = FlushScope::Ranges(&ranges[..count]);
        assert_eq!(FlushRequest::new(scope).scope(), scope);
    }
    let too_many = FlushRequest::new(FlushScope::Ranges(&ranges));
    assert_eq!(too_many, FlushRequest::EVERYTHING);
    for scope in [FlushScope::Nothing, FlushScope::Everything] {
        assert_eq!(FlushRequest::new(scope).scope(), scope);
    }
    let empty = FlushRequest::new(FlushScope::Ranges(&[]));
    assert_eq!(empty, FlushRequest::NOTHING);
}
