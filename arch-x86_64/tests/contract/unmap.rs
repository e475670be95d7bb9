//! `unmap`: invalidate, flush, reclaim, in this order, and nothing besides.

use crate::machine::{
    Event, Machine, NODE, PAGE, Paging, Plan, at, for_both_formats, leaves, vmemmap,
};
use arch_x86_64::INVLPG_LIMIT;
use core::cell::RefCell;
use core::sync::atomic::Ordering;
use mm_core::addr::{VirtAddr, VirtRange};
use mm_core::paging::{Flush, FlushScope, Mmu, NoRecords, PageTable, RadixTable, Role, Run, Step};

fn is_flush(event: &Event) -> bool {
    matches!(
        event,
        Event::Invlpg(..) | Event::Invpcid(_) | Event::TogglePge(_)
    )
}

/// Remembers what was to be forgotten.
#[derive(Default)]
struct Scopes(RefCell<Vec<Vec<VirtRange>>>);

// SAFETY: 1 and 2: for tables that no CPU uses.
unsafe impl<F> Mmu<F> for Scopes {
    fn flush(&self, scope: FlushScope<'_>) {
        let Some(ranges) = scope.ranges() else {
            panic!("{scope:?}")
        };
        self.0.borrow_mut().push(ranges.to_vec());
    }

    fn publish(&self) {}
}

