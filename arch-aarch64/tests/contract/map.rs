//! `map_runs` at every boundary of every granule.

use crate::machine::{Event, LOWEST, Machine, NODE, Paging, at, for_each_granule, pages, vmemmap};
use crate::source::{Plan, Source};
use mm_core::addr::{Block, Order, Pfn, VirtAddr, VirtRange};
use mm_core::frame::FrameAllocator;
use mm_core::paging::{Leaf, MapError, MapStopped, NoRecords, PageTable, Role, Run};
use std::collections::BTreeSet;

/// Maps `range`, reads it back in every way there is, and unmaps it.
fn map_and_unmap<F: Paging>(range: VirtRange, plan: Plan) {
    let machine = Machine::<F>::new();
    let given = machine.map(range, plan);
    let (mapped, tables) = machine.read(range);
    assert_eq!(mapped, given, "{range}");
    let frames: BTreeSet<Pfn> = given.values().map(|leaf| leaf.block.first()).collect();
    assert_eq!(machine.frames.outstanding(), frames.len() as u64 + tables);
    let table = machine.table();
    for (at, leaf) in &given {
        assert_eq!(table.lookup(*at).mapping().unwrap().leaf, *leaf);
        let frame = machine.cpus.all()[0].access(*at).unwrap();
        assert_eq!(frame, leaf.block.first().base(F::GRANULE));
    }
    // The pages next to it are as they were.
    for outside in [
        range.start().get().checked_sub(1),
        range.last().get().checked_add(1),
    ] {
        let outside = outside.map(VirtAddr::new);
        assert!(outside.is_none_or(|at| table.lookup(at).mapping().is_none()));
    }
    machine.unmap(&[range]);
    assert_eq!(
        machine
            .read(pages::<F>(LOWEST, 0xffff_ffff_ffff / F::PAGE))
            .1,
        0
    );
    machine.assert_clean();
}

