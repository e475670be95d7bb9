//! What memory costs with either descriptor.

use super::{OWN, Own, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, PfnRange, PhysAddr};
use mm_core::pagemap::{Piece, Tables, TablesFallback, Tails};
use mm_core::vmemmap::{Note, OnlineError};
use testkit::on_backends;
use testkit::testbed::{Costs, Setup, Sizes, Used};

const PIECES: [Piece; 3] = [Piece::Subsection, Piece::Section, Piece::Range];

/// Half of what descriptors of 64 bytes cost, where every page has its own; a GiB of memory.
fn a_gib_of_32_byte_descriptors(kind: BackendKind) {
    let model = Own::Slim.model(kind);
    let sizes = Sizes::of(model);
    assert_eq!(model.descriptors_per_page() << 12, 512 << 10);
    assert_eq!(sizes.table(), sizes.order(256 << 20));
    assert_eq!(sizes.pages(sizes.order(2 << 20)), 4);
    assert_eq!(sizes.pages(sizes.order(1 << 30)), 2048);
    let start = PhysAddr::new(24 << 30);
    let ranges = [PfnRange::from_bytes(start, 1 << 30, model.granule()).unwrap()];
    let (private, shared) = (Tables::Private, Tables::Shared);
    let cases = [
        (4 << 10, Tails::None, private, 2048, 0),
        (2 << 20, Tails::PerCompound, private, 1024, 4),
        (2 << 20, Tails::PerOrder, private, 513, 4),
        (1 << 30, Tails::PerCompound, private, 2, 4),
        (1 << 30, Tails::PerCompound, shared, 2, 2),
        (1 << 30, Tails::PerOrder, private, 2, 4),
        (1 << 30, Tails::PerOrder, shared, 2, 2),
    ];
    for (align, tails, tables, descriptor_frames, leaf_tables) in cases {
        Own::Slim.testbed(kind, &Setup::new(&ranges), |bed| {
            let pagemap = pagemap(&model, &ranges, sizes.order(align), tails)
                .with_tables(tables)
                .with_piece(Piece::Range);
            let region = bed.online(&pagemap).unwrap();
            let report = bed.audit();
            assert_eq!(report.descriptor_frames, descriptor_frames);
            assert_eq!(report.mapped_pages, 2048);
            if bed.has_tables() {
                assert_eq!(report.leaf_tables, leaf_tables, "{align:#x} {tails:?}");
            }
            bed.assert_described(ranges[0], sizes.order(align));
            bed.offline(region);
        });
    }
}

fn every_policy_costs_what_the_formula_says(kind: BackendKind) {
    for own in OWN {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        let costs = Costs::of(kind, &model);
        for tails in own.tails() {
            for (order, count) in [
                (sizes.small(), 20),
                (sizes.natural(), 10),
                (sizes.gigantic(), 2),
            ] {
                for tables in [Tables::Private, Tables::Shared] {
                    let ranges = [sizes.blocks(order, 6, count)];
                    let many = ranges[0].frames() / model.section().frames() > 64;
                    own.testbed(kind, &Setup::new(&ranges), |bed| {
                        for piece in PIECES.into_iter().skip(if many { 2 } else { 0 }) {
                            let pagemap = pagemap(&model, &ranges, order, *tails)
                                .with_tables(tables)
                                .with_piece(piece);
                            let region = bed.online(&pagemap).unwrap();
                            let used = Used::compound(ranges[0], order, *tails);
                            let shared = region.tables();
                            let expected = costs.report(&[used], shared);
                            assert_eq!(bed.audit(), expected, "{own:?} {order} {tails:?}");
                            let shares = bed.shares_tables() && order == sizes.gigantic();
                            assert_eq!(
                                shared == Tables::Shared,
                                tables == Tables::Shared && shares
                            );
                            bed.assert_described(ranges[0].take_first(1 << 15).0, order);
                            bed.assert_described(PfnRange::single(ranges[0].last()), order);
                            bed.offline(region);
                        }
                    });
                }
            }
        }
    }
}

