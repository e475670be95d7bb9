//! `map_runs`: what is mapped where, at every boundary, and after every failure.

use crate::machine::{
    Event, HUGE, Machine, NODE, PAGE, Paging, Plan, Source, at, for_both_formats, pages, vmemmap,
};
use core::cell::Cell;
use mm_core::addr::{Block, Order, Pfn, VirtAddr, VirtRange};
use mm_core::frame::FrameAllocator;
use mm_core::paging::{
    FlushScope, Leaf, MapError, MapStopped, Mmu, NoRecords, PageTable, RadixTable, Role,
};

/// Pages per entry of a PD, a PDPT and a PML4 table.
const PD: u64 = 512;
const PDPT: u64 = PD * 512;
const PML4: u64 = PDPT * 512;

/// How many pages a slot of the root has.
fn root_slot<F: Paging>() -> u64 {
    1 << (F::LEVELS[0].shift - 12)
}

/// Maps, compares with the independent reader, unmaps, and finds everything back where it was.
fn round_trip<F: Paging>(range: VirtRange, plan: Plan) -> u64 {
    let machine = Machine::<F>::new();
    let source = machine.map(range, plan);
    let (mapped, tables) = machine.read(range);
    assert_eq!(mapped, source.mapped);
    let table = machine.table();
    let mut page = range.start();
    loop {
        let found = table.lookup(page).mapping().unwrap();
        assert_eq!(source.mapped.get(&found.at), Some(&found.leaf));
        match page.checked_add(PAGE) {
            Some(next) if next <= range.last() => page = next,
            _ => break,
        }
    }
    for outside in [
        range.start().get().wrapping_sub(1),
        range.last().get().wrapping_add(1),
    ] {
        assert_eq!(table.lookup(VirtAddr::new(outside)).mapping(), None);
    }
    machine.cpus.speculate(range);
    machine.unmap(&[range]);
    assert_eq!(machine.read(range).0.len(), 0);
    assert_eq!(machine.outstanding(), 0);
    assert!(
        machine
            .memory
            .page_bytes(machine.root)
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
    machine.assert_no_violations();
    tables
}

/// Looks at the moment at which all stores to a table are ordered: it is not linked yet.
struct Publisher<'m, F> {
    machine: &'m Machine<F>,
    publishes: Cell<u64>,
}

// SAFETY: 1 and 2: no CPU uses the tables, and the test has one thread.
unsafe impl<F: Paging> Mmu<F> for Publisher<'_, F> {
    fn flush(&self, _scope: FlushScope<'_>) {}

    fn publish(&self) {
        let seen = self.publishes.get();
        self.publishes.set(seen + 1);
        let (mapped, _) = self.machine.read(vmemmap::<F>(0, 4096));
        let before = [0, 10, 10 + 512][(seen + u64::from(!mapped.is_empty())) as usize];
        assert_eq!(mapped.len(), before);
    }
}

