//! `unmap`: invalidate, flush, reclaim, in this order, and nothing besides.

use crate::machine::{Event, Machine, Paging, at, for_each_granule, vmemmap};
use crate::source::Plan;
use arch_aarch64::TLBI_LIMIT;
use mm_core::paging::{Run, Step};

fn leaves(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.count).sum()
}

for_each_granule! {
    fn every_cpu_forgets_before_anything_is_reported<F>() {
        for (first, count) in [(0, 1), (3, TLBI_LIMIT), (3, TLBI_LIMIT + 1), (0, F::ENTRIES), (1, 2 * F::ENTRIES)] {
            for plan in [Plan::Distinct, Plan::Compound, Plan::Huge] {
                let machine = Machine::<F>::new();
                let range = vmemmap::<F>(first, count);
                machine.map(range, plan);
                machine.cpus.speculate(vmemmap::<F>(0, 4 * F::ENTRIES));
                machine.cpus.take_events();
                assert!(!machine.unmap(&[range]).is_empty());

                let events = machine.cpus.take_events();
                let released = events.iter().position(|event| *event == Event::Released).unwrap();
                let (flush, reports) = events.split_at(released);
                assert!(reports.iter().all(|event| *event == Event::Released));
                assert_eq!(flush.first(), Some(&Event::DsbIshst));
                assert_eq!(flush[flush.len() - 2..], [Event::DsbIsh, Event::Isb]);
                let tlbis = &flush[1..flush.len() - 2];
                if count > TLBI_LIMIT {
                    assert_eq!(tlbis, [Event::TlbiAll]);
                } else {
                    let page = |page| Event::Tlbi(at::<F>(first + page).get());
                    assert!(tlbis.iter().copied().eq((0..count).map(page)));
                }
                for cpu in machine.cpus.all() {
                    assert!(cpu.access(range.start()).is_err());
                    assert!(cpu.access(range.last()).is_err());
                    assert_eq!((cpu.cached_leaves(), cpu.cached_tables()), (0, 0));
                }
                machine.assert_clean();
            }
        }
    }

    fn a_part_of_a_table_goes_and_its_neighbours_stay<F>() {
        let entries = F::ENTRIES;
        for plan in [Plan::Distinct, Plan::Compound] {
            for (first, count) in [
                (0, 1), (entries - 1, 1), (1, entries - 2), (entries - 5, 10), (0, entries), (entries, entries),
            ] {
                let machine = Machine::<F>::new();
                let all = vmemmap::<F>(0, 2 * entries);
                let part = vmemmap::<F>(first, count);
                let mut expected = machine.map(all, plan);
                machine.cpus.speculate(all);
                assert_eq!(leaves(&machine.unmap(&[part])), count);
                expected.retain(|at, _| !part.contains(*at));
                let (mapped, tables) = machine.read(all);
                assert_eq!(mapped, expected);
                let leaf_tables = if count == entries { 1 } else { 2 };
                assert_eq!(tables, F::LEVELS.len() as u64 - 2 + leaf_tables);
                for rest in [all.before(part.start()), all.after(part.last())].into_iter().flatten() {
                    machine.unmap(&[rest]);
                }
                machine.assert_clean();
            }
        }
    }

    fn several_ranges_take_one_flush_and_free_the_tables_that_they_share<F>() {
        let machine = Machine::<F>::new();
        let far = 4 * F::ENTRIES;
        machine.map(vmemmap::<F>(0, 20), Plan::Distinct);
        machine.map(vmemmap::<F>(far, 4), Plan::Distinct);
        machine.cpus.speculate(vmemmap::<F>(0, far + 4));
        machine.cpus.take_events();
        let ranges = [vmemmap::<F>(0, 10), vmemmap::<F>(far, 4), vmemmap::<F>(10, 10)];
        assert_eq!(leaves(&machine.unmap(&ranges)), 24);
        let events = machine.cpus.take_events();
        let count = |wanted| events.iter().filter(|event| **event == wanted).count();
        assert_eq!(count(Event::DsbIsh), 1);
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Tlbi(_))).count(), 24);
        machine.assert_clean();
    }

    fn runs_are_reported_whole_whatever_the_hardware_has_set<F>() {
        for plan in [Plan::Distinct, Plan::Compound] {
            let machine = Machine::<F>::new();
            let range = vmemmap::<F>(0, F::ENTRIES);
            machine.map(range, plan);
            // Somebody has aged some of them.
            for page in (0..F::ENTRIES).filter(|page| page % 3 == 0) {
                let entry = machine.read_entry(at::<F>(page), 1);
                machine.write_entry(at::<F>(page), 1, entry & !F::STATUS_BITS);
            }
            let runs = machine.unmap(&[range]);
            let shape: Vec<_> = runs.iter().map(|run| (run.count, run.step)).collect();
            match plan {
                Plan::Distinct => assert_eq!(shape, [(F::ENTRIES, Step::Next)]),
                _ => assert_eq!(shape, [(1, Step::Same), (F::ENTRIES - 1, Step::Same)]),
            }
            machine.assert_clean();
        }
    }

    fn tables_of_every_level_go_with_their_last_entry<F>() {
        let machine = Machine::<F>::new();
        // One page in two slots of each level but the root.
        let mut ranges = vec![vmemmap::<F>(0, 1)];
        for level in F::LEVELS.iter().skip(1) {
            ranges.push(vmemmap::<F>((1 << level.shift) / F::PAGE, 1));
        }
        for range in &ranges {
            machine.map(*range, Plan::Distinct);
        }
        machine.cpus.speculate(vmemmap::<F>(0, (1 << F::LEVELS[0].shift) / F::PAGE));
        for range in &ranges {
            assert_eq!(leaves(&machine.unmap(&[*range])), 1);
        }
        machine.assert_clean();
    }
}
