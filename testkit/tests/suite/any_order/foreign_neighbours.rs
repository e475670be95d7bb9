//! Next to somebody else's mappings: they are seen, and never counted, taken or freed.

use super::{SHARED_TAILS, pagemap};
use hosted::BackendKind;
use mm_core::addr::{Order, Pfn, PfnRange};
use mm_core::error::ErrorKind;
use mm_core::pagemap::{Piece, Tails};
use mm_core::paging::{Leaf, Role};
use mm_core::vmemmap::OnlineError;
use testkit::testbed::{Neighbour, Setup, Sizes, shuffled};
use testkit::{OnBackend, on_backends};

/// A compound page's pieces in random order, with each kind of neighbour right before and right
/// behind it.
fn any_neighbour_is_left_alone_and_nothing_is_taken_from_it(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let table = sizes.table();
    // All that a leaf table maps, so that huge leaves have a place on both sides.
    let ranges = [sizes.blocks(table, 9, 1)];
    let before = sizes.blocks(table, 8, 1);
    let behind = sizes.blocks(table, 10, 1);
    let small = sizes.small().frames();
    let last = before.split_at(before.frames() - small).1.unwrap();
    let first = behind.take_first(small).0;
    let unit = ranges[0].frames() / 8;
    let piece = |index: usize| {
        let start = ranges[0].start().saturating_add(index as u64 * unit);
        PfnRange::new(start, unit).unwrap()
    };
    for (seed, neighbour) in Neighbour::ALL.into_iter().enumerate() {
        for tails in SHARED_TAILS {
            kind.testbed(&Setup::new(&[before, ranges[0], behind]), |bed| {
                let tenants = [neighbour.move_in(bed, last), neighbour.move_in(bed, first)];
                let alone = bed.audit();
                let pagemap = pagemap(&model, &ranges, table, tails);
                for index in shuffled(8, seed as u64 + 1) {
                    bed.populate(&pagemap, piece(index)).map(drop).unwrap();
                    bed.audit();
                    bed.fill_cpus(ranges[0]);
                }
                // A head and a tail frame, whoever lives next door; but the tail frame of a
                // neighbour of the same policy and another order is its own.
                let report = bed.audit();
                assert_eq!(report.descriptor_frames, alone.descriptor_frames + 2);
                bed.assert_described(ranges[0].take_first(1 << 14).0, table);
                bed.assert_described(PfnRange::single(ranges[0].last()), table);
                for index in shuffled(8, seed as u64 + 9) {
                    bed.depopulate(&pagemap, piece(index)).unwrap();
                    bed.audit();
                }
                assert_eq!(bed.audit(), alone, "{neighbour:?}");
                for tenant in tenants {
                    tenant.move_out(bed);
                }
            });
        }
    }
}

/// The piece before is mapped by a huge leaf of this library's: base pages.
fn a_huge_leaf_of_ours_is_never_read_as_a_table(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let table = sizes.table();
    let base = [sizes.blocks(table, 8, 1)];
    let ranges = [sizes.blocks(table, 9, 1)];
    let (first, second) = ranges[0].split_at(ranges[0].frames() / 2);
    let (first, second) = (first.unwrap(), second.unwrap());
    for tails in SHARED_TAILS {
        kind.testbed(&Setup::new(&[base[0], ranges[0]]), |bed| {
            let base = pagemap(&model, &base, Order::BASE, Tails::None).with_piece(Piece::Range);
            let region = bed.online(&base).unwrap();
            assert_eq!(bed.audit().leaf_tables, 0);
            let pagemap = pagemap(&model, &ranges, table, tails);
            for piece in [second, first] {
                bed.populate(&pagemap, piece).map(drop).unwrap();
                bed.audit();
            }
            bed.assert_described(ranges[0].take_first(1 << 14).0, table);
            bed.depopulate(&pagemap, ranges[0]).unwrap();
            bed.offline(region);
        });
    }
}

