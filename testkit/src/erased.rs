//! Page tables of any type that are owned: see [`conformance::erased`].

use conformance::erased::{AnyPageTable, Erased, Holds, says_the_same};
use mm_core::paging::PageTable;

/// A page table in a box.
pub struct Boxed<'t>(Box<dyn AnyPageTable + 't>);

// SAFETY: 1: the one in the box. 2: `any_table` has asked.
unsafe impl Holds for Boxed<'_> {
    fn table(&self) -> &dyn AnyPageTable {
        &*self.0
    }

    fn table_mut(&mut self) -> &mut dyn AnyPageTable {
        &mut *self.0
    }
}

/// A page table of any type.
pub type AnyTable<'t> = Erased<Boxed<'t>>;

/// Makes one of `table`.
pub fn any_table<'t, T: PageTable + 't>(table: T) -> AnyTable<'t> {
    const { assert!(says_the_same::<T>(), "see `says_the_same`") };
    Erased::new(Boxed(Box::new(table)))
}
