//! A page table with other pages than the model's: refused before anything is taken. Each of its leaves
//! would map more than the frame that was allocated for it, or less.

use arch_sim::{SimFrames, SimMemory, SimMmu, SimTlb};
use hosted::{AArch64_4K, AArch64_16K, AArch64_64K, Radix};
use mm_core::addr::{NodeId, Pfn, PfnRange};
use mm_core::descriptor::Page;
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::paging::{PageTable, RadixTable};
use mm_core::vmemmap::{OnlineError, Vmemmap};

fn frames(start: u64, count: u64) -> PfnRange {
    PfnRange::new(Pfn::new(start).unwrap(), count).unwrap()
}

/// Tables of `R` refuse memory of `model`, which has other pages.
fn assert_refused<R: Radix>(model: MemoryModel) {
    let granule = R::RADIX_MODEL.granule();
    let memory = SimMemory::new(granule, &[frames(0, 1 << 10)]).unwrap();
    let ram = frames(1, 1 << 9);
    let ram = SimFrames::new(&memory, &[(NodeId::new(0), &[ram])]).unwrap();
    let root = Pfn::ZERO;
    let mmu = SimMmu::new(vec![SimTlb::new(R::walker(), &memory, root)]);
    // SAFETY: 1: the root is zero. 2: the memory has all frames. 3: one at a time. 4: the one CPU. 5:
    // there is one root. 6: there is one allocator.
    let mut table =
        unsafe { RadixTable::<R::Format, _, _, _, _>::new(root, &mmu, &ram, &memory, &mmu) };
    // SAFETY: 1 to 4: one memory, one table, one vmemmap; that its pages are others is what is tried.
    let vmemmap = unsafe { Vmemmap::<Page, _, _>::new(model, &ram, &memory) };
    let mut vmemmap = vmemmap.unwrap();
    let section = frames(1 << 20, model.section().frames());
    let pagemap = DevPagemap::of_range(&model, section, Geometry::BASE_PAGES).unwrap();
    let refused = OnlineError::OtherGranule {
        table: granule,
        model: model.granule(),
    };
    assert_eq!(table.granule(), granule);
    assert_eq!(vmemmap.online(&mut table, &pagemap).unwrap_err(), refused);
    let piece = frames(1 << 20, model.subsection().frames());
    assert_eq!(
        vmemmap.populate(&mut table, &pagemap, piece).unwrap_err(),
        refused
    );
    assert_eq!(ram.outstanding(), 0);
    let bytes = memory.page_bytes(root).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn a_page_table_with_other_pages_than_the_model_is_refused_and_nothing_is_taken() {
    assert_refused::<AArch64_64K>(AArch64_4K::RADIX_MODEL);
    assert_refused::<AArch64_16K>(AArch64_4K::RADIX_MODEL);
    assert_refused::<AArch64_4K>(AArch64_16K::RADIX_MODEL);
    assert_refused::<AArch64_4K>(AArch64_64K::RADIX_MODEL);
}
