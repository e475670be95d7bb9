//! What a CPU keeps, what it forgets when, and what it reports.

use super::*;
use crate::walker::X86_64Walker;
use mm_core::addr::{Granule, NodeId};
use mm_core::frame::FrameAllocator;
use mm_core::paging::{Flush, Mmu, Roots};

const NODE: NodeId = NodeId::new(0);
const PRESENT: u64 = 0x3;
const GLOBAL: u64 = 0x100;
const HUGE: u64 = 0x80;

/// Frames 0 to 4095. Frame 1 is the root, 2 the table below it, 3 the one below that, 4 the leaf
/// table of the first 2 MiB; the tests link what they need.
struct Machine {
    memory: SimMemory,
    cpu: SimTlb<X86_64Walker>,
}

fn pfn(number: u64) -> Pfn {
    Pfn::new(number).unwrap()
}

fn virt(address: u64) -> VirtAddr {
    VirtAddr::new(address)
}

fn bytes(start: u64, bytes: u64) -> VirtRange {
    VirtRange::new(virt(start), bytes).unwrap()
}

fn flush_of(range: VirtRange) -> Flush {
    let mut flush = Flush::nothing();
    flush.add(range);
    flush
}

impl Machine {
    fn new() -> Self {
        let ram = PfnRange::new(Pfn::ZERO, 4096).unwrap();
        let memory = SimMemory::new(Granule::Size4K, &[ram]).unwrap();
        let cpu = SimTlb::new(X86_64Walker::four_level(), &memory, pfn(1));
        let machine = Self { memory, cpu };
        for table in 1..4 {
            machine.set(table, 0, (table + 1) << 12 | PRESENT);
        }
        machine
    }

    /// Writes the entry `index` of the table in frame `table`.
    fn set(&self, table: u64, index: u64, entry: u64) {
        let at = PhysAddr::new((table << 12) + index * 8);
        self.memory.write_u64(at, entry).unwrap();
    }

    /// The frame that the CPU reaches at `at`.
    fn frame(&self, at: u64) -> Option<u64> {
        Some(self.cpu.access(virt(at)).ok()?.get() >> 12)
    }

    fn stale(&self) -> Vec<(u64, Option<u64>, Option<u64>)> {
        let frame = |leaf: Option<Translation>| Some(leaf?.frame.get());
        let taken = self.memory.violations().take();
        let stale = taken.into_iter().map(|violation| match violation {
            Violation::StaleTranslation { at, cached, live } => {
                (at.get(), frame(cached), frame(live))
            }
            other => panic!("{other}"),
        });
        stale.collect()
    }
}

#[test]
fn a_translation_is_used_until_it_is_forgotten_and_that_is_reported() {
    let machine = Machine::new();
    machine.set(4, 0, 10 << 12 | PRESENT);
    assert_eq!(machine.frame(0x123), Some(10));
    machine.set(4, 0, 11 << 12 | PRESENT);
    assert_eq!(machine.frame(0x123), Some(10));
    assert_eq!(machine.stale(), [(0x123, Some(10), Some(11))]);
    machine.cpu.invalidate_page(virt(0xfff));
    assert_eq!(machine.frame(0x123), Some(11));
    assert!(machine.memory.violations().is_empty());
}

#[test]
fn an_unmapped_page_that_is_still_cached_is_reported() {
    let machine = Machine::new();
    machine.set(4, 0, 10 << 12 | PRESENT);
    machine.frame(0);
    machine.set(4, 0, 0);
    assert_eq!(machine.frame(0), Some(10));
    assert_eq!(machine.stale(), [(0, Some(10), None)]);
}

#[test]
fn a_mapping_that_was_not_there_is_never_cached() {
    let machine = Machine::new();
    assert_eq!(machine.frame(0), None);
    machine.set(4, 0, 10 << 12 | PRESENT);
    assert_eq!(machine.frame(0), Some(10));
    assert!(machine.memory.violations().is_empty());
}

