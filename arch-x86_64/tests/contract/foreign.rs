//! What others have entered is seen, and stays.

use crate::machine::{Machine, Paging, Plan, Source, at, for_both_formats, leaves, vmemmap};
use mm_core::paging::{Flush, MapError, MapStopped, NoRecords, PageTable, Role};

/// A page of somebody else's, a swapped-out one, one of ours.
const FOREIGN_PAGE: u64 = 0x0123_4063;
const FOREIGN_HUGE: u64 = 0x0120_00e3;
const RESERVED: u64 = 0x00ab_cd00;

for_both_formats! {
    fn an_entry_that_is_in_use_stops_a_mapping_and_is_not_touched<F>() {
        for (level, entry) in [
            (1, FOREIGN_PAGE), (1, RESERVED), (2, FOREIGN_HUGE), (2, RESERVED), (3, 0x4000_00e3), (3, RESERVED),
        ] {
            // The entry's first page lies in the third leaf table, or at the next 1 GiB.
            let first = if level == 3 { 512 * 512 } else { 1024 };
            let page = if level == 1 { first + 7 } else { first };
            let machine = Machine::<F>::new();
            machine.map(vmemmap::<F>(first + 500, 1), Plan::Distinct);
            if level > 1 {
                machine.unmap(&[vmemmap::<F>(first + 500, 1)]);
                machine.map(vmemmap::<F>(first - 1, 1), Plan::Distinct);
                machine.map(vmemmap::<F>(512 * 512 * 2, 1), Plan::Distinct);
            }
            machine.write_entry(at::<F>(page), level, entry);
            let outstanding = machine.outstanding();
            for plan in [Plan::Distinct, Plan::Single, Plan::Compound(4096), Plan::Huge] {
                let start = first - 600;
                let mut source = Source::new(&machine.frames, plan);
                let range = if level > 1 { vmemmap::<F>(first, 600) } else { vmemmap::<F>(start, 1200) };
                let stopped = machine.map_from(range, &mut source).unwrap_err();
                assert_eq!(stopped, MapStopped::Table {
                    at: if level > 1 { range.start() } else { at::<F>(first) },
                    error: MapError::InUse { at: at::<F>(page) },
                });
                assert_eq!(machine.read_entry(at::<F>(page), level), entry);
                assert_eq!(machine.table().first_in_use(vmemmap::<F>(first, 512)), Some(at::<F>(page)));
                if stopped.at() > range.start() {
                    machine.unmap(&[range.before(stopped.at()).unwrap()]);
                }
                assert_eq!(machine.outstanding(), outstanding);
                machine.assert_no_violations();
            }
        }
    }

    fn a_foreign_leaf_is_seen_and_never_cleared<F>() {
        let machine = Machine::<F>::new();
        let all = vmemmap::<F>(0, 1024);
        machine.map(vmemmap::<F>(0, 10), Plan::Distinct);
        machine.write_entry(at::<F>(10), 1, FOREIGN_PAGE);
        machine.write_entry(at::<F>(11), 1, RESERVED);
        machine.write_entry(at::<F>(512), 2, FOREIGN_HUGE);
        machine.cpus.speculate(all);
        let mut table = machine.table();
        for page in [10, 512, 700] {
            assert_eq!(table.lookup(at::<F>(page)).mapping().unwrap().leaf.role, Role::Foreign);
            let mut flush = Flush::nothing();
            // SAFETY: 1: nobody uses the addresses. 2: nothing comes of it.
            assert_eq!(unsafe { table.clear_leaf(at::<F>(page), &mut flush) }, None);
            table.flush(flush, &NoRecords);
        }
        assert_eq!(table.lookup(at::<F>(11)).mapping(), None);
        let runs = machine.unmap(&[vmemmap::<F>(0, 10)]);
        assert_eq!(leaves(&runs), 10);
        assert_eq!(machine.read_entry(at::<F>(10), 1), FOREIGN_PAGE);
        assert_eq!(machine.read_entry(at::<F>(11), 1), RESERVED);
        assert_eq!(machine.read_entry(at::<F>(512), 2), FOREIGN_HUGE);
        machine.assert_no_violations();
    }

    fn tables_of_others_are_used_and_never_freed<F>() {
        let levels = F::LEVELS.len() as u8;
        // Boot code has entered tables down to one level, at each level once.
        for lowest in (1..levels).rev() {
            let machine = Machine::<F>::new();
            for level in (lowest + 1..=levels).rev() {
                machine.link_foreign_table(at::<F>(0), level);
            }
            let foreign = u64::from(levels - lowest);
            assert_eq!(machine.outstanding(), foreign);
            for plan in [Plan::Distinct, Plan::Compound(8), Plan::Huge] {
                for (first, count) in [(0, 1), (0, 512), (5, 1000)] {
                    let range = vmemmap::<F>(first, count);
                    let source = machine.map(range, plan);
                    assert_eq!(machine.read(range).0, source.mapped);
                    machine.cpus.speculate(range);
                    machine.unmap(&[range]);
                    assert_eq!(machine.outstanding(), foreign);
                }
            }
            machine.assert_no_violations();
        }
    }
}
