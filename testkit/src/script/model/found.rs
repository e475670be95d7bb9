//! What readers find, what descriptors say, and how many references there are.

use super::{Contents, Kind, Model, Page};
use crate::page_orders::PageOrders;
use std::ops::Range;

/// What a descriptor says besides what page it is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::script) struct Described {
    /// References to the page, but for those that readers hold.
    pub(in crate::script) references: u32,
    pub(in crate::script) node: u8,
}

impl Model {
    /// The pages of memory that there are.
    pub(in crate::script) fn orders(&self) -> PageOrders<impl Fn(u64) -> Option<u8>> {
        PageOrders {
            vmemmap_page: self.scale.per_page.trailing_zeros() as u8,
            table: self.scale.per_table,
            order_at: |page| self.own_page(page).map(|page| page.contents.order),
        }
    }

    /// Brings up to date what readers find, before it is asked for.
    pub(in crate::script) fn refresh(&mut self) {
        if let Some(mut found) = self.found.take() {
            let kind_at = |page| self.own_page(page).map(kind);
            found.refresh(kind_at, |kind| self.scale.unit(order_of(kind)));
            self.found = Some(found);
        }
    }

    /// The order of the page that readers find where `page` describes its frames.
    pub(in crate::script) fn found(&self, page: u64) -> Option<u8> {
        self.found.as_ref()?.order_at(page).map(order_of)
    }

    /// Frames of bits that the online map has.
    pub(in crate::script) fn found_map_frames(&self) -> u64 {
        self.found.as_ref().map_or(0, |found| found.map_frames())
    }

    /// Whether there are readers.
    pub(in crate::script) fn has_readers(&self) -> bool {
        self.found.is_some()
    }

    /// What the descriptor of `frame` says, which is in `page` with these contents.
    pub(in crate::script) fn described(
        &self,
        page: u64,
        frame: u64,
        contents: Contents,
    ) -> Described {
        let index = (frame % self.scale.per_page) as usize;
        let known = self.described.get(&page).and_then(|page| page.get(index));
        known.copied().unwrap_or_else(|| {
            let is_first = frame.is_multiple_of(1 << contents.born);
            Described {
                references: u32::from(is_first && !contents.reserved),
                node: contents.node,
            }
        })
    }

    /// The descriptors in `page` say `described` from now on.
    pub(super) fn describe(&mut self, page: u64, described: Vec<Described>) {
        self.described.insert(page, described.into_boxed_slice());
    }

    /// How many references there are to the page whose first frame is `head`.
    pub(in crate::script) fn references(&self, head: u64) -> u32 {
        let number = head / self.scale.per_page;
        let own = self.own_page(number);
        let own = own.and_then(|page| self.own_before(number, head, &page));
        let own = own.map_or(0, |described| described.references);
        own + self.held.get(&head).copied().unwrap_or(0)
    }

    /// The first frames of the pages in `pages`, whole ones that are online.
    pub(in crate::script) fn heads(&self, pages: &Range<u64>) -> Vec<u64> {
        let per_page = self.scale.per_page;
        let mut heads = Vec::new();
        for (number, page) in self.mapped_in(pages.clone()) {
            if self.head_at(number).is_some() {
                heads.push(number * per_page);
            }
            if !matches!(page.kind, Kind::Own { .. }) {
                continue;
            }
            let of_order = 1 << page.contents.order;
            let frames = number * per_page..(number + 1) * per_page;
            let first = frames.start.next_multiple_of(of_order);
            heads.extend((first..frames.end).step_by(of_order as usize));
        }
        heads
    }

    /// Each page of `pages`, whole ones that are online, has so many references from now on.
    pub(in crate::script) fn set_references(&mut self, pages: &Range<u64>, references: u32) {
        for head in self.heads(pages) {
            self.set_count(head, references);
        }
    }

    /// Tails in `pages` that have memory of their own have no references from now on.
    pub(in crate::script) fn empty_tails(&mut self, pages: &Range<u64>) {
        for (frame, _) in self.counts(pages) {
            let number = frame / self.scale.per_page;
            let page = self.own_page(number);
            if page.is_some_and(|page| frame % (1 << page.contents.order) != 0) {
                self.set_count(frame, 0);
            }
        }
    }

    /// The frames in `pages` whose descriptors have memory of their own, and what each of these counts, but for
    /// references that readers hold.
    pub(in crate::script) fn counts(&self, pages: &Range<u64>) -> Vec<(u64, u32)> {
        let per_page = self.scale.per_page;
        let mut counts = Vec::new();
        for (number, page) in self.mapped_in(pages.clone()) {
            if let Some(head) = self.head_at(number) {
                counts.push((number * per_page, head.described.references));
            }
            if !matches!(page.kind, Kind::Own { .. }) {
                continue;
            }
            let frames = number * per_page..(number + 1) * per_page;
            counts.extend(frames.map(|frame| {
                let described = self.described(number, frame, page.contents);
                (frame, described.references)
            }));
        }
        counts
    }

    /// The descriptor of `frame`, which has memory of its own, counts so many references from now on.
    fn set_count(&mut self, frame: u64, references: u32) {
        let per_page = self.scale.per_page;
        let number = frame / per_page;
        let Some(page) = self.own_page(number) else {
            return;
        };
        if let Some(head) = self.head_at(number) {
            let described = Described {
                references,
                ..head.described
            };
            return self.describe_head(number, described);
        }
        if self.described(number, frame, page.contents).references == references {
            return;
        }
        if !self.described.contains_key(&number) {
            let frames = number * per_page..(number + 1) * per_page;
            let all = frames.map(|frame| self.described(number, frame, page.contents));
            self.describe(number, all.collect());
        }
        let index = (frame % per_page) as usize;
        let known = self
            .described
            .get_mut(&number)
            .and_then(|page| page.get_mut(index));
        if let Some(known) = known {
            known.references = references;
        }
    }
}

/// What says that heads are packed, beside an order.
const PACKED: u8 = 1 << 7;

/// The order of the pages whose descriptors are in `page`, and whether these are stubs. A page of memory whose parts say
/// that its head is in different places is not found.
pub(super) fn kind(page: Page) -> u8 {
    match page.kind {
        Kind::Stub => page.contents.order | PACKED,
        _ => page.contents.order,
    }
}

/// The order that such a kind says.
pub(super) const fn order_of(kind: u8) -> u8 {
    kind & !PACKED
}
