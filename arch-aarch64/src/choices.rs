//! What a kernel chooses about descriptors.

use crate::format::Stage1;
use aarch64_paging::descriptor::El1Attributes;
use mm_core::paging::Attributes;

/// What descriptors are like, as far as a kernel chooses it at run time.
///
/// | | default | |
/// |---|---|---|
/// | leaves | global (nG = 0) | [`not_global`](Self::not_global) (nG = 1): for kernels that hide their half of the address space from user mode (kernel page-table isolation), whose TTBR1 names other tables then |
///
/// ```
/// # use arch_aarch64::{Choices, Format4K};
/// # use mm_core::paging::Attributes;
/// // For `Table4K::with_attributes`.
/// let attributes: Attributes<Format4K> = Choices::new().not_global().attributes();
/// ```
///
/// In a Realm (Arm CCA) the highest bit of an intermediate physical address says *shared*. A kernel there
/// keeps descriptors and tables in its own half, and adds `Attributes::without_address_bit` to refuse the
/// other one. (Realm Management Monitor Specification, "Realm IPA space"; not tried.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    not_global: bool,
}

impl Choices {
    /// Global leaves.
    pub const fn new() -> Self {
        Self { not_global: false }
    }

    /// Leaves belong to the ASID that is in use when they are cached (Arm ARM, "Global and
    /// process-specific translation table entries"). What [`Tlb`](crate::Tlb) executes reaches every
    /// ASID.
    #[must_use]
    pub const fn not_global(self) -> Self {
        Self { not_global: true }
    }

    /// The attributes of a page table by these choices.
    pub const fn attributes<const PAGE_SHIFT: u32>(self) -> Attributes<Stage1<PAGE_SHIFT>> {
        let attributes = Attributes::new();
        if !self.not_global {
            return attributes;
        }
        // SAFETY: 1: nG is clear in all leaves of this format, and `decode` does not look at it. 2: it
        // decides only for which ASIDs a translation is cached. 3: V is set, too.
        unsafe { attributes.with_leaf_bits(El1Attributes::NON_GLOBAL.bits() as u64) }
    }
}
