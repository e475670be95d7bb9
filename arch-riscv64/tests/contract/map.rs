//! The engine on these formats, at every boundary, beside harts that cache all that they may.

use crate::machine::{ENTRIES, Machine, Mode, Plan, for_each_mode, pages, vmemmap};
use arch_riscv64::SFENCE_LIMIT;
use core::ops::ControlFlow;
use mm_core::addr::{Pfn, PhysAddr, VirtAddr, VirtRange};
use mm_core::paging::{Leaf, MapError, MapStopped, PageTable, Role, Visit};

/// Maps `range`, reads it back in every way there is, and unmaps it.
fn map_and_unmap<F: Mode>(range: VirtRange, plan: Plan) {
    let machine = Machine::<F>::new();
    // That nothing is mapped is cached.
    machine.harts.speculate(range);
    let given = machine.map(range, plan);
    assert_eq!(
        machine.harts.take_remote_fences(),
        1,
        "for entries that were added"
    );
    let (mapped, _) = machine.read(range);
    assert_eq!(mapped, given, "{range}");
    let table = machine.table();
    for (at, leaf) in &given {
        assert_eq!(table.lookup(*at).mapping().unwrap().leaf, *leaf);
        for hart in machine.harts.all() {
            assert_eq!(
                hart.access(*at).unwrap(),
                leaf.block.first().base(F::GRANULE)
            );
        }
    }
    machine.harts.speculate(range);
    machine.unmap(range);
    assert_eq!(
        machine.harts.take_remote_fences(),
        1,
        "for what was unmapped"
    );
    for hart in machine.harts.all() {
        assert!(hart.access(range.start()).is_err());
        assert!(hart.access(range.last()).is_err());
    }
    machine.recheck(range);
    machine.assert_clean();
}

