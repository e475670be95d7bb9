//! Leaves of a kernel that chooses.

use crate::machine::{Machine, NODE, Paging, at, vmemmap};
use crate::source::{Plan, Source};
use arch_aarch64::{Choices, Format4K, Format16K, Format64K, Stage1};
use arch_sim::walker::Walker;
use mm_core::paging::{NoRecords, PageTable};

fn leaves_are_global_unless_the_kernel_chooses_otherwise<const PAGE_SHIFT: u32>()
where
    Stage1<PAGE_SHIFT>: Paging,
{
    for (choices, global) in [(Choices::new(), true), (Choices::new().not_global(), false)] {
        let machine = Machine::<Stage1<PAGE_SHIFT>>::new();
        // SAFETY: 1: the one value for the tree. 2: memory is not encrypted.
        let mut table = unsafe { machine.table().with_attributes(choices.attributes()) };
        let range = vmemmap::<Stage1<PAGE_SHIFT>>(0, 9);
        let mut source = Source::<Stage1<PAGE_SHIFT>>::new(&machine.frames, Plan::Distinct);
        // SAFETY: 1: the source's frames. 2: nobody uses the addresses.
        unsafe { table.map_runs(range, NODE, &mut source, &NoRecords) }.unwrap();
        for page in [0, 8] {
            let at = at::<Stage1<PAGE_SHIFT>>(page);
            // nG, bit 11.
            let entry = machine.read_entry(at, 1);
            assert_eq!(entry >> 11 & 1 == 0, global, "{entry:#x}");
            let walker = Stage1::<PAGE_SHIFT>::walker();
            let read = walker.translate(&machine.memory, machine.root, at).unwrap();
            assert_eq!(read.global, global);
            let found = table.lookup(at).mapping().unwrap();
            assert_eq!(found.leaf, source.mapped[&at]);
        }
    }
}

#[test]
fn leaves_are_global_unless_the_kernel_chooses_otherwise_on_every_granule() {
    fn shift<const PAGE_SHIFT: u32>(_: Option<Stage1<PAGE_SHIFT>>)
    where
        Stage1<PAGE_SHIFT>: Paging,
    {
        leaves_are_global_unless_the_kernel_chooses_otherwise::<PAGE_SHIFT>();
    }
    shift(None::<Format4K>);
    shift(None::<Format16K>);
    shift(None::<Format64K>);
}