/// In the midst of the compound page: the vmemmap there is taken, so nothing comes online, and what
/// is online already stays.
fn what_somebody_else_has_mapped_is_in_the_way(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = Order::new(sizes.subsection().get() + 3).unwrap();
    let ranges = [sizes.blocks(order, 20, 1)];
    let pieces = sizes.subsections(ranges[0]);
    for tails in SHARED_TAILS {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let pagemap = pagemap(&model, &ranges, order, tails);
            bed.populate(&pagemap, pieces[2]).map(drop).unwrap();
            let at = bed.address_of(pieces[4].start());
            let theirs = Leaf::single(Pfn::new(7).unwrap(), Role::Foreign);
            assert!(bed.map_foreign(at, theirs));
            let before = bed.snapshot();
            for frames in [pieces[4], ranges[0]] {
                let refused = bed.populate(&pagemap, frames).unwrap_err();
                let found = if frames == pieces[4] {
                    at
                } else {
                    bed.address_of(pieces[2].start())
                };
                assert_eq!(refused, OnlineError::AlreadyMapped { at: found });
                assert_eq!(refused.kind(), ErrorKind::AlreadyOnline);
            }
            let refused = bed.online(&pagemap).map(drop);
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::AlreadyOnline);
            bed.assert_unchanged(&before, "refused");
            // Around it.
            for index in [3, 5, 0, 7] {
                bed.populate(&pagemap, pieces[index]).map(drop).unwrap();
                bed.assert_described(pieces[index], order);
                bed.audit();
            }
            // What is theirs is not ours to take offline.
            let before = bed.snapshot();
            let across = PfnRange::new(pieces[3].start(), 2 * sizes.subsection().frames());
            let refused = bed.depopulate(&pagemap, across.unwrap()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::NotOnline);
            bed.assert_unchanged(&before, "refused");
            for index in [2, 3, 5, 0, 7] {
                bed.depopulate(&pagemap, pieces[index]).unwrap();
            }
            bed.unmap_foreign(at);
            // Tables that were ours and that they kept in place go with what comes and goes there
            // next.
            bed.populate(&pagemap, pieces[4]).map(drop).unwrap();
            bed.depopulate(&pagemap, pieces[4]).unwrap();
        });
    }
}

/// An array of base pages that shows, by chance, what a tail frame would.
fn base_pages_in_the_compound_page_are_never_taken_for_its_tails(kind: BackendKind) {
    let model = kind.model();
    let sizes = Sizes::of(model);
    let order = Order::new(sizes.subsection().get() + 3).unwrap();
    let ranges = [sizes.blocks(order, 20, 1)];
    let pieces = sizes.subsections(ranges[0]);
    for tails in SHARED_TAILS {
        kind.testbed(&Setup::new(&ranges), |bed| {
            let base = pagemap(&model, &ranges, Order::BASE, Tails::None).with_huge_leaves(false);
            bed.populate(&base, ranges[0]).map(drop).unwrap();
            // Made parts of the compound page, unshared: their words are those of its tails.
            let pagemap = pagemap(&model, &ranges, order, tails);
            bed.reshape(&pagemap, ranges[0]).unwrap();
            for index in [0, 1, 2, 4, 5, 6, 7] {
                bed.depopulate(&pagemap, pieces[index]).unwrap();
            }
            bed.assert_described(pieces[3], order);
            let own = bed.holders_of(pieces[3]);

            for index in [4, 2, 0] {
                bed.populate(&pagemap, pieces[index]).map(drop).unwrap();
                assert!(bed.holders_of(pieces[index]).is_disjoint(&own), "{index}");
                bed.audit();
            }
            for index in [3, 4, 2, 0] {
                bed.depopulate(&pagemap, pieces[index]).unwrap();
                bed.audit();
            }
        });
    }
}

on_backends!(all:
    any_neighbour_is_left_alone_and_nothing_is_taken_from_it,
    a_huge_leaf_of_ours_is_never_read_as_a_table,
    what_somebody_else_has_mapped_is_in_the_way,
    base_pages_in_the_compound_page_are_never_taken_for_its_tails,
);