#[test]
fn a_walk_goes_on_through_a_table_that_was_detached() {
    let machine = Machine::new();
    machine.set(4, 0, 10 << 12 | PRESENT);
    machine.set(4, 1, 11 << 12 | PRESENT);
    machine.set(5, 1, 21 << 12 | PRESENT);
    machine.frame(0);
    // Table 5 takes the place of table 4; the leaf of the second page was never cached.
    machine.set(3, 0, 5 << 12 | PRESENT);
    assert_eq!(machine.frame(0x1000), Some(11));
    assert_eq!(machine.stale(), [(0x1000, Some(11), Some(21))]);
    machine.cpu.invalidate_page(virt(0x1000));
    assert_eq!(machine.frame(0x1000), Some(21));
    assert!(machine.memory.violations().is_empty());
}

#[test]
fn a_stale_table_without_the_entry_is_reported_too() {
    let machine = Machine::new();
    machine.set(4, 0, 10 << 12 | PRESENT);
    machine.set(5, 1, 21 << 12 | PRESENT);
    machine.frame(0);
    machine.set(3, 0, 5 << 12 | PRESENT);
    assert_eq!(machine.frame(0x1000), None);
    assert_eq!(machine.stale(), [(0x1000, None, Some(21))]);
}

#[test]
fn a_cached_leaf_comes_before_a_stale_table() {
    let machine = Machine::new();
    machine.set(4, 0, 10 << 12 | PRESENT);
    machine.set(5, 0, 10 << 12 | PRESENT);
    machine.frame(0);
    machine.set(3, 0, 5 << 12 | PRESENT);
    machine.set(4, 0, 0);
    assert_eq!(machine.frame(0), Some(10));
    assert!(machine.memory.violations().is_empty());
}

#[test]
fn a_change_that_no_access_can_tell_is_not_reported() {
    let machine = Machine::new();
    for index in 0..512 {
        machine.set(4, index, (512 + index) << 12 | PRESENT);
    }
    machine.frame(0x1000);
    // A huge leaf of the same frames.
    machine.set(3, 0, 512 << 12 | HUGE | PRESENT);
    assert_eq!(machine.frame(0x1000), Some(513));
    assert_eq!(machine.frame(0x2000), Some(514));
    assert!(machine.memory.violations().is_empty());
}

#[test]
fn a_store_to_a_read_only_page_faults() {
    let machine = Machine::new();
    let at = virt(0x10);
    machine.set(4, 0, 10 << 12 | 1);
    assert_eq!(machine.cpu.access(at).unwrap().get(), 0xa010);
    assert_eq!(machine.cpu.store(at), Err(Fault::ReadOnly { at }));
    machine.set(4, 1, 10 << 12 | PRESENT);
    assert_eq!(machine.cpu.store(virt(0x1010)).unwrap().get(), 0xa010);
    assert!(matches!(
        machine.cpu.store(virt(0x2000)),
        Err(Fault::NotMapped { .. })
    ));
}

#[test]
fn a_page_that_became_read_only_without_a_flush_is_reported() {
    let machine = Machine::new();
    machine.set(4, 0, 10 << 12 | PRESENT);
    machine.frame(0);
    machine.set(4, 0, 10 << 12 | 1);
    assert!(machine.cpu.store(virt(0)).is_ok());
    let text = machine.memory.violations().to_string();
    assert!(
        text.contains("frame 0xa for 0x0..=0xfff, writable, executable"),
        "{text}"
    );
    assert!(
        text.contains("frame 0xa for 0x0..=0xfff, read-only, executable"),
        "{text}"
    );
}

#[test]
fn a_cr3_load_keeps_global_leaves() {
    let machine = Machine::new();
    machine.set(4, 0, 10 << 12 | PRESENT | GLOBAL);
    machine.set(4, 1, 11 << 12 | PRESENT);
    machine.cpu.fill(bytes(0, 0x2000));
    assert_eq!(
        (machine.cpu.cached_leaves(), machine.cpu.cached_tables()),
        (2, 3)
    );
    machine.cpu.flush_non_global();
    assert_eq!(
        (machine.cpu.cached_leaves(), machine.cpu.cached_tables()),
        (1, 0)
    );
    assert!(machine.cpu.frame_is_cached(pfn(10)));
    machine.cpu.flush_all();
    assert_eq!(machine.cpu.cached_leaves(), 0);
    assert!(!machine.cpu.frame_is_cached(pfn(10)));
}

