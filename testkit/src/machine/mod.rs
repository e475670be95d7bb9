//! A machine with the page table of some backend, chosen at run time.
//!
//! ```text
//!   TestMachine ──▶ AnyMachine ◀── Machine<B>              of any backend
//!   TestTable   ──▶ Inspected  ◀── WithOthers<B>           its page table, and what others map in it
//!       │
//!       └─▶ PageTable: what the library is given
//! ```
//!
//! What tests do with a backend is compiled once, not once for each backend: only the traits below
//! are implemented for each. [`hosted::Machine`] is the machine of one backend, known when it is
//! compiled, as kernels and the explorer have it.

mod cpus;
mod inspected;

pub use cpus::{Ranges, TestCpus};
pub use inspected::{TestTable, WithForeign};

use any_table::Erased;
use arch_sim::walker::Translation;
use arch_sim::{SimFrames, SimMemory, TableWatch, Violations};
use hosted::{BackendFacts, BackendKind, Inspect, Machine, MachineConfig, MachineError};
use inspected::AnyMachine;
use mm_core::addr::{NodeId, Pfn, PfnRange, VirtAddr};
use mm_core::model::MemoryModel;
use std::fmt;

use crate::{OnBackend, WithInspect};

/// See [`hosted::Machine`], of any backend.
pub struct TestMachine {
    facts: BackendFacts,
    machine: Box<dyn AnyMachine>,
}

impl fmt::Debug for TestMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestMachine")
            .field("backend", &self.facts.name)
            .finish_non_exhaustive()
    }
}

impl TestMachine {
    /// See [`hosted::Machine::NODES`].
    pub const NODES: [NodeId; 2] = [NodeId::new(0), NodeId::new(1)];

    /// The machine of `config` with the backend `kind`.
    ///
    /// # Errors
    ///
    /// [`MachineError`].
    pub fn new(kind: BackendKind, config: &MachineConfig) -> Result<Self, MachineError> {
        kind.run_inspect(New(config))
    }

    /// The machine of `config` with a backend that is not on the list.
    ///
    /// # Errors
    ///
    /// [`MachineError`].
    pub fn of<B: Inspect>(config: &MachineConfig) -> Result<Self, MachineError> {
        Ok(Self {
            facts: BackendFacts::of::<B>(),
            machine: Box::new(Machine::<B>::new(config)?),
        })
    }

    /// What is so of its backend.
    pub fn facts(&self) -> &BackendFacts {
        &self.facts
    }

    /// See [`Inspect::table_spans`].
    pub(crate) fn table_spans(&self) -> Vec<u32> {
        self.machine.table_spans()
    }

    /// Where descriptors lie.
    pub fn model(&self) -> MemoryModel {
        self.facts.model
    }

    /// See [`hosted::Machine::memory`].
    pub fn memory(&self) -> &SimMemory {
        self.machine.memory()
    }

    /// See [`hosted::Machine::frames`].
    pub fn frames(&self) -> &SimFrames {
        self.machine.frames()
    }

    /// What `work` does while the allocator refuses everything: it must not be asked for anything, and get
    /// nothing back.
    pub(crate) fn without_allocator<T>(&self, work: impl FnOnce() -> T) -> Result<T, String> {
        let frames = self.frames();
        let asked = || (frames.allocations(), frames.outstanding());
        let before = asked();
        frames.fail_after(0);
        let done = work();
        frames.no_more_faults();
        match asked() {
            after if after == before => Ok(done),
            after => Err(format!("{before:?} of the allocator became {after:?}")),
        }
    }

    /// See [`hosted::Machine::cpus`].
    pub fn cpus(&self) -> &dyn TestCpus {
        self.machine.cpus()
    }

    /// See [`hosted::Machine::root`].
    pub fn root(&self) -> Pfn {
        self.machine.root()
    }

    /// See [`hosted::Machine::table_watch`].
    pub fn table_watch(&self) -> &TableWatch {
        self.machine.table_watch()
    }

    /// See [`hosted::Machine::violations`].
    pub fn violations(&self) -> &Violations {
        self.machine.violations()
    }

    /// The machine's page table; `None` after the first time. What others map in it has tables of
    /// `foreign`, which nobody else uses.
    pub fn take_table(&self, foreign: PfnRange) -> Option<TestTable<'_>> {
        self.machine.take_table(foreign).map(Erased::new)
    }

    /// The same, of which nothing but what others map in it is seen from outside.
    pub(crate) fn take_table_with_foreign(
        &self,
        foreign: PfnRange,
    ) -> Option<Box<dyn WithForeign + '_>> {
        let table = self.machine.take_table(foreign)?;
        Some(table)
    }

    /// See [`hosted::Backend::translate`].
    pub fn translate(&self, at: VirtAddr) -> Option<Translation> {
        self.machine.translate(at)
    }

    /// See [`Inspect::tables_at`].
    pub fn tables_at(&self, at: VirtAddr) -> usize {
        self.machine.tables_at(at)
    }
}

/// Makes a machine.
struct New<'c>(&'c MachineConfig);

impl WithInspect for New<'_> {
    type Output = Result<TestMachine, MachineError>;

    fn with<B: Inspect>(self) -> Self::Output {
        TestMachine::of::<B>(self.0)
    }
}
