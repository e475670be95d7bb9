//! An AArch64 whose entries in use become others without a break.

use arch_aarch64::Format4K;
use arch_sim::SimMemory;
use arch_sim::walker::AArch64Walker;
use conformance::Outcome;
use hosted::{AArch64_4K, ArmCpus, Backend, Radix};
use mm_core::addr::{Pfn, VirtRange};
use mm_core::model::MemoryModel;
use mm_core::paging::{FlushScope, Mmu, OneRoot, Replacement};
use testkit::{HostedAltmap, HostedHarness, TestMachine};

/// Hardware that says of itself that it needs no break-before-make.
pub(crate) struct Impatient<'m>(arch_aarch64::Tlb<Format4K, &'m ArmCpus, &'m ArmCpus>);

// SAFETY: 1 and 2: kept by the MMU inside. 3 is broken on purpose.
unsafe impl Mmu<Format4K> for Impatient<'_> {
    fn flush(&self, scope: FlushScope<'_>) {
        self.0.flush(scope);
    }

    fn publish(&self) {
        self.0.publish();
    }

    fn entries_added(&self, range: VirtRange) {
        self.0.entries_added(range);
    }

    fn replacement(&self) -> Replacement {
        Replacement::Direct
    }

    fn quiesce(&self, range: VirtRange, work: &mut dyn FnMut()) {
        self.0.quiesce(range, work);
    }
}

/// [`AArch64_4K`] with that.
enum Unbroken {}

impl Radix for Unbroken {
    const RADIX_NAME: &'static str = "aarch64-4k, impatient";
    const RADIX_MODEL: MemoryModel = AArch64_4K::RADIX_MODEL;
    const RADIX_ABOUT: &'static str = AArch64_4K::RADIX_ABOUT;
    type Format = Format4K;
    type Walker = AArch64Walker;
    type Processors = ArmCpus;
    type Mmu<'m> = Impatient<'m>;
    type Roots<'m> = OneRoot;

    fn walker() -> AArch64Walker {
        AArch64_4K::walker()
    }

    fn processors(memory: &SimMemory, root: Pfn, quiesce: bool) -> ArmCpus {
        AArch64_4K::processors(memory, root, quiesce)
    }

    fn mmu(cpus: &ArmCpus) -> Impatient<'_> {
        Impatient(AArch64_4K::mmu(cpus))
    }

    fn roots(cpus: &ArmCpus) -> OneRoot {
        AArch64_4K::roots(cpus)
    }

    fn foreign_leaf(frame: Pfn, huge: bool) -> u64 {
        AArch64_4K::foreign_leaf(frame, huge)
    }

    fn foreign_table(frame: Pfn) -> u64 {
        AArch64_4K::foreign_table(frame)
    }
}

/// What comes of the check `name` there.
pub(crate) fn outcome(name: &str) -> Option<Outcome> {
    let machine = TestMachine::of::<Unbroken>(&HostedHarness::config(&Unbroken::MODEL)).ok()?;
    let (model, node) = (Unbroken::MODEL, TestMachine::NODES[0]);
    let reserved = HostedHarness::reserved(&model);
    // SAFETY: 1 to 3: the machine has memory there, for this altmap and one vmemmap alone.
    let altmap = unsafe { HostedAltmap::new(&model, machine.memory(), reserved, node) };
    let altmap = altmap.ok()?;
    HostedHarness::new(&machine, &altmap)?.run_one(name)
}
