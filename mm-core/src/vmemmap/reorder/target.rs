//! What the pages of a part of memory are to be, and what each vmemmap page is to be mapped to.
//!
//! ```text
//!   pages now     |                        1 GiB                         |
//!   the part                 [  2 MiB  ]
//!   pages then    |2M|2M|4M|8M ... the largest aligned pages that fit ... |
//! ```
//!
//! Everything here is arithmetic.

use crate::addr::{Order, Pfn, PfnRange, VirtAddr, VirtRange};
use crate::model::MemoryModel;
use crate::pagemap::{DevPagemap, Heads, Tables, Tails};

/// How many orders can share their tails: those of pages that fill 2 to 2^32 vmemmap pages. Larger ones
/// share them per compound page.
pub(super) const ORDERS: usize = 32;

/// What consecutive vmemmap pages are to be mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A frame of its own for each.
    Own,
    /// The tail frame of this compound page. Where heads are packed it has stubs, and this is the first one of
    /// many pages that may follow.
    Tail {
        page: PfnRange,
        order: Order,
        tails: Tails,
        heads: Heads,
    },
}

/// Consecutive vmemmap pages that are to be mapped alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) kind: Kind,
    /// How many; at least 1.
    pub(super) pages: u64,
}

/// The pages that memory is to become.
#[derive(Clone, Copy)]
pub(in crate::vmemmap) struct Target<'p> {
    pagemap: &'p DevPagemap<'p>,
    /// What becomes pages of the order.
    part: PfnRange,
    order: Order,
    /// How tails of the part are shared.
    tails: Tails,
    /// The pages that the first and the last frame of the part are in now. What of them is not in the
    /// part becomes pages as large as fit.
    ends: [PfnRange; 2],
    shares_tables: bool,
    /// Whether heads are packed where that can be, and where those of the part are.
    packs: bool,
    heads: Heads,
}

impl<'p> Target<'p> {
    /// `part` becomes pages of the pagemap's order, to multiples of which it is aligned. `ends` are the
    /// pages, aligned to their size, that its first and last frame are in now.
    pub(in crate::vmemmap) fn new(
        pagemap: &'p DevPagemap<'p>,
        part: PfnRange,
        ends: [PfnRange; 2],
        can_share_tables: bool,
    ) -> Self {
        let order = pagemap.geometry().order();
        Self {
            pagemap,
            part,
            order,
            tails: tails_of(pagemap, order),
            ends,
            shares_tables: can_share_tables && pagemap.tables() == Tables::Shared,
            packs: false,
            heads: Heads::InPlace,
        }
    }

    /// The same, with packed heads where the pagemap asks for them and a page can have one.
    pub(in crate::vmemmap) fn with_packed_heads(self) -> Self {
        let packs = self.pagemap.packs_heads() && self.model().heads().is_some();
        let packing = Self { packs, ..self };
        let heads = packing.heads_of(self.order);
        Self { heads, ..packing }
    }

    /// Where the heads of pages of `order` are to be.
    pub(in crate::vmemmap) fn heads_of(&self, order: Order) -> Heads {
        match self.packs && self.slot(order) < ORDERS && self.model().can_pack_heads(order) {
            true => Heads::Packed,
            false => Heads::InPlace,
        }
    }

    /// How tails of pages of `order` are to be shared, and where their heads are to be.
    fn policies_of(&self, order: Order) -> (Tails, Heads) {
        match self.heads_of(order) {
            Heads::Packed => (Tails::PerOrder, Heads::Packed),
            Heads::InPlace => (tails_of(self.pagemap, order), Heads::InPlace),
        }
    }

    /// The first of `rest`, whole pages, that are to have packed heads: pages of one order. Takes these, and what is
    /// before them, out of it.
    #[inline(never)]
    pub(in crate::vmemmap) fn next_packed(
        &self,
        rest: &mut Option<PfnRange>,
    ) -> Option<(PfnRange, Order)> {
        while let Some(frames) = rest.filter(|_| self.packs) {
            let (page, order) = self.page_of(frames.start());
            let run = match self.part.contains(frames.start()) {
                true => self.part.intersection(frames),
                false => page.intersection(frames),
            };
            let run = run.unwrap_or(frames);
            *rest = frames.split_at(run.frames()).1;
            if self.heads_of(order) == Heads::Packed {
                return Some((run, order));
            }
        }
        None
    }

