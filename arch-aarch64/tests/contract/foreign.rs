//! What others have entered is seen, and stays.

use crate::machine::{Machine, Paging, at, for_each_granule, vmemmap};
use crate::source::{Plan, Source};
use mm_core::paging::{Flush, MapError, MapStopped, NoRecords, PageTable, Role};

/// A page of a boot loader's: inner shareable, accessed, not of this library.
const PAGE: u64 = 0x703;
/// The same, as a block.
const BLOCK: u64 = 0x701;
/// Somebody's note in an entry that is not valid.
const NOTE: u64 = 0x00ab_cd00;

for_each_granule! {
    fn an_entry_in_use_stops_a_mapping_and_is_not_touched<F>() {
        let entries = F::ENTRIES;
        // Beyond RAM.
        let block = F::PAGE << F::huge().get();
        for (level, page, entry) in [
            (1, entries + 7, (5 * block) | PAGE),
            (1, entries + 7, NOTE),
            (2, entries, (6 * block) | BLOCK),
            (2, entries, NOTE),
        ] {
            let machine = Machine::<F>::new();
            // Tables down to the entry.
            machine.map(vmemmap::<F>(if level == 1 { entries } else { 0 }, 1), Plan::Distinct);
            machine.write_entry(at::<F>(page), level, entry);
            let outstanding = machine.frames.outstanding();
            for plan in [Plan::Distinct, Plan::Compound] {
                let range = vmemmap::<F>(entries + 1, entries - 1);
                let mut source = Source::<F>::new(&machine.frames, plan);
                let stopped = machine.map_from(range, &mut source).unwrap_err();
                let used = if level == 1 { at::<F>(page) } else { range.start() };
                let error = MapError::InUse { at: used };
                assert_eq!(stopped, MapStopped::Table { at: range.start(), error });
                assert_eq!(machine.table().first_in_use(range), Some(used));
                assert_eq!(machine.read_entry(at::<F>(page), level), entry);
                assert_eq!(machine.frames.outstanding(), outstanding);
            }
        }
    }

    fn one_s_own_entry_is_in_use_too<F>() {
        let machine = Machine::<F>::new();
        let range = vmemmap::<F>(0, 3);
        let given = machine.map(range, Plan::Distinct);
        let mut source = Source::<F>::new(&machine.frames, Plan::Distinct);
        let stopped = machine.map_from(vmemmap::<F>(2, 2), &mut source).unwrap_err();
        let at = at::<F>(2);
        assert_eq!(stopped, MapStopped::Table { at, error: MapError::InUse { at } });
        assert_eq!(machine.read(range).0, given);
        machine.unmap(&[range]);
        machine.assert_clean();
    }

    fn a_foreign_leaf_is_seen_and_never_cleared<F>() {
        let machine = Machine::<F>::new();
        let entries = F::ENTRIES;
        // Beyond RAM.
        let block = F::PAGE << F::huge().get();
        machine.map(vmemmap::<F>(0, 10), Plan::Distinct);
        machine.write_entry(at::<F>(10), 1, (5 * block) | PAGE);
        machine.write_entry(at::<F>(11), 1, NOTE);
        machine.write_entry(at::<F>(entries), 2, (6 * block) | BLOCK);
        let all = vmemmap::<F>(0, 2 * entries);
        machine.cpus.speculate(all);
        let mut table = machine.table();
        for page in [10, entries, entries + 9] {
            assert_eq!(table.lookup(at::<F>(page)).mapping().unwrap().leaf.role, Role::Foreign);
            let mut flush = Flush::nothing();
            // SAFETY: 1: nobody uses the addresses. 2: nothing comes of it.
            let cleared = unsafe { table.clear_leaf(at::<F>(page), &mut flush) };
            assert_eq!(cleared, None);
            table.flush(flush, &NoRecords);
        }
        assert_eq!(machine.unmap(&[vmemmap::<F>(0, 10)]).iter().map(|run| run.count).sum::<u64>(), 10);
        assert_eq!(machine.read(all).0.len(), 2);
        assert_eq!(machine.read_entry(at::<F>(11), 1), NOTE);
        assert_eq!(machine.read_entry(at::<F>(entries), 2), (6 * block) | BLOCK);
        // The tables hold what is somebody else's, so they stay.
        assert_eq!(machine.frames.outstanding(), F::LEVELS.len() as u64 - 1);
        assert!(machine.memory.violations().is_empty());
    }
}