for_each_granule! {
    fn pages_around_every_boundary_of_every_level_are_mapped<F>() {
        // At the last level every page is one.
        for level in F::LEVELS.iter().take(F::LEVELS.len() - 1) {
            let boundary = LOWEST + (1 << level.shift);
            for (before, count) in [(1, 1), (0, 1), (1, 2), (2, 4), (3, F::ENTRIES + 5)] {
                for plan in [Plan::Distinct, Plan::Compound] {
                    map_and_unmap::<F>(pages::<F>(boundary - before * F::PAGE, count), plan);
                }
            }
        }
    }

    fn both_ends_of_the_region_are_mapped<F>() {
        for plan in [Plan::Distinct, Plan::Compound] {
            for count in [1, 2, F::ENTRIES, F::ENTRIES + 1] {
                map_and_unmap::<F>(pages::<F>(LOWEST, count), plan);
                let last = (u64::MAX - count * F::PAGE).wrapping_add(1);
                map_and_unmap::<F>(pages::<F>(last, count), plan);
            }
        }
    }

    fn addresses_outside_the_region_are_refused<F>() {
        let machine = Machine::<F>::new();
        for range in [
            pages::<F>(LOWEST - F::PAGE, 1),
            pages::<F>(LOWEST - F::PAGE, 2),
            pages::<F>(0, 1),
            pages::<F>(LOWEST & !(1 << 63), 1),
        ] {
            let mut source = Source::<F>::new(&machine.frames, Plan::Distinct);
            let stopped = machine.map_from(range, &mut source).unwrap_err();
            let error = MapError::Unsupported { at: range.start(), order: Order::BASE };
            assert_eq!(stopped, MapStopped::Table { at: range.start(), error });
            assert_eq!(machine.table().lookup(range.start()).mapping(), None);
            assert_eq!(machine.unmap(&[range]), []);
        }
        machine.assert_clean();
    }

    fn frames_that_follow_each_other_do_so_across_tables<F>() {
        let machine = Machine::<F>::new();
        let range = vmemmap::<F>(F::ENTRIES - 3, F::ENTRIES + 6);
        machine.map(range, Plan::Distinct);
        let (mapped, tables) = machine.read(range);
        assert_eq!(tables, F::LEVELS.len() as u64 - 2 + 3);
        let first = mapped[&range.start()].block.first();
        // The tables were taken in between, so runs of the source follow each other, frames need not; within a leaf table they do.
        let table = vmemmap::<F>(F::ENTRIES, F::ENTRIES);
        let whole: Vec<Pfn> = mapped
            .iter()
            .filter(|(at, _)| table.contains(**at))
            .map(|(_, leaf)| leaf.block.first())
            .collect();
        assert!(whole.windows(2).all(|pair| pair[1].get() == pair[0].get() + 1));
        assert!(mapped.values().all(|leaf| leaf.block.first() >= first));
        machine.unmap(&[range]);
        machine.assert_clean();
    }

    fn a_huge_leaf_is_what_the_level_above_the_last_translates<F>() {
        let machine = Machine::<F>::new();
        let entries = F::ENTRIES;
        assert_eq!(machine.table().huge_leaf(), Some(F::huge()));
        let range = vmemmap::<F>(entries - 1, entries + 2);
        let given = machine.map(range, Plan::Huge);
        let sizes: Vec<u64> = given.values().map(|leaf| leaf.block.order().frames()).collect();
        assert_eq!(sizes, [1, entries, 1]);
        assert_eq!(machine.read(range).0, given);
        let inside = at::<F>(entries + entries / 2);
        let mapping = machine.table().lookup(inside).mapping().unwrap();
        assert_eq!(mapping.at, at::<F>(entries));
        let block = given[&at::<F>(entries)].block;
        let frame = block.first().checked_add(entries / 2);
        assert_eq!(mapping.frame_of(inside, F::GRANULE), frame);
        machine.unmap(&[range]);
        machine.assert_clean();
    }

    fn a_huge_leaf_is_refused_where_it_does_not_fit<F>() {
        let machine = Machine::<F>::new();
        let mut table = machine.table();
        let block = machine.frames.allocate(F::huge(), NODE).unwrap();
        let leaf = Leaf { block, role: Role::Descriptors, writable: true };
        let smaller = Order::new(F::huge().get() - 1).unwrap();
        let small = Leaf { block: Block::new(block.first(), smaller).unwrap(), ..leaf };
        for (at, leaf) in [(at::<F>(1), leaf), (at::<F>(F::ENTRIES - 1), leaf), (at::<F>(0), small)] {
            // SAFETY: 1: the block is this test's. 2: nobody uses the addresses.
            let refused = unsafe { table.map_leaf(at, leaf, NODE, &NoRecords) };
            let order = leaf.block.order();
            assert_eq!(refused, Err(MapError::Unsupported { at, order }));
        }
        // SAFETY: as above.
        unsafe { table.map_leaf(at::<F>(F::ENTRIES), leaf, NODE, &NoRecords) }.unwrap();
        machine.unmap(&[vmemmap::<F>(F::ENTRIES, 1)]);
        machine.assert_clean();
    }

    fn a_table_is_linked_behind_a_barrier<F>() {
        let machine = Machine::<F>::new();
        // A whole path, linked at the root; then two leaf tables in live tables; then entries only.
        let pages = [(0, 10, 1), (F::ENTRIES, 2 * F::ENTRIES, 2), (10, 5, 0)];
        for (first, count, links) in pages {
            machine.cpus.take_events();
            machine.map(vmemmap::<F>(first, count), Plan::Distinct);
            let mut expected = vec![Event::DsbIshst; links + 1];
            expected.push(Event::Isb);
            assert_eq!(machine.cpus.take_events(), expected);
        }
    }

    fn a_failure_at_every_allocation_leaves_a_prefix_and_nothing_else<F>() {
        let range = vmemmap::<F>(F::ENTRIES - 2, 4);
        for plan in [Plan::Distinct, Plan::Compound, Plan::Huge] {
            let machine = Machine::<F>::new();
            let mut failures = 0;
            loop {
                let mut source = Source::<F>::new(&machine.frames, plan);
                machine.frames.fail_after(failures);
                let outcome = machine.map_from(range, &mut source);
                machine.frames.no_more_faults();
                let (mapped, tables) = machine.read(range);
                assert_eq!(mapped, source.mapped);
                if outcome.is_ok() {
                    break;
                }
                let mut frames: Vec<Pfn> = mapped.values().map(|leaf| leaf.block.first()).collect();
                frames.sort();
                frames.dedup();
                assert_eq!(machine.frames.outstanding(), frames.len() as u64 + tables);
                machine.unmap(&[range]);
                machine.assert_clean();
                failures += 1;
            }
            assert!(failures > F::LEVELS.len() as u64);
            machine.unmap(&[range]);
            machine.assert_clean();
        }
    }
}

#[test]
fn pages_of_4_kib_can_be_mapped_by_blocks_of_1_gib() {
    type F = arch_aarch64::Format4K;
    let machine = Machine::<F>::new();
    let order = Order::new(18).unwrap();
    let block = Block::new(Pfn::new(5 << 18).unwrap(), order).unwrap();
    let leaf = Leaf {
        block,
        role: Role::Descriptors,
        writable: true,
    };
    let mut table = machine.table();
    let at = at::<F>(1 << 18);
    // SAFETY: 1: frames that no memory has, and nobody accesses. 2: nobody uses the addresses.
    unsafe { table.map_leaf(at, leaf, NODE, &NoRecords) }.unwrap();
    let range = vmemmap::<F>(1 << 18, 1 << 18);
    assert_eq!(
        machine.read(range).0.into_iter().collect::<Vec<_>>(),
        [(at, leaf)]
    );
    let mut runs = Vec::new();
    // SAFETY: 1: nobody uses the addresses. 2: mapped above.
    unsafe {
        table.unmap(
            [range].into_iter(),
            &mut |run: Run| runs.push(run),
            &NoRecords,
        )
    };
    assert_eq!(runs.len(), 1);
    machine.assert_clean();
}