    pub(super) const fn model(&self) -> &MemoryModel {
        self.pagemap.model()
    }

    /// All that changes: the part, and the rest of the pages at its ends.
    pub(super) fn whole(&self) -> PfnRange {
        let [first, last] = self.ends;
        let start = self.part.start().min(first.start());
        let end = self.part.last().max(last.last());
        PfnRange::new(start, end.get() - start.get() + 1).unwrap_or(self.part)
    }

    /// The place of the tails of `order`, or of its stubs, in a list of [`ORDERS`]; none in it for an order whose
    /// tails are not shared.
    pub(super) fn slot(&self, order: Order) -> usize {
        slot(self.model(), order, self.packs)
    }

    /// The order with the place `slot`, and where its heads are.
    pub(super) fn order_of(&self, slot: usize) -> Option<(Order, Heads)> {
        let page = self.model().vmemmap_page_order().get();
        let larger = u8::try_from(slot)
            .ok()?
            .checked_add(u8::from(!self.packs))?;
        let order = Order::new(page.checked_add(larger)?)?;
        Some((order, self.heads_of(order)))
    }

    /// The last compound page of `unit` that ends at `last` or before, and whose tails are shared per
    /// compound page.
    pub(super) fn compound_page_before(&self, unit: PfnRange, last: Pfn) -> Option<PfnRange> {
        let mut last = Some(last);
        loop {
            let frame = last.filter(|last| unit.contains(*last))?;
            let (page, order) = self.page_of(frame);
            let is_compound = page.frames() > self.model().descriptors_per_page();
            let (tails, _) = self.policies_of(order);
            if is_compound && tails != Tails::None && tails != Tails::PerOrder {
                return Some(page);
            }
            // All pages of the part are alike.
            let alike = match self.part.contains_range(page) {
                true => self.part,
                false => page,
            };
            last = alike.start().get().checked_sub(1).and_then(Pfn::new);
        }
    }

    /// How many of the first of `frames`, at least 1, are base pages for the same reason as the first, which
    /// is one.
    pub(super) fn base_pages(&self, frames: PfnRange) -> u64 {
        let in_part = self.part.intersection(frames);
        let in_part = in_part.filter(|part| part.start() == frames.start());
        in_part.map_or(1, PfnRange::frames)
    }

    /// How many vmemmap pages of the compound page `page` are mapped to tails.
    pub(super) const fn tails_of(&self, page: PfnRange) -> u64 {
        (page.frames() >> self.model().vmemmap_page_order().get()).saturating_sub(1)
    }

    /// The page that `frame`, which is in [`whole`](Self::whole), is to be part of.
    pub(in crate::vmemmap) fn page_of(&self, frame: Pfn) -> (PfnRange, Order) {
        self.find_page(frame)
    }

    /// See [`page_of`](Self::page_of). For where the stack is deep.
    #[inline(always)]
    pub(super) fn find_page(&self, frame: Pfn) -> (PfnRange, Order) {
        if self.part.contains(frame) {
            return (aligned(frame, self.order), self.order);
        }
        let [first, last] = self.ends;
        let limit = if frame < self.part.start() {
            first
        } else {
            last
        };
        let mut order = Order::BASE;
        while let Some(larger) = order.get().checked_add(1).and_then(Order::new) {
            let page = aligned(frame, larger);
            if !limit.contains_range(page) || page.overlaps(self.part) {
                break;
            }
            order = larger;
        }
        (aligned(frame, order), order)
    }

