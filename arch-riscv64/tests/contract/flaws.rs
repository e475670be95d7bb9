//! An MMU that does less than it has to is found.

use crate::machine::{Harts, Machine, Plan, vmemmap};
use arch_riscv64::{Sv48, SvFormat, Tlb};
use arch_sim::{Fault, Violation};
use mm_core::addr::VirtRange;
use mm_core::paging::{FlushScope, Mmu};

/// What is left out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// Addresses only are fenced, where a table was detached too.
    LeavesOnly,
    /// Nothing is done when entries were added.
    NothingAdded,
}

struct Flawed<'m>(Tlb<&'m Harts, &'m Harts>, Flaw);

// SAFETY: 1: not kept, which is what is tested. 2 and 3: as for the one inside.
unsafe impl<F: SvFormat> Mmu<F> for Flawed<'_> {
    fn flush(&self, scope: FlushScope<'_>) {
        let inner: &dyn Mmu<F> = &self.0;
        match (self.1, scope.ranges()) {
            (Flaw::LeavesOnly, Some(ranges)) => inner.flush(FlushScope::Leaves(ranges)),
            _ => inner.flush(scope),
        }
    }

    fn publish(&self) {
        <Tlb<_, _> as Mmu<F>>::publish(&self.0);
    }

    fn entries_added(&self, range: VirtRange) {
        if self.1 != Flaw::NothingAdded {
            <Tlb<_, _> as Mmu<F>>::entries_added(&self.0, range);
        }
    }
}

fn flawed(machine: &Machine<Sv48>, flaw: Flaw) -> Flawed<'_> {
    Flawed(Tlb::new(&machine.harts, &machine.harts), flaw)
}

#[test]
fn a_detached_table_that_only_leaves_were_fenced_for_is_freed_while_it_is_cached() {
    let machine = Machine::<Sv48>::new();
    let range = vmemmap::<Sv48>(0, 8);
    machine.map(range, Plan::Distinct);
    machine.harts.speculate(range);
    machine.unmap_with(
        &mut machine.table_with(flawed(&machine, Flaw::LeavesOnly)),
        range,
    );
    let found = machine.memory.violations().take();
    assert!(
        found
            .iter()
            .any(|found| matches!(found, Violation::FreedWhileCached { .. })),
        "{found:?}"
    );
}

#[test]
fn an_entry_that_was_added_without_a_fence_is_not_seen() {
    let machine = Machine::<Sv48>::new();
    let range = vmemmap::<Sv48>(0, 8);
    machine.harts.speculate(range);
    let mut table = machine.table_with(flawed(&machine, Flaw::NothingAdded));
    machine.map_with(&mut table, range, Plan::Distinct).unwrap();
    let [_, other] = machine.harts.all() else {
        panic!("two harts")
    };
    assert!(other.access(range.start()).is_err());
    let found = machine.memory.violations().take();
    assert!(
        matches!(
            found[..],
            [Violation::StaleTranslation {
                cached: None,
                live: Some(_),
                ..
            }]
        ),
        "{found:?}"
    );
}

/// What [`Tlb::with_retried_faults`] asks of a kernel: a fence in the handler, and the access once more.
#[test]
fn a_fault_that_is_tried_again_after_a_fence_is_none() {
    let machine = Machine::<Sv48>::new();
    let range = vmemmap::<Sv48>(0, 8);
    machine.harts.speculate(range);
    let tlb = Tlb::new(&machine.harts, &machine.harts).with_retried_faults();
    let given = machine
        .map_with(&mut machine.table_with(tlb), range, Plan::Distinct)
        .unwrap();
    assert_eq!(machine.harts.take_remote_fences(), 0);
    let [this, other] = machine.harts.all() else {
        panic!("two harts")
    };
    let frame = given[&range.start()].block.first();
    assert!(this.access(range.start()).is_ok());
    let fault = other.access(range.start()).unwrap_err();
    assert!(matches!(fault, Fault::NotMapped { .. }));
    // The simulation writes the fault down, since it does not know the handler.
    assert_eq!(machine.memory.violations().take().len(), 1);
    other.flush_all();
    let at = other.access(range.start()).unwrap();
    assert_eq!(at.get(), frame.get() << 12);
    machine.unmap(range);
    machine.assert_clean();
}