#[test]
fn another_root_is_used_at_once_except_for_global_leaves() {
    let machine = Machine::new();
    machine.set(4, 0, 10 << 12 | PRESENT | GLOBAL);
    machine.set(4, 1, 11 << 12 | PRESENT);
    machine.cpu.fill(bytes(0, 0x2000));
    machine.cpu.load_root(pfn(7));
    assert_eq!(machine.frame(0x1000), None);
    assert!(machine.memory.violations().is_empty());
    assert_eq!(machine.frame(0), Some(10));
    assert_eq!(machine.stale(), [(0, Some(10), None)]);
}

#[test]
fn invalidating_a_page_drops_its_leaves_and_every_upper_entry() {
    let machine = Machine::new();
    machine.set(4, 0, 10 << 12 | PRESENT | GLOBAL);
    machine.set(4, 1, 11 << 12 | PRESENT);
    machine.cpu.fill(bytes(0, 0x2000));
    machine.cpu.invalidate_page(virt(0x800));
    assert_eq!(
        (machine.cpu.cached_leaves(), machine.cpu.cached_tables()),
        (1, 0)
    );
    assert!(machine.cpu.frame_is_cached(pfn(11)) && !machine.cpu.frame_is_cached(pfn(4)));
}

#[test]
fn forgetting_a_range_drops_what_overlaps_it_and_nothing_else() {
    let machine = Machine::new();
    machine.set(3, 1, 512 << 12 | HUGE | PRESENT);
    machine.set(3, 2, 5 << 12 | PRESENT);
    machine.set(5, 0, 20 << 12 | PRESENT);
    machine.set(2, 1, 6 << 12 | PRESENT);
    machine.set(4, 511, 10 << 12 | PRESENT);
    let cpu = &machine.cpu;
    cpu.fill(bytes(0, 1 << 39));
    assert_eq!((cpu.cached_leaves(), cpu.cached_tables()), (3, 5));
    // Inside the huge leaf: it goes whole, with the upper entries on its way.
    cpu.forget(flush_of(bytes(0x20_5000, 0x1000)).scope());
    let cached = |frame| cpu.frame_is_cached(pfn(frame));
    assert!(!cached(512) && !cached(2) && !cached(3));
    assert!(cached(10) && cached(20) && cached(4) && cached(5) && cached(6));
    cpu.forget(Flush::nothing().scope());
    assert_eq!((cpu.cached_leaves(), cpu.cached_tables()), (2, 3));
    cpu.forget(FlushScope::Everything);
    assert_eq!((cpu.cached_leaves(), cpu.cached_tables()), (0, 0));
}

#[test]
fn a_scope_of_many_ranges_is_forgotten_range_by_range() {
    let machine = Machine::new();
    for index in 0..8 {
        machine.set(4, index, (10 + index) << 12 | PRESENT);
    }
    machine.cpu.fill(bytes(0, 0x8000));
    let mut flush = flush_of(bytes(0x1000, 0x1000));
    flush.add(bytes(0x3000, 0x2000));
    machine.cpu.forget(flush.scope());
    let left: Vec<_> = (10..18)
        .filter(|f| machine.cpu.frame_is_cached(pfn(*f)))
        .collect();
    assert_eq!(left, [10, 12, 15, 16, 17]);
}

#[test]
fn filling_caches_all_that_is_present_and_passes_over_holes() {
    let machine = Machine::new();
    machine.set(1, 511, 2 << 12 | PRESENT);
    machine.set(4, 7, 10 << 12 | PRESENT);
    let everything = VirtRange::between(virt(0), virt(u64::MAX)).unwrap();
    machine.cpu.fill(everything);
    assert_eq!(
        (machine.cpu.cached_leaves(), machine.cpu.cached_tables()),
        (2, 6)
    );
    assert_eq!(machine.frame(0xffff_ff80_0000_7000), Some(10));
    machine.cpu.forget(FlushScope::Everything);
    machine.cpu.fill(bytes(0x8000, 0x1000));
    assert_eq!(machine.cpu.cached_leaves(), 0);
}

