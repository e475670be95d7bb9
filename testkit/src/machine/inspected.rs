//! A machine and its page table, whatever the backend: traits without generic methods, which are
//! implemented once for each backend.

use super::TestCpus;
use any_table::{AnyPageTable, Erased, Holds, says_the_same};
use arch_sim::walker::Translation;
use arch_sim::{SimFrames, SimMemory, TableWatch, Violations};
use conformance::Seen;
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

/// A page table, and what others do in it.
///
/// # Safety
///
/// 1. `table` and `table_mut` are the same page table each time.
/// 2. Its constants are those that [`says_the_same`] asks for.
pub unsafe trait WithForeign {
    /// The page table.
    fn table(&self) -> &dyn AnyPageTable;
    /// The page table, to be changed.
    fn table_mut(&mut self) -> &mut dyn AnyPageTable;

    /// See [`Controls::translate`](conformance::Controls::translate).
    fn seen(&self, at: VirtAddr) -> Option<Seen>;
    /// See [`Inspect::flushes`].
    fn flushes(&self) -> u64;

    /// See [`Inspect::map_foreign`].
    fn map_foreign(&mut self, at: VirtAddr, leaf: Leaf) -> bool;
    /// See [`Inspect::link_foreign_tables`].
    fn link_foreign_tables(&self, at: VirtAddr) -> bool;
    /// See [`Inspect::foreign_tables_are_linked`].
    fn foreign_tables_are_linked(&self) -> bool;
    /// See [`Inspect::reserve_entry`].
    fn reserve_entry(&self, at: VirtAddr, order: Order) -> bool;
    /// See [`Inspect::take_reserved`].
    fn take_reserved(&self) -> bool;
    /// See [`Inspect::unmap_foreign`].
    fn unmap_foreign(&mut self, at: VirtAddr);
    /// See [`Inspect::prune`].
    fn prune(&self);
}

/// The page table of a machine, as it is and as it is seen from outside: see [`Inspect`].
pub trait Inspected: WithForeign {
    /// See [`Inspect::leaf`].
    fn leaf(&self, at: VirtAddr) -> Option<SeenLeaf>;
    /// See [`Inspect::scan`].
    fn scan(&self, range: VirtRange, visit: &mut dyn FnMut(SeenEntry));
    /// See [`Inspect::fingerprint`].
    fn fingerprint(&self, range: VirtRange) -> Fingerprint;
}

/// [`Holds`] by the duties of [`WithForeign`].
macro_rules! holds {
    ($($table:ty),*) => {
        $(
            // SAFETY: 1 and 2: those of `WithForeign`.
            unsafe impl Holds for $table {
                fn table(&self) -> &dyn AnyPageTable {
                    (**self).table()
                }

                fn table_mut(&mut self) -> &mut dyn AnyPageTable {
                    (**self).table_mut()
                }
            }
        )*
    };
}

holds!(Box<dyn Inspected + '_>, Box<dyn WithForeign + '_>);

/// The page table of a machine, and what others have in it.
struct WithOthers<'m, B: Inspect> {
    table: B::Table<'m>,
    foreign: B::Foreign<'m>,
    machine: &'m Machine<B>,
}

// SAFETY: 1: the field of that name. 2: `take_table`, which makes them, has asked.
unsafe impl<B: Inspect> WithForeign for WithOthers<'_, B> {
    fn table(&self) -> &dyn AnyPageTable {
        &self.table
    }

    fn table_mut(&mut self) -> &mut dyn AnyPageTable {
        &mut self.table
    }

    fn seen(&self, at: VirtAddr) -> Option<Seen> {
        let leaf = self.leaf(at)?;
        Some(Seen {
            frame: leaf.frame_at(at, B::MODEL.granule().shift()),
            writable: leaf.writable,
            executable: leaf.executable,
        })
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

impl<B: Inspect> Inspected for WithOthers<'_, B> {
    fn leaf(&self, at: VirtAddr) -> Option<SeenLeaf> {
        B::leaf(self.machine, &self.table, at)
    }

    fn scan(&self, range: VirtRange, visit: &mut dyn FnMut(SeenEntry)) {
        B::scan(self.machine, &self.table, range, visit);
    }

    fn fingerprint(&self, range: VirtRange) -> Fingerprint {
        B::fingerprint(self.machine, &self.table, range)
    }
}
