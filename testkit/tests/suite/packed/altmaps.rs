//! Packed heads beside an altmap: in its frames where their page lies within the pagemap, in RAM where it does not.

use super::{address, assert_packed, packed};
use hosted::BackendKind;
use mm_core::addr::{NodeId, Order, Pfn, PfnRange};
use mm_core::model::MemoryModel;
use mm_core::pagemap::{DevPagemap, Geometry, Heads, Tables};
use mm_core::vmemmap::{FoldError, OfflineError, OnlineError};
use testkit::testbed::{Faults, Setup, Sizes, Testbed, fail_each};
use testkit::{OnBackend, on_backends};

/// Memory of two pages of places and a half, with the reserved part at its start.
struct Layout {
    model: MemoryModel,
    order: Order,
    all: PfnRange,
    reserved: PfnRange,
}

impl Layout {
    fn of(kind: BackendKind) -> Self {
        let model = kind.model();
        let sizes = Sizes::of(model);
        let (order, per_page) = (sizes.natural(), model.descriptors_per_page());
        // The reserved part takes the first page of these.
        let all = sizes.blocks(order, 3 * per_page - 4, 2 * per_page + 9);
        let reserved = all.take_first(2 * model.subsection().frames()).0;
        Self {
            model,
            order,
            all,
            reserved,
        }
    }

    fn setup(&self) -> Setup {
        Setup::new(&[self.all]).with_altmap(self.reserved)
    }

    /// What is used in compound pages.
    fn compound(&self) -> PfnRange {
        let base = self.reserved.frames();
        let base = base.next_multiple_of(self.order.frames());
        self.all.split_at(base).1.unwrap()
    }

    /// The pages of `order` whose head is in a page of places that the range has to itself.
    fn inside(&self) -> PfnRange {
        let per_page = self.model.descriptors_per_page();
        Sizes::of(self.model).blocks(self.order, 3 * per_page, 2 * per_page)
    }

    fn base_pages(&self) -> u64 {
        let base = self.all.frames() - self.compound().frames();
        base / self.model.descriptors_per_page()
    }

    /// Where heads are is seen by whose frames they are in.
    fn check(&self, bed: &mut dyn Testbed<'_>) {
        let shift = self.model.granule().shift();
        let compound = self.compound();
        for index in 0..compound.frames() / self.order.frames() {
            let first = compound.start().saturating_add(index * self.order.frames());
            let at = address(&self.model, first, self.order);
            let holder = bed.leaf(at).unwrap().frame_at(at, shift);
            let is_inside = self.inside().contains(first);
            assert_eq!(self.reserved.contains(holder), is_inside, "head of {first}");
        }
        for end in [compound.start(), compound.last()] {
            let page = PfnRange::new(end.align_down(self.order), self.order.frames());
            assert_packed(bed, page.unwrap(), self.order);
        }
        let stubs = bed.holder_of(compound.start()).unwrap();
        assert!(!self.reserved.contains(stubs), "stubs outlive the device");
        let stats = bed.stats().total();
        assert_eq!(stats.altmap_frames, self.base_pages() + 2);
        let audited = bed.audit();
        assert_eq!(audited.head_frames, 4);
        // Two pages of heads at the ends, and one of stubs.
        assert_eq!(audited.descriptor_frames, stats.altmap_frames + 3);
    }
}

fn heads_come_from_the_altmap_where_their_page_is_within_the_pagemap(kind: BackendKind) {
    let layout = Layout::of(kind);
    let ranges = [layout.all];
    kind.testbed(&layout.setup(), |bed| {
        let altmap = bed.altmaps()[0];
        let pagemap = packed(&layout.model, &ranges, layout.order);
        let needed = pagemap.altmap_needed().unwrap();
        assert!(needed.frames() <= layout.reserved.frames(), "{needed}");
        let pagemap = pagemap.with_altmap(altmap).unwrap();
        for piece in [
            mm_core::pagemap::Piece::Range,
            mm_core::pagemap::Piece::Section,
        ] {
            let region = bed.online(&pagemap.with_piece(piece)).unwrap();
            layout.check(bed);
            bed.offline(region);
            assert_eq!(bed.stats().total().altmap_frames, 0);
        }
        // By pieces from the last one on, and gone from the first one on.
        let unit = layout.order.max(layout.model.subsection());
        let piece = |index| Sizes::of(layout.model).blocks(unit, index, 1);
        let first = layout.all.start().get() >> unit.get();
        let pieces = first..first + (layout.all.frames() >> unit.get());
        for index in pieces.clone().rev() {
            let _ = bed.populate(&pagemap, piece(index)).unwrap();
        }
        layout.check(bed);
        for index in pieces {
            bed.depopulate(&pagemap, piece(index)).unwrap();
        }
        assert_eq!(bed.stats().total().altmap_frames, 0);
        bed.audit();
    });
}

fn a_failure_beside_an_altmap_leaves_nothing(kind: BackendKind) {
    let layout = Layout::of(kind);
    let ranges = [layout.all];
    kind.testbed(&layout.setup(), |bed| {
        let altmap = bed.altmaps()[0];
        let pagemap = packed(&layout.model, &ranges, layout.order);
        let pagemap = pagemap.with_altmap(altmap).unwrap();
        for faults in [Faults::Ram, Faults::Altmap(0)] {
            let failures = fail_each(
                bed,
                faults,
                |bed| bed.online(&pagemap.with_piece(mm_core::pagemap::Piece::Range)),
                |bed, region| {
                    bed.offline(region);
                },
            );
            assert!(failures > 1, "{faults:?} {failures}");
        }
    });
}

