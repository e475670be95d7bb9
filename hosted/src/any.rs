//! A machine of any backend, chosen at run time.
//!
//! The library is generic over page tables. What works on a [`Machine`] is compiled for each backend, with all
//! of the library that it calls; what works on an [`AnyMachine`], once.

use crate::{
    Backend, BackendFacts, BackendKind, Machine, MachineConfig, MachineError, WithBackend,
};
use any_table::{AnyPageTable, Erased, Holds, says_the_same};
use arch_sim::{SimFrames, SimMemory, Violations};
use mm_core::paging::PageTable;
use mm_core::vmemmap::TreeDescription;

/// See [`Machine`], of any backend.
pub trait AnyMachine {
    /// What its backend says of itself.
    fn facts(&self) -> BackendFacts;
    /// See [`Machine::memory`].
    fn memory(&self) -> &SimMemory;
    /// See [`Machine::frames`].
    fn frames(&self) -> &SimFrames;
    /// See [`Machine::violations`].
    fn violations(&self) -> &Violations;
    /// See [`Machine::take_table`].
    fn take_table(&self) -> Option<AnyTable<'_>>;
    /// See [`Backend::tree`].
    fn tree(&self) -> Option<TreeDescription>;
}

impl<B: Backend> AnyMachine for Machine<B> {
    fn facts(&self) -> BackendFacts {
        BackendFacts::of::<B>()
    }

    fn memory(&self) -> &SimMemory {
        self.memory()
    }

    fn frames(&self) -> &SimFrames {
        self.frames()
    }

    fn violations(&self) -> &Violations {
        self.violations()
    }

    fn take_table(&self) -> Option<AnyTable<'_>> {
        self.take_table().map(any_table)
    }

    fn tree(&self) -> Option<TreeDescription> {
        B::tree(self)
    }
}

impl BackendKind {
    /// A machine of `config` with this backend.
    ///
    /// # Errors
    ///
    /// [`MachineError`].
    pub fn machine(self, config: &MachineConfig) -> Result<Box<dyn AnyMachine>, MachineError> {
        self.run(New(config))
    }
}

/// Makes a machine.
struct New<'c>(&'c MachineConfig);

impl WithBackend for New<'_> {
    type Output = Result<Box<dyn AnyMachine>, MachineError>;

    fn with<B: Backend>(self) -> Self::Output {
        Ok(Box::new(Machine::<B>::new(self.0)?))
    }
}

/// A page table of any type.
pub type AnyTable<'t> = Erased<Boxed<'t>>;

/// Makes one of `table`.
pub fn any_table<'t, T: PageTable + 't>(table: T) -> AnyTable<'t> {
    const { assert!(says_the_same::<T>(), "see `says_the_same`") };
    Erased::new(Boxed(Box::new(table)))
}

/// A page table in a box: see [`AnyTable`].
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