for_both_formats! {
    fn every_cpu_forgets_before_anything_is_reported<F>() {
        for (first, count) in [(0, 1), (0, INVLPG_LIMIT), (3, 600), (0, 512), (0, 1 << 18)] {
            for plan in [Plan::Distinct, Plan::Compound(8), Plan::Huge] {
                let machine = Machine::<F>::new();
                let range = vmemmap::<F>(first, count);
                if plan == Plan::Distinct && count > 100_000 {
                    continue; // more frames than there are
                }
                let plan = if count > 100_000 { Plan::Compound(4096) } else { plan };
                machine.map(range, plan);
                machine.cpus.speculate(range);
                machine.cpus.take_events();
                let runs = machine.unmap(&[range]);
                let events = machine.cpus.take_events();
                let removed = events.iter().position(|event| matches!(event, Event::Removed(_)));
                let first_flush = events.iter().position(is_flush).unwrap();
                let last_flush = events.iter().rposition(is_flush).unwrap();
                let released = events.iter().position(|event| *event == Event::Released).unwrap();
                assert!(removed.unwrap() < first_flush && last_flush < released, "{events:?}");
                assert!(!runs.is_empty());
                for cpu in machine.cpus.all() {
                    assert!(cpu.access(range.start()).is_err() && cpu.access(range.last()).is_err());
                }
                assert_eq!(machine.outstanding(), 0);
                machine.assert_no_violations();
            }
        }
    }

    fn a_part_of_a_table_goes_and_its_neighbours_stay<F>() {
        for plan in [Plan::Distinct, Plan::Single, Plan::Compound(8)] {
            for (first, count) in [(0, 1), (511, 1), (1, 510), (8, 64), (500, 30), (1, 1022), (0, 512), (512, 512)] {
                let machine = Machine::<F>::new();
                let all = vmemmap::<F>(0, 1024);
                let part = vmemmap::<F>(first, count);
                let mut expected = machine.map(all, plan).mapped;
                machine.cpus.speculate(all);
                let runs = machine.unmap(&[part]);
                assert_eq!(leaves(&runs), count);
                expected.retain(|at, _| !part.contains(*at));
                let (mapped, tables) = machine.read(all);
                assert_eq!(mapped, expected);
                let leaf_tables = if count == 512 { 1 } else { 2 };
                assert_eq!(tables, F::LEVELS.len() as u64 - 2 + leaf_tables);
                // The rest goes by and by, and then the tables.
                for rest in [all.before(part.start()), all.after(part.last())].into_iter().flatten() {
                    machine.unmap(&[rest]);
                }
                assert_eq!(machine.outstanding(), 0);
                machine.assert_no_violations();
            }
        }
    }

    fn several_ranges_take_one_flush_and_free_the_table_that_they_share<F>() {
        let machine = Machine::<F>::new();
        machine.map(vmemmap::<F>(0, 512), Plan::Distinct);
        machine.map(vmemmap::<F>(2048, 4), Plan::Distinct);
        machine.cpus.speculate(vmemmap::<F>(0, 4096));
        machine.cpus.take_events();
        let ranges = [vmemmap::<F>(0, 10), vmemmap::<F>(2048, 4), vmemmap::<F>(10, 500), vmemmap::<F>(510, 2)];
        let runs = machine.unmap(&ranges);
        assert_eq!(leaves(&runs), 516);
        let events = machine.cpus.take_events();
        assert_eq!(events.iter().filter(|event| is_flush(event)).count(), 2, "one for each CPU: {events:?}");
        assert_eq!(machine.outstanding(), 0);
        machine.assert_no_violations();
    }

    fn runs_are_reported_whole_whatever_the_hardware_has_set<F>() {
        for plan in [Plan::Distinct, Plan::Compound(8), Plan::Compound(4096)] {
            for (first, count) in [(0, 512), (0, 500)] {
                let machine = Machine::<F>::new();
                let range = vmemmap::<F>(first, count);
                let mapped = machine.map(range, plan).mapped;
                // Any mixture of A and D.
                for page in 0..count {
                    let at = at::<F>(first + page);
                    let entry = machine.read_entry(at, 1) & !F::STATUS_BITS;
                    machine.write_entry(at, 1, entry | (((page * 0x9e37_79b9) >> 3) & 3) << 5);
                }
                let table = machine.table();
                for (at, leaf) in &mapped {
                    assert_eq!(table.lookup(*at).mapping().unwrap().leaf, *leaf);
                }
                let runs = machine.unmap(&[range]);
                let steps: Vec<_> = runs.iter().map(|run| (run.count, run.step, run.leaf.role)).collect();
                match plan {
                    // A window of a live table is reported at a time.
                    Plan::Distinct => {
                        assert!(runs.len() <= 8, "{steps:?}");
                        assert!(runs.iter().all(|run| run.count == 1 || run.step == Step::Next), "{steps:?}");
                    }
                    Plan::Compound(8) => {
                        assert_eq!(runs.len() as u64, count.div_ceil(8) * 2, "{steps:?}");
                        let (heads, tails): (Vec<&Run>, Vec<_>) =
                            runs.iter().partition(|run| run.leaf.role == Role::Descriptors);
                        assert!(heads.iter().all(|run| run.count == 1));
                        assert!(tails.iter().all(|run| run.count >= 3 && run.step == Step::Same && !run.leaf.writable));
                    }
                    _ => assert!(runs.len() <= 9, "{steps:?}"),
                }
                assert_eq!(machine.outstanding(), 0);
                machine.assert_no_violations();
            }
        }
    }

    // EFER.TCE: INVLPG leaves upper-level entries alone that do not lead to its page.
    fn tables_are_forgotten_by_the_pages_below_them_alone<F>() {
        let slot = 1 << (F::LEVELS[0].shift - 12);
        for boundary in [512, 1 << 18, slot] {
            for (first, count) in [(boundary - 1, 1), (boundary - 1, 2), (boundary - 8, INVLPG_LIMIT)] {
                let machine = Machine::<F>::new();
                machine.cpus.keeps_others.store(true, Ordering::Relaxed);
                let range = vmemmap::<F>(first, count);
                machine.map(range, Plan::Distinct);
                // All CPUs cache the tables, and read them again whenever they can.
                machine.cpus.speculate(range);
                machine.cpus.take_events();
                machine.unmap(&[range]);
                let events = machine.cpus.take_events();
                assert!(events.iter().all(|event| !matches!(event, Event::Invpcid(_) | Event::TogglePge(_))));
                for cpu in machine.cpus.all() {
                    assert_eq!((cpu.cached_leaves(), cpu.cached_tables()), (0, 0));
                }
                // Tables that were freed while they were cached would be among the violations.
                machine.assert_no_violations();
                assert_eq!(machine.outstanding(), 0);
            }
        }
    }

    fn a_root_entry_is_removed_once<F>() {
        let machine = Machine::<F>::new();
        let slot = 1 << (F::LEVELS[0].shift - 12);
        machine.map(vmemmap::<F>(slot - 700, 1500), Plan::Distinct);
        let removed = |events: Vec<Event>| -> Vec<Event> {
            events.into_iter().filter(|event| matches!(event, Event::Removed(_))).collect()
        };
        machine.unmap(&[vmemmap::<F>(slot - 700, 600)]);
        assert_eq!(removed(machine.cpus.take_events()), []);
        machine.unmap(&[vmemmap::<F>(slot - 100, 900)]);
        let both = [at::<F>(0), at::<F>(slot)].map(Event::Removed);
        assert_eq!(removed(machine.cpus.take_events()), both);
        assert_eq!(machine.outstanding(), 0);
    }

    fn a_huge_leaf_goes_whole_and_is_forgotten_whole<F>() {
        for (first, count) in [(0, 512), (0, 1), (511, 1), (100, 20), (500, 100)] {
            let machine = Machine::<F>::new();
            let all = vmemmap::<F>(0, 1024);
            machine.map(all, Plan::Huge);
            machine.cpus.speculate(all);
            let runs = machine.unmap(&[vmemmap::<F>(first, count)]);
            let gone = if first + count > 512 { 2 } else { 1 };
            assert_eq!(leaves(&runs), gone);
            assert_eq!(machine.read(all).0.len() as u64, 2 - gone);
            for cpu in machine.cpus.all() {
                for page in [0, first, 511] {
                    assert!(cpu.access(at::<F>(page)).is_err());
                }
            }
            machine.unmap(&[all]);
            assert_eq!(machine.outstanding(), 0);
            machine.assert_no_violations();
        }
    }

    fn all_that_a_partly_cleared_huge_leaf_translated_is_in_the_flush<F>() {
        let machine = Machine::<F>::new();
        machine.map(vmemmap::<F>(0, 1536), Plan::Huge);
        let mmu = Scopes::default();
        // SAFETY: as for `Machine::table`; nobody accesses the addresses.
        let mut table = unsafe {
            RadixTable::<F, _, _, _, _>::new(machine.root, &machine.cpus, &machine.frames, &machine.memory, &mmu)
        };
        let mut flush = Flush::nothing();
        // SAFETY: 1: nobody uses the addresses. 2: the flush is given below.
        let cleared = unsafe { table.clear_leaf(at::<F>(1030), &mut flush) }.unwrap();
        table.flush(flush, &NoRecords);
        assert_eq!(cleared.at, at::<F>(1024));
        // SAFETY: 1 and 2: nobody uses the addresses, all were mapped.
        unsafe { table.unmap([vmemmap::<F>(5, 1)].into_iter(), &mut |_: Run| (), &NoRecords) };
        // SAFETY: as above.
        unsafe { table.unmap([vmemmap::<F>(1000, 24)].into_iter(), &mut |_: Run| (), &NoRecords) };
        let scopes = [vmemmap::<F>(1024, 512), vmemmap::<F>(0, 512), vmemmap::<F>(512, 512)];
        assert_eq!(*mmu.0.borrow(), scopes.map(|range| vec![range]));
    }

    fn a_leaf_that_is_cleared_takes_its_page_out_and_leaves_the_others<F>() {
        let machine = Machine::<F>::new();
        let range = vmemmap::<F>(0, 3);
        let mut expected = machine.map(range, Plan::Distinct).mapped;
        machine.cpus.speculate(range);
        let mut table = machine.table();
        let mut flush = Flush::nothing();
        // SAFETY: 1: nobody uses the addresses. 2: the reference is given back after the flush.
        let cleared = unsafe { table.clear_leaf(at::<F>(1), &mut flush) }.unwrap();
        table.flush(flush, &NoRecords);
        assert_eq!(Some(cleared.leaf), expected.remove(&at::<F>(1)));
        assert_eq!(machine.read(range).0, expected);
        for cpu in machine.cpus.all() {
            assert!(!cpu.frame_is_cached(cleared.leaf.block.first()));
        }
        // It can be entered again, and then everything goes.
        // SAFETY: 1: the block is this test's again. 2: nobody uses the address.
        unsafe { table.map_leaf(at::<F>(1), cleared.leaf, NODE, &NoRecords) }.unwrap();
        machine.unmap(&[range]);
        assert_eq!(machine.outstanding(), 0);
        machine.assert_no_violations();
    }

    fn holes_are_passed_over<F>() {
        let machine = Machine::<F>::new();
        machine.map(vmemmap::<F>(3, 2), Plan::Distinct);
        machine.map(vmemmap::<F>(2000, 1), Plan::Distinct);
        let range = VirtRange::new(VirtAddr::new(F::BASE.get()), 4096 * PAGE).unwrap();
        assert_eq!(leaves(&machine.unmap(&[range])), 3);
        assert_eq!(machine.unmap(&[range]), []);
        assert_eq!(machine.outstanding(), 0);
    }
}