/// Who has not the altmap could not give its frames back.
fn heads_in_an_altmap_are_left_to_pagemaps_with_it(kind: BackendKind) {
    let layout = Layout::of(kind);
    let ranges = [layout.all];
    let (order, reserved) = (layout.order, layout.reserved);
    kind.testbed(&layout.setup(), |bed| {
        let altmap = bed.altmaps()[0];
        let without = packed(&layout.model, &ranges, order).with_tables(Tables::Private);
        let with = without.with_altmap(altmap).unwrap();
        let region = bed.online(&with).unwrap();
        let nth = |index| {
            let start = layout.inside().start();
            let start: Pfn = start.saturating_add(index * order.frames());
            PfnRange::new(start, order.frames()).unwrap()
        };
        // Neither taken offline, nor changed.
        let refused = bed.depopulate(&without, nth(1)).map(drop);
        assert_eq!(refused, Err(OfflineError::OtherAltmap { reserved }));
        let in_place = without.with_heads(Heads::InPlace);
        let node = NodeId::new(0);
        for pagemap in [&in_place, &without] {
            let needed = bed.reserve_needed(pagemap, nth(1), order);
            let _ = bed.fill_reserve(node, needed).unwrap();
            let before = bed.snapshot();
            let refused = bed.reorder(pagemap, nth(1)).map(drop);
            let refused = refused.map_err(|stopped| stopped.error);
            assert_eq!(refused, Err(FoldError::OtherAltmap { reserved }));
            bed.assert_unchanged(&before, "after it was refused");
        }
        bed.empty_reserve();
        // Nor joined.
        bed.depopulate(&with, nth(1)).unwrap();
        let before = bed.snapshot();
        let refused = bed.populate(&without, nth(1)).map(drop);
        assert_eq!(refused, Err(OnlineError::HeadsInAltmap { reserved }));
        bed.assert_unchanged(&before, "after it was refused");
        // In place they are nobody's affair.
        let _ = bed.populate(&in_place, nth(1)).unwrap();
        bed.depopulate(&in_place, nth(1)).unwrap();
        let _ = bed.populate(&with, nth(1)).unwrap();
        layout.check(bed);
        bed.offline(region);
    });
}

/// What other memory has around it goes offline without an altmap; heads in one stay.
fn a_region_without_the_altmap_leaves_such_heads(kind: BackendKind) {
    let layout = Layout::of(kind);
    let (model, order) = (layout.model, layout.order);
    let ranges = [layout.all];
    let compound = [layout.compound()];
    kind.testbed(&layout.setup(), |bed| {
        let altmap = bed.altmaps()[0];
        let with = packed(&model, &ranges, order).with_altmap(altmap).unwrap();
        let with = with.with_tables(Tables::Private);
        let region = bed.online(&with).unwrap();
        bed.depopulate(&with, compound[0]).unwrap();
        // Another region where its compound pages were, and a part of it in the altmap again.
        let pages = DevPagemap::new(&model, &compound, Geometry::compound(order)).unwrap();
        let other = bed.online(&pages).unwrap();
        let part = PfnRange::new(layout.inside().start(), 2 * order.frames()).unwrap();
        bed.depopulate(&pages, part).unwrap();
        let _ = bed.populate(&with, part).unwrap();
        let offlined = bed.offline(other);
        assert_eq!(offlined.kept, part.frames());
        assert_packed(bed, part, order);
        bed.offline(region);
        assert_eq!(bed.stats().total().altmap_frames, 0);
    });
}

/// A change of order by a pagemap with the altmap gives it the frames of old heads; new ones are in RAM.
fn old_heads_go_back_to_the_altmap(kind: BackendKind) {
    let layout = Layout::of(kind);
    let (model, order) = (layout.model, layout.order);
    let ranges = [layout.all];
    kind.testbed(&layout.setup(), |bed| {
        let altmap = bed.altmaps()[0];
        let with = packed(&model, &ranges, order).with_altmap(altmap).unwrap();
        let with = with.with_tables(Tables::Private);
        let region = bed.online(&with).unwrap();
        let page = layout.inside().take_first(layout.inside().frames() / 2).0;
        let base = DevPagemap::new(&model, &ranges, Geometry::compound(layout.order)).unwrap();
        let smaller = Order::new(order.get() - 1).unwrap();
        let smaller = smaller.max(Sizes::of(model).vmemmap_page());
        assert!(smaller < order);
        let smaller = packed(&model, &ranges, smaller).with_tables(Tables::Private);
        let smaller = smaller.with_altmap(altmap).unwrap();
        let mut change = |pagemap: &DevPagemap<'_>, left: u64| {
            let needed = bed.reserve_needed(pagemap, page, order);
            let _ = bed.fill_reserve(base.node(), needed).unwrap();
            let done = bed.reorder(pagemap, page).unwrap();
            assert_eq!(done.rest, None);
            assert_packed(bed, page, pagemap.geometry().order());
            assert_eq!(
                bed.stats().total().altmap_frames,
                layout.base_pages() + left
            );
            bed.audit();
            bed.empty_reserve();
        };
        change(&smaller, 1);
        change(&with, 1);
        bed.offline(region);
        assert_eq!(bed.stats().total().altmap_frames, 0);
    });
}

on_backends!(all:
    heads_come_from_the_altmap_where_their_page_is_within_the_pagemap,
    heads_in_an_altmap_are_left_to_pagemaps_with_it,
);
on_backends!(pages_of_4k:
    a_failure_beside_an_altmap_leaves_nothing,
    a_region_without_the_altmap_leaves_such_heads,
    old_heads_go_back_to_the_altmap,
);
