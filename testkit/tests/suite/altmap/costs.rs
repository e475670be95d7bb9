//! How much an altmap takes, and from where.

use super::{GIB, MIB, PIECES, SHARED_TAILS, pagemap, range, with_device};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange};
use testkit::testbed::{Costs, Setup, Sizes, Testbed, Used};
use testkit::{OnBackend, on_backends};

use mm_core::pagemap::{DevPagemap, Tables, Tails};
use mm_core::vmemmap::{AuditReport, Note, OnlineError};

/// What memory with an altmap has to cost: base pages at the start of the first range.
fn expected(kind: BackendKind, pagemap: &DevPagemap<'_>, tables: Tables) -> AuditReport {
    let base_pages = pagemap.base_pages().unwrap();
    let order = pagemap.geometry().order();
    let mut used = vec![Used::base_pages(base_pages, false)];
    for range in pagemap.ranges() {
        let compound = match range.overlaps(base_pages) {
            true => range.split_at(base_pages.frames()).1,
            false => Some(*range),
        };
        let compound = compound.unwrap();
        used.push(Used::compound(compound, order, pagemap.tails().0));
    }
    let costs = Costs::of(kind, pagemap.model());
    let reserved = pagemap.altmap().unwrap().reserved();
    costs.with_altmap(costs.report(&used, tables), reserved)
}

fn in_ram(tails: Tails) -> u64 {
    u64::from(tails == Tails::PerOrder)
}

/// The figures that were asked for.
fn sixteen_gib_take_the_fewest_subsections(kind: BackendKind) {
    let model = kind.model();
    let ranges = [range(&model, 24 * GIB, 16 * GIB)];
    let cases = [
        (2 * MIB, Tails::PerCompound, 33, 16582, 17, 0),
        (2 * MIB, Tails::PerOrder, 17, 8311, 9, 1),
        (GIB, Tails::PerCompound, 9, 4096 + 30, 5, 0),
        (GIB, Tails::PerOrder, 9, 4096 + 15, 5, 1),
    ];
    for (align, tails, subsections, in_altmap, counts, in_ram) in cases {
        let order = Sizes::of(model).order(align);
        let plain = pagemap(&model, &ranges, order, tails);
        with_device(kind, plain, |bed, plain, altmap| {
            assert_eq!(altmap.reserved().frames(), subsections * 512);
            for piece in PIECES {
                let region = bed.online(&plain.with_piece(piece)).unwrap();
                assert_eq!(region.tails(), tails);
                let used = subsections * 2 * MIB;
                let gap = (align == GIB).then(|| range(&model, 24 * GIB + used, GIB - used));
                let expected = gap.map(|frames| Note::AltmapGap { frames });
                assert!(region.notes().iter().eq(expected), "{:?}", region.notes());

                let report = bed.audit();
                assert_eq!(altmap.in_use(), in_altmap);
                assert_eq!(report.descriptor_frames, in_altmap + in_ram);
                assert_eq!(
                    (report.count_frames, altmap.count_frames()),
                    (counts, counts)
                );
                assert_eq!(report.mapped_pages, 65536);
                assert_eq!(report.leaf_tables, if bed.has_tables() { 128 } else { 0 });
                // Of RAM there are tables, and the one tail frame of all.
                let tables = report.leaf_tables + report.upper_tables;
                assert_eq!(bed.frames().outstanding(), tables + in_ram);
                bed.offline(region);
            }
        });
    }
}

/// Compound pages of eight vmemmap pages, and larger ones, on each granule.
fn memory_costs_what_the_formula_says(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let larger = Order::new(sizes.natural().get() + 3).unwrap();
    for (order, count) in [(sizes.natural(), 600), (larger, 80)] {
        for tails in SHARED_TAILS {
            let ranges = [sizes.blocks(order, 8, count - 3), sizes.blocks(order, 2, 3)];
            let plain = pagemap(&model, &ranges, order, tails);
            with_device(kind, plain, |bed, pagemap, altmap| {
                let expected = expected(kind, &pagemap, Tables::Private);
                // One subsection less would not do.
                let needed = expected.descriptor_frames - in_ram(tails);
                let reserved = altmap.reserved().frames();
                let with_counts = needed + expected.count_frames;
                assert!(with_counts <= reserved);
                let unit = model.subsection().frames();
                let base_pages = pagemap.base_pages().unwrap().frames();
                let fewer_base_pages = reserved - unit + order.frames() <= base_pages;
                // Their counts are a frame less at most.
                assert!(with_counts - 1 > reserved - unit || fewer_base_pages);
                for piece in PIECES {
                    let region = bed.online(&pagemap.with_piece(piece)).unwrap();
                    assert_eq!(bed.audit(), expected, "{order} {tails:?} {piece:?}");
                    assert_eq!(altmap.in_use(), needed);
                    bed.offline(region);
                }
            });
        }
    }
}