for_both_formats! {
    fn ranges_across_every_boundary_are_mapped_and_unmapped<F>() {
        let levels = F::LEVELS.len() as u64;
        for plan in [Plan::Distinct, Plan::Single, Plan::Compound(8), Plan::Compound(4096), Plan::Huge] {
            // One entry; the first and the last of a table; a whole table.
            for (first, count) in [(0, 1), (5, 1), (511, 1), (0, 512), (0, 511), (1, 511)] {
                assert_eq!(round_trip::<F>(vmemmap::<F>(first, count), plan), match plan {
                    Plan::Huge if count == 512 => levels - 2,
                    _ => levels - 1,
                });
            }
            // Across an entry of each level, by a page, and by more.
            for (boundary, more) in [(PD, 1), (PDPT, 2), (root_slot::<F>(), levels - 1)] {
                assert_eq!(round_trip::<F>(vmemmap::<F>(boundary - 1, 2), plan), levels - 1 + more);
                round_trip::<F>(vmemmap::<F>(boundary.saturating_sub(700), 1400), plan);
            }
            if root_slot::<F>() != PML4 {
                assert_eq!(round_trip::<F>(vmemmap::<F>(PML4 - 1, 2), plan), levels - 1 + 3);
            }
        }
    }

    fn both_ends_of_the_upper_half_can_be_mapped<F>() {
        let first = (1_u64 << (F::LEVELS[0].shift + 8)).wrapping_neg();
        for plan in [Plan::Distinct, Plan::Compound(8), Plan::Huge] {
            for count in [1, 3, 600, 1024] {
                round_trip::<F>(pages(first, count), plan);
                round_trip::<F>(pages((count * PAGE).wrapping_neg(), count), plan);
            }
        }
    }

    fn frame_zero_is_a_frame_like_any_other<F>() {
        let machine = Machine::<F>::new();
        let mut source = Source::new(&machine.frames, Plan::Single).with_stock(1);
        assert_eq!(source.stock, [Pfn::ZERO]);
        machine.map_from(vmemmap::<F>(0, 1), &mut source).unwrap();
        assert_eq!(machine.read(vmemmap::<F>(0, 1)).0, source.mapped);
        let runs = machine.unmap(&[vmemmap::<F>(0, 1)]);
        assert_eq!(runs[0].leaf.block.first(), Pfn::ZERO);
        // And as a table: the first frame that is free is the first table.
        machine.map(vmemmap::<F>(0, 1), Plan::Single);
        assert!(machine.frames.allocate(Order::BASE, NODE).unwrap().first() != Pfn::ZERO);
        machine.unmap(&[vmemmap::<F>(0, 1)]);
        assert_eq!(machine.outstanding(), 1);
        machine.assert_no_violations();
    }

    fn a_range_that_the_tree_does_not_translate_in_one_piece_is_refused<F>() {
        let half = 1_u64 << (F::LEVELS[0].shift + 8);
        let machine = Machine::<F>::new();
        // Neighbours in no tree: the end of the lower half, the hole, the start of the upper half.
        let across = VirtRange::between(VirtAddr::new(half - PAGE), VirtAddr::new(half.wrapping_neg() + PAGE - 1)).unwrap();
        for range in [pages(half, 1), pages(half - PAGE, 2), across] {
            let mut source = Source::new(&machine.frames, Plan::Single);
            let stopped = machine.map_from(range, &mut source).unwrap_err();
            let MapStopped::Table { at, error: MapError::Unsupported { .. } } = stopped else {
                panic!("{stopped:?}")
            };
            assert_eq!(at, range.start());
            assert_eq!(machine.outstanding(), 0);
            assert_eq!(machine.unmap(&[range]), []);
            assert_eq!(machine.table().first_in_use(range), None);
        }
    }

    fn a_source_that_ends_leaves_what_it_gave_and_nothing_more<F>() {
        // Two leaf tables and parts of two others, in two PDs.
        let range = vmemmap::<F>(PDPT - 700, 1500);
        for plan in [Plan::Single, Plan::Distinct, Plan::Compound(8), Plan::Compound(4096), Plan::Huge] {
            let calls = Machine::<F>::new().map(range, plan).calls;
            let step = calls.div_ceil(100);
            for good in (0..calls).step_by(step as usize).chain([calls - 1]) {
                let machine = Machine::<F>::new();
                machine.cpus.all()[0].fill_at_allocations(&machine.frames, range);
                let mut source = Source::new(&machine.frames, plan);
                source.calls_left = Some(good);
                let stopped = machine.map_from(range, &mut source).unwrap_err();
                let MapStopped::Source { at: stop, error: "no run" } = stopped else {
                    panic!("{stopped:?}")
                };
                after_failure(&machine, range, stop, &source);
                // Once the cause is gone, the rest can be mapped.
                source.calls_left = None;
                let rest = VirtRange::between(stop, range.last()).unwrap();
                machine.map_from(rest, &mut source).unwrap();
                assert_eq!(machine.read(range).0, source.mapped);
                machine.unmap(&[range]);
                assert_eq!(machine.outstanding(), 0);
                machine.assert_no_violations();
            }
        }
    }

    fn a_table_that_cannot_be_allocated_leaves_what_was_mapped_before_it<F>() {
        // Every level is crossed, so that every kind of table fails once.
        let root_slot = root_slot::<F>();
        for range in [vmemmap::<F>(PDPT - 700, 1500), vmemmap::<F>(root_slot - 700, 1500)] {
            for plan in [Plan::Single, Plan::Compound(8), Plan::Compound(4096)] {
                let machine = Machine::<F>::new();
                machine.map(range, plan);
                let tables = machine.read(range).1;
                for good in 0..tables {
                    let machine = Machine::<F>::new();
                    machine.cpus.all()[0].fill_at_allocations(&machine.frames, range);
                    let mut source = Source::new(&machine.frames, plan).with_stock(1500);
                    machine.frames.fail_after(good);
                    let stopped = machine.map_from(range, &mut source).unwrap_err();
                    let MapStopped::Table { at: stop, error: MapError::OutOfFrames(_) } = stopped else {
                        panic!("{stopped:?}")
                    };
                    source.drain_stock();
                    after_failure(&machine, range, stop, &source);
                    machine.frames.no_more_faults();
                    let rest = VirtRange::between(stop, range.last()).unwrap();
                    machine.map_from(rest, &mut source).unwrap();
                    assert_eq!(machine.read(range).0, source.mapped);
                    machine.unmap(&[range]);
                    assert_eq!(machine.outstanding(), 0);
                    machine.assert_no_violations();
                }
            }
        }
    }

    fn what_was_mapped_before_survives_a_failure_in_its_tables<F>() {
        let machine = Machine::<F>::new();
        let before = machine.map(vmemmap::<F>(0, 10), Plan::Distinct);
        let tables: Vec<_> = (1..=F::LEVELS.len() as u8)
            .map(|level| machine.entry_at(at::<F>(0), level).frame(F::GRANULE).unwrap())
            .map(|frame| (frame, machine.memory.page_bytes(frame).unwrap()))
            .collect();
        let outstanding = machine.outstanding();
        let mut source = Source::new(&machine.frames, Plan::Distinct);
        source.calls_left = Some(0);
        assert!(machine.map_from(vmemmap::<F>(10, 2000), &mut source).is_err());
        for (frame, bytes) in tables {
            assert_eq!(machine.memory.page_bytes(frame).unwrap(), bytes);
        }
        assert_eq!(machine.outstanding(), outstanding);
        assert_eq!(machine.read(vmemmap::<F>(0, 2010)).0, before.mapped);
    }

    fn a_link_becomes_visible_after_what_it_links<F>() {
        let machine = Machine::<F>::new();
        let mmu = Publisher { machine: &machine, publishes: Cell::new(0) };
        // SAFETY: as for `Machine::table`.
        let mut table = unsafe {
            RadixTable::<F, _, _, _, _>::new(machine.root, &machine.cpus, &machine.frames, &machine.memory, &mmu)
        };
        // A whole path, linked at the root; then two leaf tables in a live one; then none.
        for (first, count, links) in [(0, 10, 1), (512, 1024, 2), (10, 500, 0)] {
            let mut source = Source::new(&machine.frames, Plan::Distinct);
            mmu.publishes.set(0);
            // SAFETY: 1: the source's frames. 2: nobody uses the addresses.
            unsafe { table.map_runs(vmemmap::<F>(first, count), NODE, &mut source, &NoRecords) }.unwrap();
            assert_eq!(mmu.publishes.get(), links);
        }
    }

    fn a_root_entry_is_announced_once<F>() {
        let machine = Machine::<F>::new();
        let slot = root_slot::<F>();
        let range = vmemmap::<F>(slot - 700, 1500);
        machine.map(range, Plan::Distinct);
        let installed = [at::<F>(0), at::<F>(slot)].map(Event::Installed);
        assert_eq!(machine.cpus.take_events(), installed);
        machine.map(vmemmap::<F>(0, 1), Plan::Distinct);
        assert_eq!(machine.cpus.take_events(), []);

        let mut source = Source::new(&machine.frames, Plan::Distinct);
        source.calls_left = Some(0);
        assert!(machine.map_from(vmemmap::<F>(2 * slot, 1), &mut source).is_err());
        assert_eq!(machine.cpus.take_events(), [], "nothing was installed");
    }

    fn a_huge_leaf_is_entered_only_where_it_fits<F>() {
        let machine = Machine::<F>::new();
        let mut table = machine.table();
        assert_eq!(table.huge_leaf(), Some(HUGE));
        let block = machine.frames.allocate(HUGE, NODE).unwrap();
        let leaf = Leaf { block, role: Role::Descriptors, writable: true };
        let small = Leaf { block: Block::new(block.first(), Order::new(3).unwrap()).unwrap(), ..leaf };
        let outstanding = machine.outstanding();
        for (at, leaf) in [(at::<F>(1), leaf), (at::<F>(511), leaf), (at::<F>(0), small)] {
            // SAFETY: 1: the block is this test's. 2: nobody uses the addresses.
            let refused = unsafe { table.map_leaf(at, leaf, NODE, &NoRecords) };
            assert_eq!(refused, Err(MapError::Unsupported { at, order: leaf.block.order() }));
            assert_eq!(machine.outstanding(), outstanding);
        }
        // SAFETY: as above.
        unsafe { table.map_leaf(at::<F>(512), leaf, NODE, &NoRecords) }.unwrap();
        // SAFETY: as above.
        let again = unsafe { table.map_leaf(at::<F>(512), leaf, NODE, &NoRecords) };
        assert_eq!(again, Err(MapError::InUse { at: at::<F>(512) }));
        let found = table.lookup(at::<F>(700)).mapping().unwrap();
        assert_eq!((found.at, found.leaf), (at::<F>(512), leaf));
        assert_eq!(found.frame_of(at::<F>(700), F::GRANULE), block.first().checked_add(188));
        machine.unmap(&[vmemmap::<F>(512, 512)]);
        assert_eq!(machine.outstanding(), 0);
        machine.assert_no_violations();
    }
}

/// What `map_runs` promises when it stops at `stop`.
fn after_failure<F: Paging>(
    machine: &Machine<F>,
    range: VirtRange,
    stop: VirtAddr,
    source: &Source<'_>,
) {
    let (mapped, tables) = machine.read(range);
    assert_eq!(
        mapped, source.mapped,
        "every run that was taken is mapped or put back"
    );
    let end = mapped.last_key_value().map_or(range.start(), |(at, leaf)| {
        at.checked_add(leaf.block.order().frames() * PAGE).unwrap()
    });
    assert_eq!(stop, end, "mapped below, and nothing above");
    let mut blocks: Vec<_> = mapped.values().map(|leaf| leaf.block).collect();
    blocks.sort_by_key(|block| block.first());
    blocks.dedup();
    let frames: u64 = blocks.iter().map(|block| block.order().frames()).sum();
    assert_eq!(
        machine.outstanding(),
        frames + tables,
        "no frame is out that no entry points at"
    );
    machine.assert_no_violations();
}
