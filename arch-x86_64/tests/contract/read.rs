//! `lookup`, `visit` and `first_in_use` against readers that share no code with the engine.

use crate::machine::{Machine, Mapped, NODE, PAGE, Paging, Plan, at, for_both_formats, vmemmap};
use arch_sim::walker::{Scanned, Walker};
use arch_x86_64::FourLevel;
use core::ops::ControlFlow;
use mm_core::addr::{Granule, Order, VirtAddr};
use mm_core::frame::{DirectMap, FrameAllocator};
use mm_core::paging::{Leaf, NoRecords, PageTable, Role, Visit};
use x86_64::structures::paging::mapper::TranslateResult;
use x86_64::structures::paging::{OffsetPageTable, PageTableFlags, Translate};

/// The `x86_64` crate's reader agrees at every page of `pages` and its borders.
fn crate_reads_the_same(
    machine: &Machine<FourLevel>,
    mapped: &Mapped,
    pages: impl Iterator<Item = u64>,
) {
    let root = machine.memory.frame_pointer(machine.root);
    // One chunk of memory, from frame 0 on.
    let base = root.as_ptr() as u64 - machine.root.base(Granule::Size4K).get();
    // SAFETY: the root's memory; all tables lie at the same offset; nobody writes while this lives.
    let reader = unsafe { OffsetPageTable::new(root.cast().as_mut(), x86_64::VirtAddr::new(base)) };
    for page in pages {
        let at = at::<FourLevel>(page);
        let own = mapped.range(..=at).next_back();
        let own =
            own.filter(|(start, leaf)| at.get() - start.get() < leaf.block.order().frames() * PAGE);
        match (
            reader.translate(x86_64::VirtAddr::new(at.get() + 0x123)),
            own,
        ) {
            (
                TranslateResult::Mapped {
                    frame,
                    offset,
                    flags,
                },
                Some((start, leaf)),
            ) => {
                assert_eq!(
                    frame.start_address().as_u64(),
                    leaf.block.first().get() * PAGE
                );
                assert_eq!(frame.size(), leaf.block.order().frames() * PAGE);
                assert_eq!(offset, at.get() - start.get() + 0x123);
                assert_eq!(flags.contains(PageTableFlags::WRITABLE), leaf.writable);
                assert!(flags.contains(PageTableFlags::GLOBAL | PageTableFlags::NO_EXECUTE));
            }
            (TranslateResult::NotMapped, None) => {}
            (found, expected) => panic!("{at}: {found:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn the_x86_64_crate_translates_every_page_alike() {
    let boundaries = [512, 512 * 512, 512 * 512 * 512];
    for plan in [
        Plan::Distinct,
        Plan::Single,
        Plan::Compound(8),
        Plan::Compound(4096),
        Plan::Huge,
    ] {
        for boundary in boundaries {
            let machine = Machine::<FourLevel>::new();
            let first = boundary.max(1100) - 1100;
            let range = vmemmap::<FourLevel>(first, 2200);
            let mapped = machine.map(range, plan).mapped;
            crate_reads_the_same(&machine, &mapped, first.saturating_sub(3)..first + 2203);
            machine.unmap(&[vmemmap::<FourLevel>(first + 100, 1000)]);
            let (left, _) = machine.read(range);
            assert!(left.len() < mapped.len());
            crate_reads_the_same(&machine, &left, first.saturating_sub(3)..first + 2203);
        }
    }
}

for_both_formats! {
    fn a_visit_meets_the_tables_and_leaves_that_the_hardware_would<F>() {
        for plan in [Plan::Distinct, Plan::Compound(8), Plan::Compound(4096), Plan::Huge] {
            let machine = Machine::<F>::new();
            let edge = 512 * 512;
            machine.map(vmemmap::<F>(edge - 700, 1500), plan);
            machine.map(vmemmap::<F>(edge + 3000, 1), plan);
            for (first, count) in [(edge - 2000, 8000), (edge - 300, 1), (edge + 10, 600), (0, 1)] {
                let range = vmemmap::<F>(first, count);
                let (mut tables, mut leaves) = (Vec::new(), Mapped::new());
                let flow = machine.table().visit(range, &mut |visit| {
                    match visit {
                        Visit::Table { at, frame, leaf_table, owned } => {
                            assert!(owned);
                            tables.push((at, frame, leaf_table));
                        }
                        Visit::SharedTable { .. } => panic!("nobody asked for a shared table"),
                        Visit::Leaves { at, run } => for index in 0..run.count {
                            let block = run.block(index).unwrap();
                            let bytes = block.order().frames() * PAGE;
                            let at = at.checked_add(index * bytes).unwrap();
                            leaves.insert(at, Leaf { block, ..run.leaf });
                        },
                    }
                    ControlFlow::Continue(())
                });
                assert_eq!(flow, ControlFlow::Continue(()));
                let mut expected = Vec::new();
                F::WALKER.scan(&machine.memory, machine.root, range, &mut |scanned| {
                    if let Scanned::Table(table) = scanned {
                        expected.push((table.span.start(), table.frame, table.level == 1));
                    }
                });
                assert_eq!(tables, expected);
                assert_eq!(leaves, machine.read(range).0);
            }
        }
    }

    fn a_visit_ends_when_the_visitor_breaks<F>() {
        let machine = Machine::<F>::new();
        machine.map(vmemmap::<F>(0, 1024), Plan::Single);
        for stop in [1, 3, 5, 17] {
            let mut visits = 0;
            let flow = machine.table().visit(vmemmap::<F>(0, 1024), &mut |_| {
                visits += 1;
                if visits == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!((flow, visits), (ControlFlow::Break(()), stop));
        }
    }

    fn the_first_address_in_use_is_found_at_every_level<F>() {
        let machine = Machine::<F>::new();
        let table = machine.table();
        let all = vmemmap::<F>(0, 512 * 512 * 3);
        assert_eq!(table.first_in_use(all), None);
        machine.map(vmemmap::<F>(512 * 512 + 77, 2), Plan::Distinct);
        assert_eq!(table.first_in_use(all), Some(at::<F>(512 * 512 + 77)));
        assert_eq!(table.first_in_use(vmemmap::<F>(512 * 512 + 78, 1)), Some(at::<F>(512 * 512 + 78)));
        assert_eq!(table.first_in_use(vmemmap::<F>(512 * 512 + 79, 1000)), None);
        machine.map(vmemmap::<F>(1024, 512), Plan::Huge);
        assert_eq!(table.first_in_use(all), Some(at::<F>(1024)));
        assert_eq!(table.first_in_use(vmemmap::<F>(1100, 1)), Some(at::<F>(1100)));
        assert_eq!(table.first_in_use(vmemmap::<F>(1536, 512)), None);
    }

    fn lookup_knows_no_address_that_is_not_canonical<F>() {
        let machine = Machine::<F>::new();
        machine.map(vmemmap::<F>(0, 1), Plan::Distinct);
        // The same indices in every table.
        let alias = F::BASE.get() ^ 1 << 63;
        assert_eq!(machine.table().lookup(VirtAddr::new(alias)).mapping(), None);
        assert!(machine.table().lookup(F::BASE).mapping().is_some());
    }

    fn a_read_only_leaf_faults_on_stores<F>() {
        let machine = Machine::<F>::new();
        machine.map(vmemmap::<F>(0, 8), Plan::Compound(8));
        let cpu = &machine.cpus.all()[0];
        assert!(cpu.store(at::<F>(0)).is_ok());
        assert!(cpu.access(at::<F>(1)).is_ok());
        assert!(cpu.store(at::<F>(1)).is_err());
    }

    fn the_last_leaf_that_is_cleared_takes_its_tables_along_after_the_flush<F>() {
        let machine = Machine::<F>::new();
        let mut table = machine.table();
        let frames = [9, 10].map(|page| (page, machine.frames.allocate(Order::BASE, NODE).unwrap()));
        for (page, block) in frames {
            let leaf = Leaf::single(block.first(), Role::Tail);
            // SAFETY: 1: the frame is this test's. 2: nobody uses the address.
            unsafe { table.map_leaf(at::<F>(page), leaf, NODE, &NoRecords) }.unwrap();
        }
        let tables = machine.outstanding() - 2;
        machine.cpus.speculate(vmemmap::<F>(0, 512));
        for (left, (page, _)) in [(tables, frames[0]), (0, frames[1])] {
            let mut flush = mm_core::paging::Flush::nothing();
            // SAFETY: 1: nobody uses the address. 2: the frame is kept.
            unsafe { table.clear_leaf(at::<F>(page), &mut flush) }.unwrap();
            assert_eq!(flush.detached().is_some(), left == 0);
            assert_eq!(machine.outstanding(), tables + 2, "nothing is freed before the flush");
            table.flush(flush, &NoRecords);
            assert_eq!(machine.outstanding(), left + 2);
        }
        assert_eq!(table.lookup(at::<F>(9)).mapping(), None);
        assert_eq!(table.first_in_use(vmemmap::<F>(0, 512)), None);
        machine.assert_no_violations();
    }

    fn a_detached_table_waits_for_the_obligation_that_says_so<F>() {
        let machine = Machine::<F>::new();
        let mut table = machine.table();
        // Three leaf tables below one table.
        let pages = [9, 512 + 9, 1024 + 9];
        for page in pages {
            let block = machine.frames.allocate(Order::BASE, NODE).unwrap();
            let leaf = Leaf::single(block.first(), Role::Tail);
            // SAFETY: 1: the frame is this test's. 2: nobody uses the address.
            unsafe { table.map_leaf(at::<F>(page), leaf, NODE, &NoRecords) }.unwrap();
        }
        let all = machine.outstanding();
        let clear = |table: &mut crate::machine::Table<'_, F>, pages: &[u64]| {
            let mut flush = mm_core::paging::Flush::nothing();
            for page in pages {
                // SAFETY: 1: nobody uses the address. 2: the frame is kept.
                unsafe { table.clear_leaf(at::<F>(*page), &mut flush) }.unwrap();
            }
            flush
        };
        let middle = clear(&mut table, &pages[1..2]);
        // The other one is next to it, and not its obligation.
        let first = clear(&mut table, &pages[..1]);
        table.flush(first, &NoRecords);
        assert_eq!(machine.outstanding(), all - 1);
        let leaf = Leaf::single(mm_core::addr::Pfn::new(1).unwrap(), Role::Tail);
        // SAFETY: 1 and 2: it is refused.
        let refused = unsafe { table.map_leaf(at::<F>(pages[1]), leaf, NODE, &NoRecords) };
        assert!(refused.is_err());
        table.flush(middle, &NoRecords);
        assert_eq!(machine.outstanding(), all - 2);
        let last = clear(&mut table, &pages[2..]);
        table.flush(last, &NoRecords);
        assert_eq!(machine.outstanding(), 3);
    }
}