    /// The segment that starts with the vmemmap page at `at`. It is as long as that is known at once; the
    /// next one may be of the same kind.
    #[inline]
    pub(super) fn segment(&self, at: VirtAddr) -> Option<Segment> {
        let first = self.model().frame_of_descriptor(at)?;
        // Nearly all are in the part, in pages that are larger than that.
        if self.order > self.model().vmemmap_page_order()
            && self.tails != Tails::None
            && self.heads == Heads::InPlace
            && self.part.contains(first)
        {
            let page = aligned(first, self.order);
            let before = first.get() - page.start().get();
            return Some(match before {
                0 => Segment {
                    kind: Kind::Own,
                    pages: 1,
                },
                _ => Segment {
                    kind: Kind::Tail {
                        page,
                        order: self.order,
                        tails: self.tails,
                        heads: Heads::InPlace,
                    },
                    pages: (page.frames() - before) >> self.model().vmemmap_page_order().get(),
                },
            });
        }
        if self.heads == Heads::Packed && self.part.contains(first) {
            let kind = Kind::Tail {
                page: aligned(first, self.order),
                order: self.order,
                tails: Tails::PerOrder,
                heads: Heads::Packed,
            };
            // Stubs run on from page to page.
            let rest = self.part.last().get() - first.get() + 1;
            let pages = rest >> self.model().vmemmap_page_order().get();
            return Some(Segment { kind, pages });
        }
        self.segment_beside(first)
    }

    /// The same where it is not pages that fill a vmemmap page, or not in the part.
    // Inlined, as what it calls: this is asked for where the stack is deep.
    #[inline(always)]
    fn segment_beside(&self, first: Pfn) -> Option<Segment> {
        let per_page = self.model().descriptors_per_page();
        let (page, order) = self.find_page(first.max(self.whole().start()));
        let alike = match self.part.contains_range(page) {
            true => self.part,
            false => page,
        };
        let up_to = |last: Pfn| ((last.get() + 1).saturating_sub(first.get()) / per_page).max(1);
        let own = |pages| Segment {
            kind: Kind::Own,
            pages,
        };
        let (tails, heads) = self.policies_of(order);
        let tails_up_to = |last| Segment {
            kind: Kind::Tail {
                page,
                order,
                tails,
                heads,
            },
            pages: up_to(last),
        };
        if heads == Heads::Packed {
            return Some(tails_up_to(page.last()));
        }
        if page.frames() <= per_page {
            return Some(own(up_to(alike.last())));
        }
        Some(match tails {
            Tails::None => own(up_to(alike.last())),
            _ if page.start() == first => own(1),
            _ => tails_up_to(page.last()),
        })
    }

    /// Of the `pages` vmemmap pages from `at` on, if all are of the part and its tails are shared by all
    /// pages of the order: how many have a first descriptor, and what the others are mapped to.
    pub(super) fn uniform(&self, at: VirtAddr, pages: u64) -> Option<(u64, Kind)> {
        let first = self.model().frame_of_descriptor(at)?;
        let frames = pages.checked_mul(self.model().descriptors_per_page())?;
        let frames = PfnRange::new(first, frames).ok()?;
        let is_uniform = self.tails == Tails::PerOrder
            && self.heads == Heads::InPlace
            && self.order > self.model().vmemmap_page_order()
            && self.part.contains_range(frames);
        if !is_uniform {
            return None;
        }
        let up_to = |frame: u64| (frame + self.order.frames() - 1) >> self.order.get();
        let heads = up_to(frames.last().get() + 1) - up_to(first.get());
        let kind = Kind::Tail {
            page: aligned(first, self.order),
            order: self.order,
            tails: self.tails,
            heads: Heads::InPlace,
        };
        Some((heads, kind))
    }

    /// The rest of the part, in pages of its order, if one of them is described from the vmemmap page at `at`
    /// on and all of these share their tails.
    pub(super) fn shared_from(&self, at: VirtAddr) -> Option<(PfnRange, Order)> {
        let first = self.model().frame_of_descriptor(at)?;
        let before = first.get().checked_sub(self.part.start().get())?;
        let rest = self.part.split_at(before).1;
        let is_shared = self.tails == Tails::PerOrder
            && self.heads == Heads::InPlace
            && self.order > self.model().vmemmap_page_order()
            && first.is_aligned(self.order);
        rest.filter(|_| is_shared).map(|rest| (rest, self.order))
    }