fn base_pages_have_huge_leaves(kind: BackendKind) {
    for own in OWN {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        let ranges = [sizes.blocks(sizes.table(), 3, 1)];
        for huge in [true, false] {
            // 64K pages have 512 MiB of descriptors behind a huge leaf.
            let ranges = match huge {
                true => ranges,
                false => [ranges[0].take_first(4 * sizes.natural().frames()).0],
            };
            own.testbed(kind, &Setup::new(&ranges), |bed| {
                let pagemap = pagemap(&model, &ranges, Order::BASE, Tails::None)
                    .with_piece(Piece::Range)
                    .with_huge_leaves(huge);
                let region = bed.online(&pagemap).unwrap();
                let used = Used::base_pages(ranges[0], huge);
                let expected = Costs::of(kind, &model).report(&[used], Tables::Private);
                assert_eq!(bed.audit(), expected);
                bed.assert_described(ranges[0], Order::BASE);
                if huge {
                    let piece = sizes.subsections(ranges[0])[1];
                    bed.depopulate(&pagemap, piece).unwrap();
                    bed.audit();
                    bed.assert_offline(piece);
                }
                bed.offline(region);
            });
        }
    }
}

/// What is worth sharing depends on the descriptor's size: 1 MiB has four vmemmap pages of 64-byte
/// descriptors and two of 32-byte ones.
#[test]
fn what_saves_nothing_depends_on_the_size() {
    let kind = BackendKind::X86_64;
    for (own, expected) in [(Own::Slim, 2 * 32), (Own::Wide, 2 * 32)] {
        let model = own.model(kind);
        let sizes = Sizes::of(model);
        let order = sizes.order(1 << 20);
        let ranges = [sizes.blocks(sizes.order(2 << 20), 6, 16)];
        own.testbed(kind, &Setup::new(&ranges), |bed| {
            let region = bed
                .online(&pagemap(&model, &ranges, order, Tails::PerCompound))
                .unwrap();
            let falls_back = region
                .notes()
                .iter()
                .any(|note| matches!(note, Note::Tails(_)));
            assert_eq!(falls_back, own == Own::Slim);
            assert_eq!(bed.audit().descriptor_frames, expected);
            bed.assert_described(ranges[0], order);
            bed.offline(region);
        });
    }
}

fn tails_that_name_their_head_are_never_shared_by_all(kind: BackendKind) {
    let own = Own::Wide;
    let model = own.model(kind);
    let sizes = Sizes::of(model);
    let order = sizes.natural();
    let ranges = [sizes.blocks(order, 6, 2)];
    own.testbed(kind, &Setup::new(&ranges), |bed| {
        let per_order = pagemap(&model, &ranges, order, Tails::PerOrder);
        let before = bed.snapshot();
        let refused = bed.online(&per_order).map(drop);
        assert_eq!(refused, Err(OnlineError::TailsDiffer));
        bed.assert_unchanged(&before, "refused");
    });
}

/// Reported for the sizes of this descriptor, not of the other one.
fn tails_that_fill_no_table_are_reported(kind: BackendKind) {
    let model = Own::Slim.model(kind);
    let sizes = Sizes::of(model);
    let order = sizes.table();
    let ranges = [sizes.blocks(order, 6, 1)];
    Own::Slim.testbed(kind, &Setup::new(&ranges), |bed| {
        let pagemap = pagemap(&model, &ranges, order, Tails::PerOrder).with_tables(Tables::Shared);
        let region = bed.online(&pagemap).unwrap();
        let notes: Vec<Note> = region.notes().iter().collect();
        let fallback = match bed.shares_tables() {
            true => TablesFallback::NoWholeTable { order },
            false => TablesFallback::NotSupported,
        };
        assert_eq!(notes, [Note::Tables(fallback)]);
        bed.offline(region);
    });
}

on_backends!(pages_of_4k: a_gib_of_32_byte_descriptors);

on_backends!(all:
    every_policy_costs_what_the_formula_says,
    base_pages_have_huge_leaves,
    tails_that_name_their_head_are_never_shared_by_all,
    tails_that_fill_no_table_are_reported,
);