fn one_subsection_less_is_exhausted_and_leaves_everything_as_it_was(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    for (order, tails) in [
        (sizes.natural(), Tails::PerCompound),
        (sizes.natural(), Tails::PerOrder),
        (Order::BASE, Tails::None),
    ] {
        let ranges = [sizes.blocks(sizes.natural(), 8, 1200)];
        let plain = pagemap(&model, &ranges, order, tails).with_huge_leaves(false);
        let needed = plain.altmap_needed().unwrap();
        let small = needed.frames() - model.subsection().frames();
        let small = needed.split_at(small).0.unwrap();
        kind.testbed(&Setup::new(&ranges).with_altmap(small), |bed| {
            let pagemap = plain.with_altmap(bed.altmaps()[0]).unwrap();
            let before = bed.snapshot();
            let refused = bed.online(&pagemap).map(drop);
            let exhausted = OnlineError::AltmapExhausted { reserved: small };
            assert_eq!(refused, Err(exhausted));
            bed.assert_unchanged(&before, "exhausted");
        });
        with_device(kind, plain, |bed, pagemap, _| {
            let region = bed.online(&pagemap).unwrap();
            bed.audit();
            bed.offline(region);
        });
    }
}

fn shared_leaf_tables_are_those_of_the_compound_pages(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = sizes.gigantic();
    for tails in SHARED_TAILS {
        let ranges = [sizes.blocks(order, 2, 4)];
        let plain = pagemap(&model, &ranges, order, tails).with_tables(Tables::Shared);
        // Base pages, 512 GiB of which have a GiB of descriptors with 64K pages, are what the
        // altmap is in.
        let reserved = plain.altmap_needed().unwrap();
        kind.testbed(&Setup::new(&ranges).with_altmap(reserved), |bed| {
            let pagemap = plain.with_altmap(bed.altmaps()[0]).unwrap();
            let region = bed.online(&pagemap).unwrap();
            let tables = if bed.shares_tables() {
                Tables::Shared
            } else {
                Tables::Private
            };
            assert_eq!(bed.audit(), expected(kind, &pagemap, tables));
            // A piece in the midst of shared tables, then the rest.
            let part = sizes.subsections(ranges[0]);
            let part = part[part.len() * 7 / 8];
            bed.depopulate(&pagemap, part).unwrap();
            bed.audit();
            bed.offline(region);
        });
    }
}

fn begins_with_base_pages_and_goes_on_with_compound_pages(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = Order::new(sizes.natural().get() + 1).unwrap();
    for tails in SHARED_TAILS {
        let ranges = [sizes.blocks(order, 12, 3), sizes.blocks(order, 4, 1)];
        with_device(
            kind,
            pagemap(&model, &ranges, order, tails),
            |bed, pagemap, altmap| {
                let base_pages = pagemap.base_pages().unwrap();
                assert_eq!(base_pages, sizes.blocks(order, 12, 1));
                let region = bed.online(&pagemap).unwrap();
                bed.assert_described(base_pages, Order::BASE);
                bed.assert_described(sizes.blocks(order, 13, 2), order);
                bed.assert_described(ranges[1], order);
                // Every base page has a frame of its own, and no frame but the shared tail is RAM.
                let own = bed.holders_of(base_pages);
                assert_eq!(own.len() as u64, sizes.pages(order));
                let holders = |bed: &dyn Testbed<'_>, range: PfnRange| {
                    let mut holders = bed.holders_of(range);
                    holders.retain(|frame| !altmap.contains(*frame));
                    holders.len() as u64
                };
                assert_eq!(holders(bed, ranges[0]), in_ram(tails));
                assert_eq!(holders(bed, ranges[1]), in_ram(tails));
                bed.offline(region);
            },
        );
    }
}

on_backends!(pages_of_4k: sixteen_gib_take_the_fewest_subsections);

on_backends!(all:
    memory_costs_what_the_formula_says,
    one_subsection_less_is_exhausted_and_leaves_everything_as_it_was,
    shared_leaf_tables_are_those_of_the_compound_pages,
    begins_with_base_pages_and_goes_on_with_compound_pages,
);
