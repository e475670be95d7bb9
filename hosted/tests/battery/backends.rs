//! Backends that differ in one thing from those of the crate, to be put to the same test.

use arch_aarch64::{Format4K, NoQuiesce, Tlb};
use arch_sim::SimMemory;
use arch_sim::walker::AArch64Walker;
use hosted::layout::last_frame;
use hosted::{AArch64_4K, ArmCpus, Radix, X86_64};
use mm_core::addr::{Pfn, VirtAddr};
use mm_core::model::{MemoryModel, ModelConfig};

/// AArch64 of a kernel that has no way to keep CPUs from addresses: entries in use stay.
pub(crate) enum Unquiesced {}

impl Radix for Unquiesced {
    const RADIX_NAME: &'static str = "aarch64-4k, never quiesced";
    const RADIX_MODEL: MemoryModel = AArch64_4K::RADIX_MODEL;
    type Format = Format4K;
    type Walker = AArch64Walker;
    type Processors = ArmCpus;
    type Mmu<'m> = Tlb<Format4K, &'m ArmCpus, NoQuiesce>;

    fn walker() -> AArch64Walker {
        AArch64_4K::walker()
    }

    fn processors(memory: &SimMemory, root: Pfn) -> ArmCpus {
        AArch64_4K::processors(memory, root)
    }

    fn mmu(cpus: &ArmCpus) -> Self::Mmu<'_> {
        Tlb::new(cpus)
    }

    fn foreign_leaf(frame: Pfn, huge: bool) -> u64 {
        AArch64_4K::foreign_leaf(frame, huge)
    }

    fn foreign_table(frame: Pfn) -> u64 {
        AArch64_4K::foreign_table(frame)
    }
}

/// x86-64 at both ends of what there is: the vmemmap is the last slot of the root table and ends
/// with the address space, and RAM, of which there is none above all that can be described, starts
/// with frame 0.
pub(crate) enum AtTheEnds {}

impl Radix for AtTheEnds {
    const RADIX_NAME: &'static str = "x86_64, at the ends";
    const RADIX_MODEL: MemoryModel = match MemoryModel::new(ModelConfig {
        vmemmap_base: VirtAddr::new(0xffff_ff80_0000_0000),
        frames: 1 << 33,
        ..*X86_64::RADIX_MODEL.config()
    }) {
        Ok(model) => model,
        Err(_) => panic!("a model at the top of the address space"),
    };
    const RADIX_LAST_FRAME: Pfn = last_frame(45, Self::RADIX_MODEL.granule());
    type Format = <X86_64 as Radix>::Format;
    type Walker = <X86_64 as Radix>::Walker;
    type Processors = <X86_64 as Radix>::Processors;
    type Mmu<'m> = <X86_64 as Radix>::Mmu<'m>;

    fn walker() -> Self::Walker {
        X86_64::walker()
    }

    fn processors(memory: &SimMemory, root: Pfn) -> Self::Processors {
        X86_64::processors(memory, root)
    }

    fn mmu(cpus: &Self::Processors) -> Self::Mmu<'_> {
        X86_64::mmu(cpus)
    }

    fn foreign_leaf(frame: Pfn, huge: bool) -> u64 {
        X86_64::foreign_leaf(frame, huge)
    }

    fn foreign_table(frame: Pfn) -> u64 {
        X86_64::foreign_table(frame)
    }
}