#[test]
fn what_was_forgotten_in_any_way_is_cached_again_by_filling() {
    type Forget = fn(&SimTlb<X86_64Walker>);
    let ways: [Forget; 8] = [
        |cpu| cpu.invalidate_page(virt(0x3000)),
        SimTlb::flush_non_global,
        SimTlb::flush_all,
        |cpu| cpu.load_root(pfn(1)),
        |cpu| cpu.forget(flush_of(bytes(0x3000, 0x1000)).scope()),
        |cpu| cpu.forget(FlushScope::Everything),
        |cpu| cpu.forget_leaves(flush_of(bytes(0x3000, 0x1000)).scope()),
        |cpu| cpu.forget_leaves(FlushScope::Everything),
    ];
    for (number, forget) in ways.iter().enumerate() {
        let machine = Machine::new();
        machine.set(4, 3, 10 << 12 | PRESENT);
        for _ in 0..2 {
            machine.cpu.fill(bytes(0, 2 << 20));
            assert!(machine.cpu.frame_is_cached(pfn(10)), "{number}");
            forget(&machine.cpu);
            assert!(!machine.cpu.frame_is_cached(pfn(10)), "{number}");
        }
    }
}

#[test]
fn filling_caches_holes_again_that_were_forgotten() {
    let machine = Machine::new();
    machine.set(4, 511, 11 << 12 | PRESENT);
    machine.cpu.fill(bytes(0, 2 << 20));
    machine.cpu.cache_holes();
    for _ in 0..2 {
        machine.cpu.fill(bytes(0, 2 << 20));
        machine.set(4, 3, 10 << 12 | PRESENT);
        assert_eq!(machine.frame(0x3000), None, "the hole is cached");
        machine.memory.violations().take();
        machine.set(4, 3, 0);
        machine.cpu.forget_holes(bytes(0x3000, 0x1000));
    }
}

#[test]
fn filling_again_caches_what_has_changed_since() {
    let machine = Machine::new();
    let fill = || machine.cpu.fill(bytes(0, 4 << 20));
    let cached = |frame| machine.cpu.frame_is_cached(pfn(frame));
    machine.set(4, 0, 10 << 12 | PRESENT);
    fill();
    machine.set(4, 511, 11 << 12 | PRESENT);
    fill();
    assert!(cached(10) && cached(11));
    // The same table at a second place, then another one at the first.
    machine.set(3, 1, 4 << 12 | PRESENT);
    fill();
    assert_eq!(machine.cpu.cached_leaves(), 4);
    machine.set(5, 1, 12 << 12 | PRESENT);
    machine.set(3, 0, 5 << 12 | PRESENT);
    fill();
    assert!(cached(12), "of another table");
    // Without the right to store, which an upper entry takes away.
    machine.cpu.flush_all();
    fill();
    machine.set(3, 1, 4 << 12 | 0x1);
    machine
        .cpu
        .forget_leaves(flush_of(bytes(2 << 20, 0x1000)).scope());
    fill();
    let store = machine.cpu.store(virt(2 << 20));
    assert_eq!(store, Err(Fault::ReadOnly { at: virt(2 << 20) }));
}

#[test]
fn filling_keeps_what_is_cached_already() {
    let machine = Machine::new();
    machine.set(4, 0, 10 << 12 | PRESENT);
    machine.frame(0);
    machine.set(4, 0, 11 << 12 | PRESENT);
    machine.cpu.fill(bytes(0, 0x1000));
    assert_eq!(machine.frame(0), Some(10));
    assert_eq!(machine.stale().len(), 1);
}

#[test]
fn operations_are_counted() {
    let machine = Machine::new();
    let cpu = &machine.cpu;
    let _ = (cpu.access(virt(0)), cpu.store(virt(0)), cpu.access(virt(1)));
    cpu.invalidate_page(virt(0));
    cpu.flush_non_global();
    cpu.load_root(pfn(1));
    cpu.flush_all();
    cpu.forget(FlushScope::Everything);
    let expected = TlbCounts {
        accesses: 3,
        page_invalidations: 1,
        non_global_flushes: 2,
        full_flushes: 1,
        forgets: 1,
    };
    assert_eq!(cpu.counts(), expected);
}

/// A machine whose allocator hands out frames 1024 and up, watched by the CPU.
fn watched() -> (Machine, SimFrames) {
    let machine = Machine::new();
    let ram = PfnRange::new(pfn(1024), 1024).unwrap();
    let frames = SimFrames::new(&machine.memory, &[(NODE, &[ram])]).unwrap();
    machine.cpu.watch(&frames);
    (machine, frames)
}

