//! Packed heads: which pages have one, where it is, and which pages of places are mapped for that.
//!
//! A head is there as long as the first frame of its page is online as a stub. It has a place of its own, numbered as
//! in a heap, and a page of places is mapped as long as there is a head in it.

use super::{Contents, Described, Kind, Model, Page, Table};
use crate::script::scale::Scale;
use mm_core::addr::VirtAddr;
use std::collections::BTreeMap;
use std::ops::Range;

/// A head that is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::script) struct Head {
    pub(in crate::script) order: u8,
    pub(in crate::script) described: Described,
}

/// The heads that are packed, and the pages of places that they are in.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// By the first vmemmap page of their pages.
    heads: BTreeMap<u64, Head>,
    /// By number, as if they were pages of the vmemmap: how many heads each has.
    places: BTreeMap<u64, u64>,
}

/// How a page of places is mapped, as far as tables are concerned.
const PLACES: Page = Page {
    frame: 0,
    kind: Kind::Own { huge: false },
    contents: Contents {
        order: 0,
        born: 0,
        node: 0,
        reserved: false,
    },
};

/// Whether pages of `order` have packed heads where that is asked for: they fill a vmemmap page.
pub(in crate::script) fn packs(scale: &Scale, order: u8, packed: bool) -> bool {
    packed && order > 0 && 1 << order >= scale.per_page
}

/// Where the head is of the page of `order` whose first frame is `first`. Before it come those of all larger pages,
/// and of those of its order that are before it.
pub(in crate::script) fn place(scale: &Scale, first: u64, order: u8) -> Option<VirtAddr> {
    let mut room = 1;
    while room < scale.end() {
        room *= 2;
    }
    let number = (room >> order) + (first >> order);
    let base = scale.heads()?;
    base.checked_add(number * scale.descriptor_bytes())
}

impl Model {
    /// The packed head of the page that begins with the vmemmap page `number`.
    pub(in crate::script) fn head_at(&self, number: u64) -> Option<Head> {
        self.heads.heads.get(&number).copied()
    }

    /// The packed heads of pages that begin in `pages`, with the first vmemmap pages of these.
    pub(in crate::script) fn heads_in(
        &self,
        pages: Range<u64>,
    ) -> impl Iterator<Item = (u64, Head)> + '_ {
        let heads = self.heads.heads.range(pages);
        heads.map(|(number, head)| (*number, *head))
    }

    /// The pages of places that are mapped, by number, as if they were pages of the vmemmap.
    pub(in crate::script) fn places(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        self.heads.places.keys().copied()
    }

    /// How many of them there are.
    pub(super) fn places_mapped(&self) -> u64 {
        self.heads.places.len() as u64
    }

    /// Whether some of `pages` are of pages with packed heads.
    pub(super) fn has_packed(&self, pages: &Range<u64>) -> bool {
        let reaches = |(first, head): (&u64, &Head)| {
            first + self.scale.unit(head.order) > pages.start && *first < pages.end
        };
        self.heads.heads.range(..pages.end).any(reaches)
    }

    /// The page `number` was `before`, and is `now`.
    pub(super) fn set_head(&mut self, number: u64, before: Option<Page>, now: Option<Page>) {
        let [had, has] = [before, now].map(|page| {
            let page = page.filter(|page| page.kind == Kind::Stub)?;
            let order = page.contents.order;
            number
                .is_multiple_of(self.scale.unit(order))
                .then_some((order, page.contents.node))
        });
        if had == has {
            return;
        }
        let place_of = |order| {
            let at = place(&self.scale, number * self.scale.per_page, order)?;
            Some(self.scale.page_at(at))
        };
        if let Some(page) = has.and_then(|(order, _)| place_of(order)) {
            let heads = self.heads.places.entry(page).or_default();
            *heads += 1;
            if *heads == 1 {
                self.tables.make(page, true, Table::Ours);
                self.tables.count(page, None, Some(&PLACES));
            }
        }
        if let Some(page) = had.and_then(|(order, _)| place_of(order)) {
            let heads = self.heads.places.entry(page).or_default();
            *heads -= 1;
            if *heads == 0 {
                self.heads.places.remove(&page);
                self.tables.count(page, Some(&PLACES), None);
                self.tables.sweep(&(page..page + 1));
            }
        }
        match has {
            Some((order, node)) => {
                let described = Described {
                    references: 1,
                    node,
                };
                self.heads.heads.insert(number, Head { order, described });
            }
            None => drop(self.heads.heads.remove(&number)),
        }
    }

    /// The packed head of the page that begins with the vmemmap page `number` says this from now on.
    pub(super) fn describe_head(&mut self, number: u64, described: Described) {
        if let Some(head) = self.heads.heads.get_mut(&number) {
            head.described = described;
        }
    }

    /// What the descriptor of `frame` says, in the vmemmap page `number`, which was `before`, if that was memory of its
    /// own.
    pub(super) fn own_before(&self, number: u64, frame: u64, before: &Page) -> Option<Described> {
        match before.kind {
            Kind::Own { .. } => Some(self.described(number, frame, before.contents)),
            Kind::Stub if frame == number * self.scale.per_page => {
                self.head_at(number).map(|head| head.described)
            }
            _ => None,
        }
    }
}
