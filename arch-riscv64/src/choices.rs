//! What a kernel chooses about entries.

use crate::flags::PteFlags;
use crate::format::SvFormat;
use mm_core::paging::Attributes;

/// What entries are like, as far as a kernel chooses it at run time.
///
/// | | default | |
/// |---|---|---|
/// | leaves | global (G = 1) | [`not_global`](Self::not_global) (G = 0): for kernels that hide their half of the address space from user mode, whose satp names other tables then |
///
/// ```
/// # use arch_riscv64::{Choices, Sv48};
/// # use mm_core::paging::Attributes;
/// // For `Sv48Table::with_attributes`.
/// let attributes: Attributes<Sv48> = Choices::new().not_global().attributes();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    not_global: bool,
}

impl Choices {
    /// Global leaves.
    pub const fn new() -> Self {
        Self { not_global: false }
    }

    /// Leaves belong to the address space that they are cached in (privileged manual, 4.3.1). What [`Tlb`](crate::Tlb)
    /// executes reaches every address space.
    #[must_use]
    pub const fn not_global(self) -> Self {
        Self { not_global: true }
    }

    /// The attributes of a page table by these choices.
    pub const fn attributes<F: SvFormat>(self) -> Attributes<F> {
        let attributes = Attributes::new();
        if !self.not_global {
            return attributes;
        }
        // SAFETY: 1: G is set in all leaves of this format, and `decode` does not look at it. 2: it decides only for which address
        // spaces a translation is cached. 3: V is set, too.
        unsafe { attributes.with_leaf_bits(PteFlags::GLOBAL.bits()) }
    }
}