    /// Whether all of the `pages` vmemmap pages from `at` on are mapped to one tail frame, by a table that
    /// can be shared.
    pub(super) fn shares_table(&self, at: VirtAddr, pages: u64) -> bool {
        let segment = self.segment(at).filter(|_| self.shares_tables);
        segment.is_some_and(|segment| segment.kind != Kind::Own && segment.pages >= pages)
    }

    /// Whether the vmemmap pages at both addresses are mapped to one tail frame.
    // Not inlined: what it takes of the stack is not needed for long.
    #[inline(never)]
    pub(super) fn has_same_tail(&self, one: VirtAddr, other: VirtAddr) -> bool {
        let [one, other] = [one, other].map(|at| self.segment(at).map(|segment| segment.kind));
        match (one, other) {
            (
                Some(Kind::Tail {
                    order,
                    tails: Tails::PerOrder,
                    heads,
                    ..
                }),
                Some(Kind::Tail {
                    order: of_other,
                    tails: Tails::PerOrder,
                    heads: heads_of_other,
                    ..
                }),
            ) => (order, heads) == (of_other, heads_of_other),
            (one, other) => one == other,
        }
    }

    /// Whether tables of nothing but tails may be shared.
    pub(super) const fn can_share_tables(&self) -> bool {
        self.shares_tables
    }

    /// Whether a huge leaf may map what has a frame of its own for each vmemmap page.
    pub(super) const fn keeps_huge_leaves(&self) -> bool {
        self.pagemap.huge_leaves()
    }

    /// Whether each vmemmap page of `range` has a frame of its own.
    #[inline]
    pub(super) fn is_all_own(&self, range: VirtRange) -> bool {
        let mut rest = Some(range);
        while let Some(left) = rest {
            match self.segment(left.start()) {
                Some(Segment {
                    kind: Kind::Own,
                    pages,
                }) => rest = self.after(left, pages),
                _ => return false,
            }
        }
        true
    }

    /// The last address of `pages` pages from `at` on.
    pub(super) fn last_of(&self, at: VirtAddr, pages: u64) -> VirtAddr {
        let bytes = pages.saturating_mul(self.model().granule().bytes());
        VirtAddr::new(at.get().saturating_add(bytes.saturating_sub(1)))
    }

    /// `range` without its first `pages` pages.
    pub(super) fn after(&self, range: VirtRange, pages: u64) -> Option<VirtRange> {
        let bytes = pages.saturating_mul(self.model().granule().bytes());
        let last = range.start().checked_add(bytes.checked_sub(1)?)?;
        range.after(last)
    }
}

/// How tails of pages of `order` are to be shared.
fn tails_of(pagemap: &DevPagemap<'_>, order: Order) -> Tails {
    let is_known = slot(pagemap.model(), order, false) < ORDERS;
    match pagemap.tails_of(order).0 {
        Tails::PerOrder if !is_known => Tails::PerCompound,
        tails => tails,
    }
}

/// The place of `order` among those that can share their tails, or, where heads are packed, stubs; none for others.
// No order has tails in place that are shared, and others stubs, in one change.
fn slot(model: &MemoryModel, order: Order, packs: bool) -> usize {
    let larger = order.get().checked_sub(model.vmemmap_page_order().get());
    // Pages that fill one vmemmap page have stubs, but no vmemmap page of nothing but tails.
    let larger = larger.and_then(|larger| larger.checked_sub(u8::from(!packs)));
    larger.map_or(ORDERS, |larger| usize::from(larger).min(ORDERS))
}

/// The block of `order` that `frame` is in.
pub(in crate::vmemmap) fn aligned(frame: Pfn, order: Order) -> PfnRange {
    let page = PfnRange::new(frame.align_down(order), order.frames());
    page.unwrap_or(PfnRange::single(frame))
}