fn release_run(frames: &SimFrames, run: PfnRange) {
    // SAFETY: 1: they came from there. 2: where the CPU still has them cached, that is to be
    // reported.
    unsafe { frames.release_run(run) };
}

#[test]
fn a_frame_freed_while_cached_is_reported() {
    let (machine, frames) = watched();
    let run = frames.allocate_run(10, NODE).unwrap();
    machine.set(4, 0, 1027 << 12 | PRESENT);
    machine.frame(0);
    machine.set(4, 0, 0);
    release_run(&frames, run);
    let (frame, cached_as) = (pfn(1027), CachedAs::Leaf);
    let expected = Violation::FreedWhileCached { frame, cached_as };
    assert_eq!(machine.memory.violations().take(), [expected]);
}

#[test]
fn a_frame_freed_after_the_flush_is_not_reported() {
    let (machine, frames) = watched();
    let run = frames.allocate_run(10, NODE).unwrap();
    machine.set(4, 0, 1027 << 12 | PRESENT);
    machine.set(4, 1, 1027 << 12 | PRESENT);
    machine.cpu.fill(bytes(0, 0x2000));
    machine.set(4, 0, 0);
    machine.set(4, 1, 0);
    machine.cpu.invalidate_page(virt(0));
    assert!(machine.cpu.frame_is_cached(pfn(1027)));
    machine.cpu.invalidate_page(virt(0x1000));
    release_run(&frames, run);
    assert!(machine.memory.violations().is_empty());
}

#[test]
fn any_frame_of_a_cached_huge_page_is_reported() {
    let (machine, frames) = watched();
    let run = frames.allocate_run(1024, NODE).unwrap();
    machine.set(3, 1, 1536 << 12 | HUGE | PRESENT);
    machine.frame(0x20_0000);
    let rest = |first, frames| PfnRange::new(pfn(first), frames).unwrap();
    release_run(&frames, rest(run.start().get(), 512));
    assert!(machine.memory.violations().is_empty());
    release_run(&frames, rest(2047, 1));
    release_run(&frames, rest(1536, 1));
    let cached_as = CachedAs::Leaf;
    let reported = machine.memory.violations().take();
    let expected = [2047, 1536].map(|frame| Violation::FreedWhileCached {
        frame: pfn(frame),
        cached_as,
    });
    assert_eq!(reported, expected);
}

#[test]
fn a_table_freed_while_it_is_in_the_paging_structure_cache_is_reported() {
    let (machine, frames) = watched();
    let table = frames.allocate_run(1, NODE).unwrap();
    machine.set(3, 5, 1024 << 12 | PRESENT);
    machine.set(1024, 0, 10 << 12 | PRESENT);
    machine.frame(5 << 21);
    // The leaf is cleared and flushed, the table detached and not flushed.
    machine.set(1024, 0, 0);
    machine.cpu.forget(flush_of(bytes(5 << 21, 0x1000)).scope());
    machine.cpu.fill(bytes(5 << 21, 0x1000));
    machine.set(3, 5, 0);
    release_run(&frames, table);
    let (frame, cached_as) = (pfn(1024), CachedAs::Table);
    let expected = Violation::FreedWhileCached { frame, cached_as };
    assert_eq!(machine.memory.violations().take(), [expected]);
}

#[test]
fn a_rollback_without_a_flush_is_caught_by_speculation() {
    let (machine, frames) = watched();
    machine
        .cpu
        .fill_at_allocations(&frames, bytes(0, 0x10_0000));
    // The first page is mapped; the CPU looks when the second is allocated; that fails, and the
    // first is rolled back.
    let first = frames.allocate_run(1, NODE).unwrap();
    machine.set(4, 0, first.start().get() << 12 | PRESENT);
    let second = frames.allocate_run(1, NODE).unwrap();
    release_run(&frames, second);
    machine.set(4, 0, 0);
    assert!(machine.memory.violations().is_empty());
    release_run(&frames, first);
    assert_eq!(machine.memory.violations().total(), 1);
}

