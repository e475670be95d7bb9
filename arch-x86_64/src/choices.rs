//! What a kernel chooses, or learns from its CPU, about entries.

use crate::format::LongModeFormat;
use mm_core::paging::Attributes;
use x86_64::structures::paging::PageTableFlags as Flags;

/// What entries are like, as far as it is known at run time only.
///
/// | | default | |
/// |---|---|---|
/// | leaves | global | [`not_global`](Self::not_global): for kernels that hide their half of the address space from user mode (KPTI): by a global leaf it stays readable by what the processor does ahead of the checks |
/// | memory encryption | none | [`encrypted`](Self::encrypted): AMD's C-bit, set in leaves and links |
/// | memory shared with the host | none | [`private`](Self::private): Intel TDX's shared bit, clear in leaves and links |
///
/// ```
/// # use arch_x86_64::{Choices, FourLevel};
/// # use mm_core::addr::Pfn;
/// // C-bit 51, as CPUID says on the machine that this runs on.
/// let choices = Choices::new().not_global().encrypted(51);
/// let attributes = choices.attributes::<FourLevel>().unwrap();
/// // For `FourLevelTable::with_attributes`.
/// assert_eq!(attributes.last_frame().get(), (1 << 39) - 1);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    not_global: bool,
    encryption: Option<u32>,
    shared: Option<u32>,
}

impl Choices {
    /// Global leaves of plain memory.
    pub const fn new() -> Self {
        Self {
            not_global: false,
            encryption: None,
            shared: None,
        }
    }

    /// Leaves are not global: each address space caches them for itself, and a load of CR3 drops
    /// them (SDM, "Global Pages").
    #[must_use]
    pub const fn not_global(self) -> Self {
        Self {
            not_global: true,
            ..self
        }
    }

    /// Descriptors and tables are in encrypted memory: `bit` of entries is the C-bit, set in all of
    /// them. Frames end below it.
    ///
    /// The bit is CPUID Fn8000_001F_EBX\[5:0\] (AMD APM, volume 3, "CPUID"). A link with it says that
    /// the table is encrypted (volume 2, "Secure Memory Encryption"); in an SEV guest the walk takes
    /// tables for encrypted whatever the link says ("SEV Encryption Behavior"). The kernel's direct
    /// map has the bit too: it and the CPUs see the same bytes. Not tried on such a processor.
    #[must_use]
    pub const fn encrypted(self, bit: u32) -> Self {
        Self {
            encryption: Some(bit),
            ..self
        }
    }

    /// Descriptors and tables are private memory of a guest under Intel TDX: `bit` of entries is the
    /// shared bit, the highest of a guest's physical address (47 or 51), and clear in all of them.
    /// Frames end below it. (Intel TDX Module Base Architecture Specification, "Guest Physical Address
    /// (GPA) Space"; not tried on such a processor.)
    #[must_use]
    pub const fn private(self, bit: u32) -> Self {
        Self {
            shared: Some(bit),
            ..self
        }
    }

    /// Whether leaves are global.
    pub const fn are_leaves_global(self) -> bool {
        !self.not_global
    }

    /// The attributes of a page table by these choices. `None` where a bit is no address bit, or
    /// the lowest: 13 to 51 are left.
    pub const fn attributes<F: LongModeFormat>(self) -> Option<Attributes<F>> {
        let mut attributes = Attributes::new();
        if self.not_global {
            // SAFETY: 1: G is set in all leaves of this format, and `decode` does not look at it. 2: it
            // decides only how long a translation is cached. 3: P is set, too.
            attributes = unsafe { attributes.with_leaf_bits(Flags::GLOBAL.bits()) };
        }
        if let Some(bit) = self.shared {
            attributes = match attributes.without_address_bit(bit) {
                Some(attributes) => attributes,
                None => return None,
            };
        }
        if let Some(bit) = self.encryption {
            let Some(excluded) = attributes.without_address_bit(bit) else {
                return None;
            };
            let bits = 1 << bit;
            // SAFETY: 1: an address bit, which is excluded. 2: by the processor's documentation the
            // bit says how memory is accessed; that this one is that bit is in duty 2 of
            // `with_attributes`. 3: P is set, too.
            attributes = unsafe { excluded.with_leaf_bits(bits).with_table_bits(bits) };
        }
        Some(attributes)
    }
}
