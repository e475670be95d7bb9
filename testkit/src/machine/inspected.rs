//! A machine and its page table, whatever the backend: traits without generic methods, which are
//! implemented once for each backend.

use super::TestCpus;
use any_table::{AnyPageTable, Erased, Holds, says_the_same};
use arch_sim::walker::Translation;
use arch_sim::{SimFrames, SimMemory, TableWatch, Violations};
use hosted::inspect::{Fingerprint, SeenEntry, SeenLeaf};
use hosted::{Inspect, Machine};
use mm_core::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use mm_core::paging::Leaf;

/// See [`TestMachine`](super::TestMachine).
pub(super) trait AnyMachine {
    fn memory(&self) -> &SimMemory;
    fn frames(&self) -> &SimFrames;
    fn cpus(&self) -> &dyn TestCpus;
    fn root(&self) -> Pfn;
    fn table_watch(&self) -> &TableWatch;
    fn violations(&self) -> &Violations;
    fn take_table(&self, foreign: PfnRange) -> Option<Box<dyn Inspected + '_>>;
    fn translate(&self, at: VirtAddr) -> Option<Translation>;
    fn tables_at(&self, at: VirtAddr) -> usize;
    fn table_spans(&self) -> Vec<u32>;
}

impl<B: Inspect> AnyMachine for Machine<B> {
    fn memory(&self) -> &SimMemory {
        self.memory()
    }

    fn frames(&self) -> &SimFrames {
        self.frames()
    }

    fn cpus(&self) -> &dyn TestCpus {
        self.cpus()
    }

    fn root(&self) -> Pfn {
        self.root()
    }

    fn table_watch(&self) -> &TableWatch {
        self.table_watch()
    }

    fn violations(&self) -> &Violations {
        self.violations()
    }

    fn take_table(&self, foreign: PfnRange) -> Option<Box<dyn Inspected + '_>> {
        const {
            assert!(says_the_same::<B::Table<'static>>(), "see `says_the_same`");
        }
        Some(Box::new(WithOthers::<B> {
            table: self.take_table()?,
            foreign: B::foreign(self, foreign),
            machine: self,
        }))
    }

    fn translate(&self, at: VirtAddr) -> Option<Translation> {
        B::translate(self, at)
    }

    fn tables_at(&self, at: VirtAddr) -> usize {
        B::tables_at(self, at)
    }

    fn table_spans(&self) -> Vec<u32> {
        B::table_spans()
    }
}

/// The page table of a [`TestMachine`](super::TestMachine), and what others have in it: it has the methods of
/// [`Inspect`] besides.
pub type TestTable<'m> = Erased<Box<dyn Inspected + 'm>>;

/// The page table of a machine, as it is and as it is seen from outside: see [`Inspect`].
///
/// # Safety
///
/// 1. `table` and `table_mut` are the same page table each time.
pub unsafe trait Inspected {
    fn table(&self) -> &dyn AnyPageTable;
    fn table_mut(&mut self) -> &mut dyn AnyPageTable;

    // Seen from outside: see `Inspect`.
    fn leaf(&self, at: VirtAddr) -> Option<SeenLeaf>;
    fn scan(&self, range: VirtRange, visit: &mut dyn FnMut(SeenEntry));
    fn fingerprint(&self, range: VirtRange) -> Fingerprint;
    fn flushes(&self) -> u64;

    // What others do: see `Inspect`.
    fn map_foreign(&mut self, at: VirtAddr, leaf: Leaf) -> bool;
    fn link_foreign_tables(&self, at: VirtAddr) -> bool;
    fn foreign_tables_are_linked(&self) -> bool;
    fn reserve_entry(&self, at: VirtAddr, order: Order) -> bool;
    fn take_reserved(&self) -> bool;
    fn unmap_foreign(&mut self, at: VirtAddr);
    fn prune(&self);
}

// SAFETY: 1: its duty is the same. 2: `take_table`, which makes them, has asked.
unsafe impl Holds for Box<dyn Inspected + '_> {
    fn table(&self) -> &dyn AnyPageTable {
        (**self).table()
    }

    fn table_mut(&mut self) -> &mut dyn AnyPageTable {
        (**self).table_mut()
    }
}

/// The page table of a machine, and what others have in it.
struct WithOthers<'m, B: Inspect> {
    table: B::Table<'m>,
    foreign: B::Foreign<'m>,
    machine: &'m Machine<B>,
}

// SAFETY: 1: the field of that name.
unsafe impl<B: Inspect> Inspected for WithOthers<'_, B> {
    fn table(&self) -> &dyn AnyPageTable {
        &self.table
    }

    fn table_mut(&mut self) -> &mut dyn AnyPageTable {
        &mut self.table
    }

    fn leaf(&self, at: VirtAddr) -> Option<SeenLeaf> {
        B::leaf(self.machine, &self.table, at)
    }

    fn scan(&self, range: VirtRange, visit: &mut dyn FnMut(SeenEntry)) {
        B::scan(self.machine, &self.table, range, visit);
    }

    fn fingerprint(&self, range: VirtRange) -> Fingerprint {
        B::fingerprint(self.machine, &self.table, range)
    }

    fn flushes(&self) -> u64 {
        B::flushes(self.machine, &self.table)
    }

    fn map_foreign(&mut self, at: VirtAddr, leaf: Leaf) -> bool {
        B::map_foreign(&self.foreign, &mut self.table, at, leaf)
    }

    fn link_foreign_tables(&self, at: VirtAddr) -> bool {
        B::link_foreign_tables(&self.foreign, at)
    }

    fn foreign_tables_are_linked(&self) -> bool {
        B::foreign_tables_are_linked(&self.foreign)
    }

    fn reserve_entry(&self, at: VirtAddr, order: Order) -> bool {
        B::reserve_entry(&self.foreign, at, order)
    }

    fn take_reserved(&self) -> bool {
        B::take_reserved(&self.foreign)
    }

    fn unmap_foreign(&mut self, at: VirtAddr) {
        B::unmap_foreign(&self.foreign, &mut self.table, at);
    }

    fn prune(&self) {
        B::prune(&self.foreign);
    }
}