for_each_mode! {
    fn pages_around_every_boundary_of_every_level_are_mapped<F>() {
        let lowest = u64::MAX << (F::VIRTUAL_BITS - 1);
        for level in F::LEVELS.iter().take(F::LEVELS.len() - 1) {
            let boundary = lowest + (1 << level.shift);
            for (before, count) in [(1, 1), (0, 1), (1, 2), (3, ENTRIES + 5)] {
                for plan in [Plan::Distinct, Plan::Tails] {
                    map_and_unmap::<F>(pages(boundary - (before << 12), count), plan);
                }
            }
        }
    }

    fn both_ends_of_both_halves_are_mapped<F>() {
        let half = 1 << (F::VIRTUAL_BITS - 1);
        for count in [1, 2, ENTRIES + 1] {
            let bytes = count << 12;
            for start in [0, half - bytes, u64::MAX - half + 1, (u64::MAX - bytes).wrapping_add(1)] {
                map_and_unmap::<F>(pages(start, count), Plan::Distinct);
            }
        }
    }

    fn huge_leaves_are_of_2_mib<F>() {
        map_and_unmap::<F>(vmemmap::<F>(ENTRIES - 1, ENTRIES + 2), Plan::Huge);
        let machine = Machine::<F>::new();
        let given = machine.map(vmemmap::<F>(ENTRIES - 1, ENTRIES + 2), Plan::Huge);
        let sizes: Vec<_> = given.values().map(|leaf| leaf.block.order().get()).collect();
        assert_eq!(sizes, [0, 9, 0]);
    }

    fn addresses_between_the_halves_are_refused<F>() {
        let machine = Machine::<F>::new();
        let half = 1 << (F::VIRTUAL_BITS - 1);
        for range in [pages(half, 1), pages(half - 0x1000, 2), pages(!(half - 1) - 0x1000, 1)] {
            let stopped = machine.map_with(&mut machine.table(), range, Plan::Distinct);
            let at = range.start();
            assert!(
                matches!(stopped, Err(MapStopped::Table { error: MapError::Unsupported { .. }, .. })),
                "{at}"
            );
            machine.unmap(range);
        }
        machine.assert_clean();
    }

    fn a_part_of_a_table_goes_page_by_page_and_its_neighbours_stay<F>() {
        for count in [1, 2, SFENCE_LIMIT, SFENCE_LIMIT + 1] {
            let machine = Machine::<F>::new();
            let all = vmemmap::<F>(0, ENTRIES);
            let part = vmemmap::<F>(3, count);
            let mut expected = machine.map(all, Plan::Distinct);
            machine.harts.speculate(all);
            machine.unmap(part);
            expected.retain(|at, _| !part.contains(*at));
            assert_eq!(machine.read(all).0, expected);
            // Up to the limit leaves are fenced one by one, and the rest stays cached.
            let kept = if count > SFENCE_LIMIT { 0 } else { ENTRIES - count };
            for hart in machine.harts.all() {
                assert_eq!(hart.cached_leaves() as u64, kept);
            }
            machine.recheck(all);
            machine.unmap(all);
            machine.assert_clean();
        }
    }

    fn somebody_elses_64_kib_by_svnapot_are_seen_page_by_page<F>() {
        let machine = Machine::<F>::new();
        machine.map(vmemmap::<F>(0, 1), Plan::Distinct);
        let walk = arch_sim::walker::Walker::walk(&machine.walker(), &machine.memory, machine.root, F::BASE);
        let table = walk.tables.last().unwrap().frame.get() << 12;
        // N, V, R, W, A, D: 16 frames from 0x12_3450 on.
        let entry = 1 << 63 | (0x12_3450 | 8) << 10 | 0xc7;
        for index in 16..32 {
            machine.memory.write_u64(PhysAddr::new(table + index * 8), entry).unwrap();
        }
        let range = vmemmap::<F>(16, 16);
        let mut visited = Vec::new();
        let table = machine.table();
        let _ = table.visit(range, &mut |visit| {
            if let Visit::Leaves { at, run } = visit {
                visited.push((at, run.leaf.block.first().get(), run.count));
            }
            ControlFlow::Continue(())
        });
        assert_eq!(visited.len(), 16);
        for (page, seen) in (0..16).zip(visited) {
            let at = VirtAddr::new(range.start().get() + (page << 12));
            let found = table.lookup(at).mapping().unwrap();
            assert_eq!((found.at, found.leaf), (at, Leaf::single(Pfn::new(0x12_3450 + page).unwrap(), Role::Foreign)));
            assert_eq!(seen, (at, 0x12_3450 + page, 1));
            // As the hart reads it.
            let address = machine.harts.all()[0].access(at).unwrap();
            assert_eq!(address.get(), (0x12_3450 + page) << 12);
        }
        machine.unmap(vmemmap::<F>(0, 32));
        assert_eq!(machine.read(range).0.len(), 1);
    }

    fn what_others_have_entered_is_seen_and_stays<F>() {
        let machine = Machine::<F>::new();
        machine.map(vmemmap::<F>(0, 10), Plan::Distinct);
        let last = machine.walker();
        let walk = arch_sim::walker::Walker::walk(&last, &machine.memory, machine.root, F::BASE);
        let table = walk.tables.last().unwrap().frame.get() << 12;
        // V, R, W, A, D: frame 0x12_3456.
        let entry = 0x12_3456 << 10 | 0xc7;
        machine.memory.write_u64(mm_core::addr::PhysAddr::new(table + 10 * 8), entry).unwrap();
        let at = VirtAddr::new(F::BASE.get() + (10 << 12));
        let found = machine.table().lookup(at).mapping().unwrap();
        assert_eq!((found.leaf.role, found.leaf.block.first().get()), (Role::Foreign, 0x12_3456));
        let stopped = machine.map_with(&mut machine.table(), vmemmap::<F>(10, 1), Plan::Distinct);
        assert_eq!(
            stopped.unwrap_err(),
            MapStopped::Table { at, error: MapError::InUse { at } }
        );
        machine.unmap(vmemmap::<F>(0, 20));
        assert_eq!(machine.read(vmemmap::<F>(0, 20)).0.len(), 1);
        assert!(machine.memory.violations().is_empty());
    }
}
