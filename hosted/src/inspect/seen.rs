//! What a reader of page tables comes to.

use arch_sim::walker::Translation;
use mm_core::addr::{Order, Pfn, VirtAddr, VirtRange};
use mm_core::paging::{EntryFormat, Mapping, Role};

/// A leaf, as a reader comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenLeaf {
    /// The first address that it translates.
    pub at: VirtAddr,
    /// Its size.
    pub order: Order,
    /// The first frame that it points at.
    pub frame: Pfn,
    /// Whether stores are allowed.
    pub writable: bool,
    /// Whether it outlives a switch of address spaces.
    pub global: bool,
    /// Whether instruction fetches are allowed.
    pub executable: bool,
    /// Whether it is this library's.
    pub owned: bool,
    /// Whether it says that other entries point at the frame too.
    pub tail: bool,
}

impl SeenLeaf {
    /// The frame that `at`, an address of the leaf, translates to on pages of 2^`shift` bytes.
    pub fn frame_at(&self, at: VirtAddr, shift: u32) -> Pfn {
        let offset = at.get() - self.at.get();
        self.frame.saturating_add(offset >> shift)
    }

    pub(super) fn of_walk<F: EntryFormat>(translation: &Translation, raw: u64) -> Self {
        Self {
            at: translation.span.start(),
            order: translation.order(F::GRANULE),
            frame: translation.frame,
            writable: translation.writable,
            global: translation.global,
            executable: translation.executable,
            owned: raw & F::OWNED != 0,
            tail: raw & F::TAIL != 0,
        }
    }

    pub(super) fn of_map(mapping: &Mapping) -> Self {
        Self {
            at: mapping.at,
            order: mapping.leaf.block.order(),
            frame: mapping.leaf.block.first(),
            writable: mapping.leaf.writable,
            global: true,
            executable: false,
            owned: mapping.leaf.role != Role::Foreign,
            tail: mapping.leaf.role == Role::Tail,
        }
    }
}

/// A table below the root, as a reader comes to it: once for each link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenTable {
    /// Its frame.
    pub frame: Pfn,
    /// The addresses that it translates here.
    pub span: VirtRange,
    /// Whether its entries are leaves of base pages.
    pub leaf_table: bool,
}

/// What a reader comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenEntry {
    /// A link to a table.
    Table(SeenTable),
    /// A leaf.
    Leaf(SeenLeaf),
}
