//! Packed heads: where they are, and what they cost. By halves of what the model has room for, as in a heap.

use super::{Cell, Key, Model, Policy};
use mm_core::addr::VirtAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The pages of places that have heads, by number, and how many each has.
#[derive(Debug, Default)]
pub(super) struct Heads(BTreeMap<u64, u64>);

impl Heads {
    pub(super) fn frames(&self) -> u64 {
        self.0.len() as u64
    }
}

impl Model {
    /// Whether the heads of a policy's pages are packed.
    pub(in crate::churn) fn packs(&self, policy: &Policy) -> bool {
        let page = self.layout.model.vmemmap_page_order().get();
        policy.packed && policy.order > 0 && policy.order >= page
    }

    /// The order of the page of which the head is packed whose first frame `page` describes, if `cell` is there.
    fn packed_order(&self, page: u64, cell: Cell) -> Option<u8> {
        match cell {
            Cell::Tail {
                order,
                key: Key::Stubs(..),
            } => page.is_multiple_of(self.pages_of(order)).then_some(order),
            _ => None,
        }
    }

    /// Where the head is of the page that begins at `page`, if it is packed.
    pub(in crate::churn) fn place_at(&self, page: u64) -> Option<VirtAddr> {
        let order = self.packed_order(page, self.cell(page))?;
        self.place(page, order)
    }

    fn place(&self, page: u64, order: u8) -> Option<VirtAddr> {
        let model = &self.layout.model;
        let (frame, all) = (
            self.layout.frame_of(page).get(),
            model.all_frames().frames(),
        );
        let (mut size, mut start, mut index) = (1, 0, 1);
        while size < all {
            size *= 2;
        }
        while size > 1 << order {
            size /= 2;
            index *= 2;
            if frame >= start + size {
                (index, start) = (index + 1, start + size);
            }
        }
        let base = model.heads()?.start();
        base.checked_add(index * model.descriptor_bytes())
    }

    /// `page` was `before`, and is `now`.
    pub(super) fn set_head(&mut self, page: u64, before: Cell, now: Cell) {
        let shift = self.layout.model.granule().shift();
        let [had, has] = [before, now].map(|cell| {
            let order = self.packed_order(page, cell)?;
            Some(self.place(page, order)?.get() >> shift)
        });
        if had == has {
            return;
        }
        if let Some(count) = had.and_then(|had| self.heads.0.get_mut(&had)) {
            *count -= 1;
        }
        self.heads.0.retain(|_, count| *count > 0);
        if let Some(has) = has {
            *self.heads.0.entry(has).or_default() += 1;
        }
        self.mapped = self.mapped + self.heads.frames() - self.mapped_heads;
        self.mapped_heads = self.heads.frames();
    }

    /// How many tables heads take beside those of the vmemmap, of which there are some if `is_mapped`.
    pub(super) fn tables_of_heads(&self, is_mapped: bool) -> u64 {
        let bits = self
            .layout
            .model
            .granule()
            .entries_per_table()
            .trailing_zeros();
        let shift = self.layout.model.granule().shift();
        let vmemmap = self.layout.address(0).get() >> shift;
        // Leaf tables, and those of each level between them and the root.
        let levels = 1..=self.layout.upper_levels as u32 + 1;
        let tables = levels.map(|level| {
            let of_pages = self.heads.0.keys().map(|page| page >> (level * bits));
            let mut all: BTreeSet<u64> = of_pages.collect();
            if is_mapped {
                all.remove(&(vmemmap >> (level * bits)));
            }
            all.len() as u64
        });
        tables.sum()
    }

    /// Whether some of `pages` are of pages with packed heads that are online.
    pub(super) fn has_packed(&self, pages: &Range<u64>) -> bool {
        let mut orders: Vec<u8> = self.tails.keys().filter_map(stubs_of).collect();
        orders.sort_unstable();
        orders.dedup();
        orders.into_iter().any(|order| {
            let unit = self.pages_of(order);
            let first = pages.start - pages.start % unit;
            let mut heads = (first..pages.end).step_by(unit as usize);
            heads.any(|page| self.packed_order(page, self.cell(page)) == Some(order))
        })
    }

    /// Whether the first frame that `page` describes is that of a page, or is a tail with memory of its own: what the
    /// kernel has written there is its head's, or its own.
    pub(super) fn is_first(&self, page: u64, cell: Cell) -> Option<bool> {
        match cell {
            Cell::Own { order, .. } => Some(page.is_multiple_of(self.pages_of(order))),
            _ => self.packed_order(page, cell).map(|_| true),
        }
    }
}

/// What says that heads are packed, beside an order.
const PACKED: u8 = 1 << 7;

/// The order of the pages whose descriptors are there, if they are ours, and whether they are stubs.
pub(super) fn kind(cell: Cell) -> Option<u8> {
    match cell {
        Cell::Tail {
            order,
            key: Key::Stubs(..),
        } => Some(order | PACKED),
        cell => cell.order(),
    }
}

/// The order that such a kind says.
pub(super) const fn order_of(kind: u8) -> u8 {
    kind & !PACKED
}

/// Whether it is a frame of stubs.
pub(super) fn is_of_stubs(key: &Key) -> bool {
    stubs_of(key).is_some()
}

/// The order whose stubs a tail frame has.
fn stubs_of(key: &Key) -> Option<u8> {
    match key {
        Key::Stubs(order, _) => Some(*order),
        Key::Order(..) | Key::Compound(..) => None,
    }
}
