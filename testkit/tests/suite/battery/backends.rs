//! A backend that differs in one thing from one on the list, to be put to the same test.

use arch_sim::SimMemory;
use hosted::{Radix, X86_64};
use mm_core::addr::{Pfn, VirtAddr};
use mm_core::model::{MemoryModel, ModelConfig};

/// x86-64 at both ends of what there is: the vmemmap is the last slot of the root table and ends
/// with the address space, and RAM, of which there is none above all that can be described, starts
/// with frame 0.
pub(crate) enum AtTheEnds {}

impl Radix for AtTheEnds {
    const RADIX_NAME: &'static str = "x86_64, at the ends";
    const RADIX_ABOUT: &'static str = X86_64::RADIX_ABOUT;
    const RADIX_MODEL: MemoryModel = match MemoryModel::new(ModelConfig {
        vmemmap_base: VirtAddr::new(0xffff_ff80_0000_0000),
        frames: 1 << 33,
        ..*X86_64::RADIX_MODEL.config()
    }) {
        // In the slot of the root before.
        Ok(model) => match model.with_heads(VirtAddr::new(0xffff_ff00_0000_0000)) {
            Ok(model) => model,
            Err(_) => panic!("packed heads below the vmemmap"),
        },
        Err(_) => panic!("a model at the top of the address space"),
    };
    const RADIX_LAST_FRAME: Pfn = Self::RADIX_MODEL.all_frames().last();
    type Format = <X86_64 as Radix>::Format;
    type Walker = <X86_64 as Radix>::Walker;
    type Processors = <X86_64 as Radix>::Processors;
    type Mmu<'m> = <X86_64 as Radix>::Mmu<'m>;
    type Roots<'m> = <X86_64 as Radix>::Roots<'m>;

    fn walker() -> Self::Walker {
        X86_64::walker()
    }

    fn processors(memory: &SimMemory, root: Pfn, quiesce: bool) -> Self::Processors {
        X86_64::processors(memory, root, quiesce)
    }

    fn mmu(cpus: &Self::Processors) -> Self::Mmu<'_> {
        X86_64::mmu(cpus)
    }

    fn roots(cpus: &Self::Processors) -> Self::Roots<'_> {
        X86_64::roots(cpus)
    }

    fn foreign_leaf(frame: Pfn, huge: bool) -> u64 {
        X86_64::foreign_leaf(frame, huge)
    }

    fn foreign_table(frame: Pfn) -> u64 {
        X86_64::foreign_table(frame)
    }
}
