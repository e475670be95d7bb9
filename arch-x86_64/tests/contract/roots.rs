//! Roots with copies: what is unmapped below the engine's root is unmapped below all of them before
//! anything is freed.

use crate::machine::Paging;
use crate::machine::{Machine, NODE, Plan, Source, at, for_both_formats, vmemmap};
use arch_sim::SimTlb;
use arch_sim::walker::Walker;
use arch_x86_64::Tlb;
use mm_core::addr::{Granule, Order, Pfn, PhysAddr, VirtAddr};
use mm_core::frame::FrameAllocator;
use mm_core::paging::{NoRecords, PageTable, RadixTable, Roots, Run};

/// An address space whose root copies the machine's.
struct Copy<'m, F> {
    machine: &'m Machine<F>,
    root: Pfn,
}

impl<F: Paging> Copy<'_, F> {
    /// The entry of `root` for `at`.
    fn slot(root: Pfn, at: VirtAddr) -> PhysAddr {
        let index = at.get() >> F::LEVELS[0].shift & 511;
        PhysAddr::new(root.base(Granule::Size4K).get() + 8 * index)
    }
}

// SAFETY: 1 and 2: the one copy follows. 3: there is one thread.
unsafe impl<F: Paging> Roots for Copy<'_, F> {
    unsafe fn entry_installed(&self, at: VirtAddr) {
        let memory = &self.machine.memory;
        let entry = memory.read_u64(Self::slot(self.machine.root, at)).unwrap();
        memory.write_u64(Self::slot(self.root, at), entry).unwrap();
    }

    unsafe fn entry_removed(&self, at: VirtAddr) {
        let memory = &self.machine.memory;
        memory.write_u64(Self::slot(self.root, at), 0).unwrap();
    }
}

for_both_formats! {
    fn a_copy_of_the_root_translates_alike_and_never_leads_to_a_freed_table<F>() {
        let machine = Machine::<F>::new();
        let root = machine.frames.allocate(Order::BASE, NODE).unwrap().first();
        for word in 0..512 {
            let at = PhysAddr::new(root.base(Granule::Size4K).get() + 8 * word);
            machine.memory.write_u64(at, 0).unwrap();
        }
        // A CPU on the other root, which reads ahead at all times and knows what is freed.
        let cpu = SimTlb::new(F::WALKER, &machine.memory, root);
        cpu.watch(&machine.frames);
        let copy = Copy { machine: &machine, root };
        let mmu = Tlb::new(&machine.cpus, &machine.cpus);
        // SAFETY: 1 to 4: as for `Machine::table`; the CPU on the other root is made to forget here.
        // 5: `copy` is the only other root.
        let mut table = unsafe {
            RadixTable::<F, _, _, _, _>::new(machine.root, &copy, &machine.frames, &machine.memory, mmu)
        };
        let range = vmemmap::<F>(0, 600);
        let mut source = Source::new(&machine.frames, Plan::Distinct);
        // SAFETY: 1: the source's frames. 2: nobody uses the addresses.
        unsafe { table.map_runs(range, NODE, &mut source, &NoRecords) }.unwrap();
        for page in [0, 599] {
            let translate = |root| F::WALKER.translate(&machine.memory, root, at::<F>(page)).unwrap();
            assert_eq!(translate(root), translate(machine.root));
        }
        let mut runs = Vec::new();
        // SAFETY: 1: nobody uses the addresses. 2: mapped above.
        unsafe { table.unmap([range].into_iter(), &mut |run: Run| {
            // By now the other root leads nowhere, so nothing that is freed can be cached again.
            cpu.fill(range);
            runs.push(run);
        }, &NoRecords) };
        assert_eq!((cpu.cached_leaves(), cpu.cached_tables()), (0, 0));
        assert_eq!(machine.memory.read_u64(Copy::<F>::slot(root, at::<F>(0))).unwrap(), 0);
        machine.assert_no_violations();
    }
}