#[test]
fn every_cpu_forgets_what_the_mmu_is_told() {
    let machine = Machine::new();
    machine.set(4, 0, 10 << 12 | PRESENT);
    let other = SimTlb::new(X86_64Walker::four_level(), &machine.memory, pfn(1));
    let mmu = SimMmu::new(vec![machine.cpu.clone(), other]);
    mmu.cpus().iter().for_each(|cpu| cpu.fill(bytes(0, 0x1000)));
    let told: &dyn Mmu<X86_64Walker> = &mmu;
    told.flush(FlushScope::Nothing);
    assert!(mmu.cpus().iter().all(|cpu| cpu.cached_leaves() == 1));
    told.flush(flush_of(bytes(0, 1)).scope());
    assert!(mmu.cpus().iter().all(|cpu| cpu.cached_leaves() == 0));
    assert!(mmu.cpus().iter().all(|cpu| cpu.cached_tables() == 0));
}

#[test]
fn what_the_mmu_is_told_is_recorded() {
    let machine = Machine::new();
    let mmu = SimMmu::new(vec![machine.cpu]);
    let told: &dyn Mmu<X86_64Walker> = &mmu;
    told.publish();
    told.entries_added(bytes(0, 0x1000));
    told.quiesce(bytes(0, 0x1000), &mut || {});
    // SAFETY: 1: there is no other root that would follow.
    unsafe {
        mmu.entry_installed(virt(1 << 39));
        mmu.entry_removed(virt(2 << 39));
    }
    told.flush(FlushScope::Nothing);
    told.flush(FlushScope::Everything);
    let expected = MmuRecord {
        forgets: 1,
        full_forgets: 1,
        publishes: 1,
        additions: 1,
        quiesces: 1,
        roots_installed: vec![virt(1 << 39)],
        roots_removed: vec![virt(2 << 39)],
    };
    assert_eq!(mmu.record(), expected);
}

#[test]
fn an_entry_cleared_only_after_the_flush_is_caught_by_speculation() {
    let (machine, frames) = watched();
    let mmu = SimMmu::new(vec![machine.cpu.clone()]);
    let told: &dyn Mmu<X86_64Walker> = &mmu;
    mmu.speculate(Some(bytes(0, 0x20_0000)));
    let page = frames.allocate_run(1, NODE).unwrap();
    machine.set(4, 0, 1024 << 12 | PRESENT);
    told.entries_added(bytes(0, 0x1000));
    told.flush(flush_of(bytes(0, 0x1000)).scope());
    machine.set(4, 0, 0);
    release_run(&frames, page);
    assert_eq!(machine.memory.violations().take().len(), 1);
    mmu.speculate(None);
    told.flush(FlushScope::Everything);
    assert_eq!(machine.cpu.cached_leaves(), 0);
}

#[test]
fn an_entry_that_is_made_before_the_old_one_is_broken_is_reported_where_that_is_demanded() {
    let unbroken = |machine: &Machine| {
        let taken = machine.memory.violations().take();
        let broken_rule = |violation: &Violation| matches!(violation, Violation::NotBroken { .. });
        taken.iter().filter(|one| broken_rule(one)).count()
    };
    let range = bytes(0, 0x2000);
    for demands in [false, true] {
        let machine = Machine::new();
        if demands {
            machine.cpu.demand_break_before_make();
        }
        let expected = usize::from(demands);
        machine.set(4, 0, 10 << 12 | PRESENT);
        machine.cpu.fill(range);

        // Elsewhere at once.
        machine.set(4, 0, 11 << 12 | PRESENT);
        machine.cpu.fill(range);
        assert_eq!(unbroken(&machine), expected);

        // Invalid and flushed in between.
        machine.set(4, 0, 0);
        machine.cpu.forget(flush_of(range).scope());
        machine.set(4, 0, 12 << 12 | PRESENT);
        machine.cpu.fill(range);
        assert_eq!(unbroken(&machine), 0);

        // Other rights only.
        machine.set(4, 0, 12 << 12 | 1);
        machine.cpu.fill(range);
        assert_eq!(unbroken(&machine), 0);

        // Another size.
        machine.set(3, 0, PRESENT | HUGE);
        machine.cpu.fill(range);
        assert_eq!(unbroken(&machine), expected);
        machine.set(3, 0, 0);
        machine.cpu.flush_all();

        // Another table.
        machine.set(3, 0, 4 << 12 | PRESENT);
        machine.cpu.fill(range);
        machine.set(3, 0, 5 << 12 | PRESENT);
        machine.cpu.fill(range);
        assert_eq!(unbroken(&machine), expected);
    }
}
